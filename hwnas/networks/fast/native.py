"""Calls of the compiled kernels: the memory layout that they read, and the addresses of tensors."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.networks.fast.kernels import kernels

TYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}


def usable(x: Tensor) -> bool:
    """Return whether the kernels are available and support this tensor."""
    return x.device.type == "cpu" and x.dtype in TYPES and kernels().library is not None


def call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Call a kernel on as many threads as torch uses."""
    getattr(kernels().library, f"{name}_{TYPES[dtype]}")(*arguments, torch.get_num_threads())


def require_first_order() -> None:
    """Raise HwnasError in a backward pass that is differentiated itself: its gradient would silently be wrong."""
    if torch.is_grad_enabled():
        raise HwnasError("compiled kernels have no second derivatives", "use --kernels torch")


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def row_address(tensor: Tensor | None, number: int) -> int:
    """Return the address of a row of a contiguous tensor."""
    return 0 if tensor is None else tensor.data_ptr() + number * tensor.stride(0) * tensor.element_size()


def empty(like: Tensor, channels: int, height: int, width: int) -> Tensor:
    size = like.shape[0], channels, height, width
    return torch.empty(size, dtype=like.dtype, memory_format=torch.channels_last)


def pixel_rows(x: Tensor) -> Tensor:
    """Return ``x`` in the kernels' layout, copied if it has another.

    The layout is channels last; pixels may lie further apart than their channels take (a slice of a wider tensor).
    """
    _, channels, height, width = x.shape
    image, channel, line, pixel = x.stride()
    dense = channel == 1 and pixel >= channels and line == width * pixel and image == height * line
    return x if dense else torch.empty(x.shape, dtype=x.dtype, memory_format=torch.channels_last).copy_(x)


def pixel_stride(x: Tensor) -> int:
    return x.stride(3)


def sizes(x: Tensor) -> tuple[int, int, int, int]:
    n, channels, height, width = x.shape
    return n, height, width, channels


def flat_sizes(x: Tensor) -> tuple[int, int, int]:
    n, channels, height, width = x.shape
    return n, height * width, channels


def arrays(terms: list[Tensor], factors: Tensor | None) -> tuple[Any, ...]:
    """Return the number of tensors, and arrays of their addresses, pixel strides and rows of ``factors``."""
    count = len(terms)
    addresses = (ctypes.c_void_p * count)(*map(address, terms))
    strides = (ctypes.c_long * count)(*map(pixel_stride, terms))
    rows = (ctypes.c_void_p * count)(*(row_address(factors, k) for k in range(count)))
    return count, addresses, strides, rows
