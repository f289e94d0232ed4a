"""Layers by the compiled kernels: 3x3 pooling, and a tensor with its ReLU for many readers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, autograd, nn

from hwnas.networks.fast.native import (
    address,
    arrays,
    call,
    empty,
    flat_sizes,
    pixel_rows,
    pixel_stride,
    require_first_order,
    sizes,
)


def branches(x: Tensor, straight: int, rectified: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return ``straight`` copies of x [N, C, H, W] and ``rectified`` of its ReLU, one for each reader.

    The gradients of all readers are added in one pass.
    """
    outputs = list(_Branches.apply(x, straight, rectified))
    return outputs[:straight], outputs[straight:]


def pool(x: Tensor, layer: nn.MaxPool2d | nn.AvgPool2d) -> Tensor:
    """Apply a 3x3 pooling with a border of one pixel that does not count."""
    return _Pool.apply(x, isinstance(layer, nn.MaxPool2d), layer.stride)


class _Branches(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, straight: int, rectified: int) -> tuple[Tensor, ...]:
        x = pixel_rows(x)
        ctx.save_for_backward(x)
        ctx.straight = straight
        ctx.set_materialize_grads(False)
        y = x.relu() if rectified else x
        return *(x.detach() for _ in range(straight)), *(y.detach() for _ in range(rectified))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        require_first_order()
        (x,) = ctx.saved_tensors
        straight, rectified = (
            [pixel_rows(g) for g in some if g is not None]
            for some in (gradients[: ctx.straight], gradients[ctx.straight :])
        )
        terms = straight + rectified
        if len(terms) < 2 and not rectified:
            return terms[0] if terms else None, None, None
        gx = empty(x, *x.shape[1:])
        count, addresses, strides, _ = arrays(terms, None)
        rest = len(rectified), address(x), pixel_stride(x), *flat_sizes(x), address(gx)
        call("gather", x.dtype, count, addresses, strides, *rest)
        return gx, None, None


class _Pool(autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, maximum: bool, stride: int) -> Tensor:
        x = pixel_rows(x)
        size = [(length + stride - 1) // stride for length in x.shape[2:]]
        y = empty(x, x.shape[1], *size)
        ctx.save_for_backward(x)
        ctx.options = int(maximum), stride
        images = address(x), pixel_stride(x)
        call("pool_forward", x.dtype, int(maximum), *images, *sizes(x), stride, *size, address(y))
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        require_first_order()
        (x,), (maximum, stride) = ctx.saved_tensors, ctx.options
        g, gx = pixel_rows(g), empty(x, *x.shape[1:])
        images = address(x), pixel_stride(x), address(g), pixel_stride(g)
        call("pool_backward", x.dtype, maximum, *images, *sizes(x), stride, *g.shape[2:], address(gx))
        return gx, None, None
