"""The compiled kernels of a weighted sum: forward and backward of its blocks, norms and terms.

``gradients`` is a list with an entry for each saved tensor: its gradient, or None so far.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.networks.fast.kernels import BlockSizes, Gradient, Norm, PlainTerm
from hwnas.networks.fast.native import address, arrays, call, empty, flat_sizes, pixel_stride, row_address, sizes


@dataclass(frozen=True)
class BlockStep:
    """A block that has run. Its tensors are given by their indices among the saved ones."""

    sizes: BlockSizes
    x: int
    before: tuple[int, int] | None  # mean and 1 / deviation of the norm before the block
    depthwise: int | None
    pointwise: int
    z: int


@dataclass(frozen=True)
class GradientSource:
    """The gradient of a z: a * factor * g + b * z + c, with row ``row`` of ``factors`` [K, N], a, b and c [K, C]."""

    g: Tensor
    z: Tensor
    factors: Tensor | None
    a: Tensor
    b: Tensor
    c: Tensor
    row: int = 0

    def struct(self) -> Gradient:
        rest = (row_address(v, self.row) for v in (self.factors, self.a, self.b, self.c))
        return Gradient(address(self.g), address(self.z), pixel_stride(self.g), pixel_stride(self.z), *rest)


def through_norm(
    weight: Tensor | float, mean: Tensor, rstd: Tensor, slope: Tensor, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return a, b and c of the gradient before a batch norm weighted by ``weight``, from the ``slopes`` after it."""
    a = weight * rstd
    b = -a * rstd * rstd * slope[..., 1, :] / count
    return a, b, -a * slope[..., 0, :] / count - b * mean


def norm_of(norm: nn.BatchNorm2d, mean: int, rstd: int) -> Any:
    """Return a batch norm for the kernels, with the addresses of its statistics; its batch is counted already."""
    momentum = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)  # type: ignore[arg-type]
    running = address(norm.running_mean), address(norm.running_var)
    return ctypes.byref(Norm(mean, rstd, *running, norm.eps, momentum))


def block_forward(step: BlockStep, saved: list[Tensor], norm: Any) -> Tensor:
    x, s = saved[step.x], step.sizes
    z = empty(x, s.out_channels, s.out_height, s.out_width)
    before = [saved[v] for v in step.before] if step.before else [None, None]
    depthwise = None if step.depthwise is None else saved[step.depthwise]
    kernel = map(address, (*before, depthwise, saved[step.pointwise]))
    call("block_forward", x.dtype, address(x), pixel_stride(x), *kernel, ctypes.byref(s), address(z), norm)
    return z


def block_backward(
    step: BlockStep, source: GradientSource, saved: list[Tensor], gradients: list[Tensor | None], weights_too: bool
) -> GradientSource:
    """Store the gradients of a block. If a norm precedes it, return the source for the block before that norm."""
    x, s = saved[step.x], step.sizes
    before = [saved[v] for v in step.before] if step.before else [None, None]
    slope = None if step.before is None else torch.empty(2, s.channels, dtype=x.dtype)
    weights = [None if n is None else saved[n] for n in (step.depthwise, step.pointwise)]
    weight_gradients = [torch.empty_like(v) if weights_too and v is not None else None for v in weights]
    add = step.before is None and gradients[step.x] is not None
    gx = gradients[step.x] if add else empty(x, *x.shape[1:])
    start: Any = ctypes.byref(source.struct())
    call(
        *("block_backward", x.dtype, start, address(x), pixel_stride(x), *map(address, (*before, *weights))),
        *(ctypes.byref(s), address(gx), int(add), *map(address, (slope, *weight_gradients))),
    )
    for number, value in zip((step.depthwise, step.pointwise), weight_gradients, strict=True):
        if number is not None:
            gradients[number] = value
    assert gx is not None
    if slope is None:
        gradients[step.x] = gx
        return source
    mean, rstd = before
    assert mean is not None
    assert rstd is not None
    a, b, c = through_norm(1.0, mean, rstd, slope, s.images * s.height * s.width)
    return GradientSource(gx, x, None, a, b, c)


def statistics(z: Tensor, norm: Any) -> None:
    call("statistics", z.dtype, address(z), pixel_stride(z), *flat_sizes(z), norm)


def total(terms: list[Tensor], factors: Tensor | None, pooled: list[int], scale: Tensor, shift: Tensor) -> Tensor:
    y = empty(terms[0], *terms[0].shape[1:])
    is_pooled = (ctypes.c_long * len(pooled))(*pooled)
    call(
        "weighted_sum",
        y.dtype,
        *arrays(terms, factors),
        is_pooled,
        address(scale),
        address(shift),
        *sizes(y),
        address(y),
    )
    return y


def slopes(terms: list[Tensor], factors: Tensor | None, mean: Tensor, g: Tensor) -> Tensor:
    """Return [K, 2, C]: the sums of g, and of g * (z - mean), the factors included."""
    slope = mean.new_empty(len(terms), 2, g.shape[1])
    norm = address(mean), address(g), pixel_stride(g)
    call("slopes", g.dtype, *arrays(terms, factors), *norm, *flat_sizes(g), address(slope))
    return slope


def add_gradients(sources: list[tuple[GradientSource, int]], gradients: list[Tensor | None]) -> None:
    """Add the gradients of the z to ``gradients`` at their indices."""
    if not sources:
        return
    count, z = len(sources), sources[0][0].z
    structs = (Gradient * count)(*(source.struct() for source, _ in sources))
    buffers = [_buffer(gradients, index, source.z) for source, index in sources]
    out = (ctypes.c_void_p * count)(*(address(gx) for gx, _ in buffers))
    add = (ctypes.c_long * count)(*(add for _, add in buffers))
    call("gradients", z.dtype, count, structs, out, add, *flat_sizes(z))


def add_plain_gradients(
    plain: list[tuple[int, list[int | None]]],
    w: Tensor,
    factors: Tensor | None,
    saved: list[Tensor],
    g: Tensor,
    gradients: list[Tensor | None],
) -> Tensor:
    """Add the gradients of terms without norms; return those of their weights, in the order of the terms."""
    rows, weights = [], w.tolist()
    for index, pair in plain:
        gx, add = _buffer(gradients, index, saved[index])
        factor = [0 if k is None else row_address(factors, k) for k in pair]
        present, weight = [int(k is not None) for k in pair], [0.0 if k is None else weights[k] for k in pair]
        tensors = address(saved[index]), address(gx), pixel_stride(saved[index])
        rows.append(PlainTerm(*tensors, add, tuple(present), tuple(weight), tuple(factor)))
    dot = w.new_empty(len(plain), 2)
    terms = len(plain), (PlainTerm * len(plain))(*rows)
    call("plain_gradients", g.dtype, *terms, address(g), pixel_stride(g), *sizes(g), address(dot))
    order = [(k, row, j) for row, (_, pair) in enumerate(plain) for j, k in enumerate(pair) if k is not None]
    return dot.flatten()[[2 * row + j for _, row, j in sorted(order)]]


def _buffer(gradients: list[Tensor | None], index: int, like: Tensor) -> tuple[Tensor, int]:
    """Return the gradient at an index, allocated if there is none yet, and 1 if there was one."""
    gx = gradients[index]
    if gx is not None:
        return gx, 1
    gx = gradients[index] = empty(like, *like.shape[1:])
    return gx, 0
