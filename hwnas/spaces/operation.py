"""Operations: one object for each, with all facts about it that other rooms need, and the registry of these objects.

No torch: the modules are in hwnas.operations, or in the plug-in that defines the operation.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from hwnas.errors import HwnasError
from hwnas.files import sha256_of, sha256_of_file
from hwnas.spaces.layers import CountedLayer, LayerKind, LayerTrace
from hwnas.spaces.space import Workload

CandidateFamily = Literal["conv", "pool", "max_pool", "skip"]
BuildModule = Callable[[Workload, bool], Any]  # the second argument: whether batch norms have trainable factors
PLUGIN_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of a network.

    ``module`` builds the torch module of a workload: a function, or its import path ``package.module:NAME``. It keeps
    height and width at stride 1 and halves them, rounding up, at stride 2. None: the operation computes nothing, as
    ``none`` and an identity do.

    ``layers`` appends the layers of a workload to a trace (hwnas.spaces.layers).

    ``begins_with`` names the operation without weights that is the only reader of the input: ``relu`` or a pooling,
    which is registered too. Edges that read the same tensor can share its result. None: there is no such operation, or
    something else reads the input too; nothing is shared.

    ``ends_with`` are the kinds of the last layers in order, as many as matter: ``("conv",)`` also with a folded batch
    norm, ``("conv", "add", "relu")`` for a residual block. Runtimes fuse an addition, or a ReLU, into a convolution
    that precedes it. By default nothing is known, and nothing is taken as fused.

    ``family`` is the group of candidates whose latencies are corrected by one factor (hwnas.cost.fusion).
    ``num_inputs`` is the number of input tensors, or a function of the workload that returns it.
    ``elementwise``: the output has the input's shape, and each value depends only on the inputs at the same position.
    ``chainable``: at stride 1 and equal channels the output can be the next copy's input, so that the latency can be
    measured as a slope over the lengths of chains.
    ``candidate``: a space may offer the operation on an edge.
    ``reads``: the inputs are images [N, C, H, W], vectors [N, C], or numbers of words [N], without channels.
    ``strided`` names the operation that replaces it at stride 2, ``normed`` the one with a batch norm after it.
    ``source_sha256`` is the hash of a plug-in's source, filled in by ``register``; None for hwnas's own operations.

    No field describes the files that runtimes load: ONNX, and all that is converted from it, and the list of torch
    operators are exported from the module in evaluation mode.
    """

    name: str
    module: BuildModule | str | None
    layers: Callable[[LayerTrace, Workload], object]
    begins_with: str | None = None
    ends_with: tuple[LayerKind, ...] = ()
    family: CandidateFamily = "conv"
    num_inputs: int | Callable[[Workload], int] = 1
    elementwise: bool = False
    chainable: bool = True
    candidate: bool = True
    reads: Literal["images", "vectors", "words"] = "images"
    strided: str | None = None
    normed: str | None = None
    source_sha256: str | None = None

    @property
    def op(self) -> str:
        """The name in workloads and tables: a plug-in's carries the hash of its source, so that a latency is never
        taken for that of a changed operation.
        """
        return self.name if self.source_sha256 is None else f"{self.name}_{self.source_sha256[:8]}"

    @property
    def pools(self) -> bool:
        """True for a pooling, with or without a batch norm after it."""
        return self.family in ("pool", "max_pool")

    @property
    def weightless(self) -> bool:
        """True for an operation without weights: edges can share all of it, or it computes nothing."""
        return self.module is None or self.begins_with == self.name


_OPERATIONS: dict[str, Operation] = {}  # by name, and plug-ins also by ``op``
_PARSERS: list[Callable[[str], Operation | None]] = []  # of names with parameters in them, ``sep_conv_7x7``


def add_operation(operation: Operation) -> None:
    """Register one of hwnas's own operations."""
    _OPERATIONS[operation.name] = operation


def add_parser(parse: Callable[[str], Operation | None]) -> None:
    """Register a function that returns the operation that a name with parameters describes, or None."""
    _PARSERS.append(parse)


def register(operation: Operation) -> Operation:
    """Register an operation of the user's own and return it with the hash of its source files.

    The files are those that define ``module`` and the other functions. A second registration of a name replaces the
    first. Raises HwnasError when the name is one of hwnas's own or malformed, or a source file is missing.
    """
    o, name = operation, operation.name
    if not PLUGIN_NAME.fullmatch(name):
        raise HwnasError(f"{name!r} is not a name for an operation", "use at most 32 of a-z, 0-9 and _, a letter first")
    known = find_operation(name)
    if known and known.source_sha256 is None:
        raise HwnasError(f"operation {name} is one of hwnas's own", "register yours under another name")
    code = [part for part in (operation.module, operation.layers, operation.num_inputs) if not isinstance(part, int)]
    declared = [o.begins_with, o.ends_with, o.family, o.elementwise, o.chainable, o.strided, o.normed]
    digest = sha256_of([declared, *(_source_sha256(name, part) for part in code)])
    registered = replace(operation, source_sha256=digest)
    _OPERATIONS[name] = _OPERATIONS[registered.op] = registered
    return registered


def _source_sha256(name: str, code: Any) -> str | None:
    """Return the hash of the file that defines ``code``, a function, a class or the import path of one.

    Raises HwnasError when the file is not found.
    """
    if code is None:
        return None
    try:
        if isinstance(code, str):
            spec = importlib.util.find_spec(code.partition(":")[0])
            file = spec.origin if spec else None
        else:
            file = inspect.getsourcefile(code)
    except (TypeError, ImportError):  # neither a function nor a class; no such package
        file = None
    if file is None or not Path(file).is_file():
        raise HwnasError(f"operation {name}: no source file defines {code}", "define it as a function in a .py file")
    return sha256_of_file(Path(file))


def find_operation(name: str) -> Operation | None:
    """Return the operation of this name, or None."""
    if name in _OPERATIONS:
        return _OPERATIONS[name]
    return next((found for parse in _PARSERS if (found := parse(name))), None)


def get_operation(name: str) -> Operation:
    """Return the operation of this name. Raises HwnasError when there is none."""
    found = find_operation(name)
    if found is None:
        plain = dict.fromkeys(operation.name for operation in registered_operations() if operation.candidate)
        named = "nor_conv_KxK, sep_conv_KxK, dil_conv_KxK or conv_Kx1_1xK"
        fix = f"use one of {', '.join(plain)}, {named}, or register your own"
        raise HwnasError(f"unknown operation {name!r}", fix)
    return found


def operation_of(workload: Workload) -> Operation:
    """Return the operation that a workload runs. Raises HwnasError when it is not registered."""
    return get_operation(workload.op)


def registered_operations() -> list[Operation]:
    """Return all registered operations in the order of registration, without those that parsers describe."""
    return list({operation.op: operation for operation in _OPERATIONS.values()}.values())


def num_inputs(workload: Workload) -> int:
    """Return the number of input tensors, each of ``in_channels`` channels, of a workload's module."""
    number = operation_of(workload).num_inputs
    return number if isinstance(number, int) else number(workload)


def input_shapes(workload: Workload) -> list[tuple[int, ...]]:
    """Return the shape of every input of a workload's module without the batch: () for numbers of words."""
    w = workload
    shapes = {"images": (w.in_channels, w.height, w.width), "vectors": (w.in_channels,), "words": ()}
    return [shapes[operation_of(w).reads]] * num_inputs(w)


@cache
def counted_layers(workload: Workload) -> tuple[CountedLayer, ...]:
    """Return the layers of a workload's operation in the order in which they run; the last one writes the output.

    Raises HwnasError for an operation that is not registered.
    """
    operation = operation_of(workload)
    shape = (workload.in_channels, workload.height, workload.width)
    trace = LayerTrace([shape] * num_inputs(workload))
    operation.layers(trace, workload)
    return tuple(trace.layers)
