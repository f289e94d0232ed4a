"""A simulated device: its tensors wrap tensors on the CPU, so its results are exact.

It behaves like a GPU: two devices in one operation are an error, as is a queued copy to the CPU, whose reader would get
old values, and synchronisations are recorded. ``WAITS`` lists the
operations that waited for the device: reading a value, copying to the CPU, or a copy to the device that is not queued.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


NAME = "pretended"
_setup_privateuseone_for_python_backend(NAME, _Backend())
DEVICE = torch.device(NAME, 0)
# What reads values, so that the program has to wait for them.
READS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "unique", "is_nonzero"}
COPIES = {"_to_copy", "copy_"}
WAITS: list[str] = []


class There(Tensor):
    """A tensor on the device; ``held`` is the wrapped tensor on the CPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        size, strides, offset = held.shape, held.stride(), held.storage_offset()
        made = Tensor._make_wrapper_subclass(cls, size, strides, offset, dtype=held.dtype, device=DEVICE)
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})

    def tolist(self) -> Any:
        WAITS.append("tolist")
        return self.held.tolist()

    def __repr__(self, **options: Any) -> str:
        return f"There({self.held})"


class Accelerator(TorchDispatchMode):
    """Make the device available to torch."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(operation, args, kwargs or {})


def _run(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    name = operation.overloadpacket.__name__
    tensors = list(_tensors((*args, *kwargs.values())))
    there = [tensor for tensor in tensors if isinstance(tensor, There)]
    device = kwargs.get("device")
    result_there = bool(there) if device is None else torch.device(device).type == NAME
    queued = kwargs.get("non_blocking", len(args) > 2 and args[2] is True)
    masked = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
    if queued and _is_to_host(name, args, result_there):
        raise RuntimeError(f"{operation}: a queued copy to the CPU, which is not waited for")
    if there and (name in READS or masked or _is_to_host(name, args, result_there)):
        WAITS.append(name)
    elif _is_to_device(name, args, result_there) and not queued:
        WAITS.append(f"{name} to the device")
    if name not in COPIES and there and any(tensor.dim() for tensor in tensors if not isinstance(tensor, There)):
        raise RuntimeError(f"{operation}: tensors on two devices")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
    result = operation(*map(_held, args), **{option: _held(value) for option, value in kwargs.items()})
    if name == "copy_":
        return args[0]
    if not result_there:
        return result
    return _put_there(result, {id(tensor.held): tensor for tensor in there})


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors among arguments, also those in lists. (torch's pytrees take most of the time of a test.)"""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _held(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_held, value))
    return value.held if isinstance(value, There) else value


def _put_there(result: Any, known: dict[int, There]) -> Any:
    if isinstance(result, list | tuple):
        return type(result)(_put_there(value, known) for value in result)
    if not isinstance(result, Tensor):
        return result
    return known[id(result)] if id(result) in known else There(result)


def _is_to_host(name: str, args: Any, result_there: bool) -> bool:
    if name == "copy_":
        return isinstance(args[1], There) and not isinstance(args[0], There)
    return name == "_to_copy" and not result_there


def _is_to_device(name: str, args: Any, result_there: bool) -> bool:
    if name == "copy_":
        return isinstance(args[0], There) and not isinstance(args[1], There)
    return name == "_to_copy" and result_there and not isinstance(args[0], There)
