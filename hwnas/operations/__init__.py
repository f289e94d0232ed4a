"""The torch modules of every operation, in one registry: what a workload's ``op`` means.

Structures are the papers': ReLU-Conv-BN order, the separable convolution twice, FactorizedReduce at stride 2
(DARTS, Liu et al. 2019), ResNet basic block between the stages (NAS-Bench-201, Dong & Yang 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.spaces import Workload
from hwnas.spaces.convolutions import Convolution, read_convolution


class Pointwise(nn.Conv2d):
    """A 1x1 convolution, without a bias.

    In training one of fewer than 8 channels that skips pixels skips them first, which is the same: its weight gradient
    by torch 2.13 on a processor with AVX2 writes beyond its memory.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.stride[0]) if self.training else super().forward(x)


def pointwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """What ``Pointwise`` does in training, with a ``weight`` [out, C, 1, 1]."""
    if stride > 1 and weight.shape[1] < 8:
        x, stride = x[:, :, ::stride, ::stride], 1
    return nn.functional.conv2d(x, weight, None, stride)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with ``dilation`` D > 1, without a bias, whose borders keep the size but for the stride.

    In training on a CPU it is a plain one on grids of every D-th pixel of every D-th row, which is exact, as no output
    reads pixels of two of them: torch 2.13's gradient of a dilated one takes several times as long.
    """

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        grids = self.grids(x) if self.training else None
        return super().forward(x) if grids is None else self.on_grids(grids, x.shape)

    def grids(self, x: Tensor) -> Tensor | None:
        """Those of x [N, C, H, W] that are read, one after the other: [D*D*N, C, H/D, W/D], or [N, C, H/D, W/D] where
        the stride is D. None where they differ in size, and where they do not help.
        """
        (d, _), (stride, _), (count, channels, height, width) = self.dilation, self.stride, x.shape
        if not self.is_faster(x.device) or stride not in (1, d) or (stride == 1 and (height % d or width % d)):
            return None
        if stride == d:
            return x[:, :, ::d, ::d]
        pixels = x.permute(0, 2, 3, 1).reshape(count, height // d, d, width // d, d, channels)
        return pixels.permute(2, 4, 0, 1, 3, 5).reshape(-1, height // d, width // d, channels).permute(0, 3, 1, 2)

    def on_grids(self, grids: Tensor, shape: torch.Size) -> Tensor:
        """The output for images of a ``shape`` [N, C, H, W], of their ``grids``."""
        (d, _), (stride, _), (count, channels, *_) = self.dilation, self.stride, shape
        kernel, height, width = self.kernel_size[0], *grids.shape[2:]
        if min(height, width) < kernel:  # where gradients are slow again; zeros more change nothing
            grids = nn.functional.pad(grids, (0, max(kernel - width, 0), 0, max(kernel - height, 0)))
        y = nn.functional.conv2d(grids, self.weight, padding=kernel // 2, groups=self.groups)[:, :, :height, :width]
        if stride == d:
            return y
        pixels = y.permute(0, 2, 3, 1).reshape(d, d, count, height, width, channels).permute(2, 3, 0, 4, 1, 5)
        return pixels.reshape(count, height * d, width * d, channels).permute(0, 3, 1, 2)

    @staticmethod
    def is_faster(device: torch.device) -> bool:
        """Whether grids help on a device."""
        return device.type == "cpu"


def relu_conv_bn(workload: Workload, kernel: int, affine: bool) -> nn.Sequential:
    channels, out, stride = workload.in_channels, workload.out_channels, workload.stride
    return nn.Sequential(
        nn.ReLU(),
        Pointwise(channels, out, stride)
        if kernel == 1
        else nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(workload.out_channels, affine=affine),
    )


def _depthwise_block(channels: int, out: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    return [
        nn.ReLU(),
        DilatedDepthwise(channels, kernel, stride, dilation)
        if dilation > 1
        else nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=False),
        nn.BatchNorm2d(out, affine=affine),
    ]


def separable_conv(workload: Workload, kernel: int, affine: bool) -> nn.Sequential:
    channels, out = workload.in_channels, workload.out_channels
    return nn.Sequential(
        *_depthwise_block(channels, channels, kernel, workload.stride, 1, affine),
        *_depthwise_block(channels, out, kernel, 1, 1, affine),
    )


def dilated_conv(workload: Workload, kernel: int, dilation: int, affine: bool) -> nn.Sequential:
    return nn.Sequential(
        *_depthwise_block(workload.in_channels, workload.out_channels, kernel, workload.stride, dilation, affine)
    )


def convolution(workload: Workload, affine: bool) -> nn.Module:
    """The convolution that the workload's name describes (hwnas.spaces.convolutions)."""
    named = read_convolution(workload.op)
    assert named
    return CONVOLUTIONS[named.kind](workload, named, affine)


CONVOLUTIONS: dict[str, Callable[[Workload, Convolution, bool], nn.Module]] = {
    "relu_conv_bn": lambda w, named, affine: relu_conv_bn(w, named.kernel, affine),
    "separable_conv": lambda w, named, affine: separable_conv(w, named.kernel, affine),
    "dilated_conv": lambda w, named, affine: dilated_conv(w, named.kernel, named.dilation, affine),
}


def pool(workload: Workload, kind: str, norm: bool, affine: bool = True) -> nn.Module:
    stride = workload.stride
    layer: nn.Module = (
        nn.MaxPool2d(3, stride, padding=1) if kind == "max" else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    )
    return nn.Sequential(layer, nn.BatchNorm2d(workload.out_channels, affine=affine)) if norm else layer


class FactorizedReduce(nn.Module):
    """Halves height and width: two 1x1 convolutions of stride 2, one of them shifted by a pixel, side by side."""

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        half = workload.out_channels // 2
        self.relu = nn.ReLU()
        self.even = Pointwise(workload.in_channels, half, stride=2)
        self.odd = Pointwise(workload.in_channels, workload.out_channels - half, stride=2)
        self.norm = nn.BatchNorm2d(workload.out_channels, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.halves(self.relu(x)))

    def halves(self, x: Tensor) -> Tensor:
        """What comes behind the ReLU and before the norm."""
        return torch.cat([self.even(x), self.odd(self.shifted(x))], dim=1)

    def shifted(self, x: Tensor) -> Tensor:
        """What the odd half sees: x without its first row and column; an odd side gets its last one back, as zeros."""
        bottom, right = x.shape[2] % 2, x.shape[3] % 2
        if self.training:  # a slice's gradient is not channels last; what is exported are slices
            return nn.functional.pad(x, (-1, right, -1, bottom))
        shifted = x[:, :, 1:, 1:]
        return nn.functional.pad(shifted, (0, right, 0, bottom)) if bottom or right else shifted


class ResidualReduction(nn.Module):
    """NAS-Bench-201's block between stages: two ReLU-Conv-BN, the shortcut average-pooled and projected."""

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        out = workload.out_channels
        inner = Workload("nor_conv_3x3", out, out, workload.height, workload.width)
        self.first = relu_conv_bn(workload, 3, affine)
        self.second = relu_conv_bn(inner, 3, affine)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(workload.in_channels, out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))


class Sum(nn.Module):
    """What a node adds for each of its inputs after the first: ``x + y``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Concat(nn.Module):
    """A DARTS cell's output: its nodes side by side."""

    def forward(self, *nodes: Tensor) -> Tensor:
        return torch.cat(nodes, dim=1)


def _stem_conv(w: Workload, affine: bool) -> nn.Module:
    conv = nn.Conv2d(w.in_channels, w.out_channels, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(w.out_channels))


def _stem_imagenet_first(w: Workload, affine: bool) -> nn.Module:
    half = w.out_channels // 2
    return nn.Sequential(
        nn.Conv2d(w.in_channels, half, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, w.out_channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(w.out_channels),
    )


def _stem_imagenet_second(w: Workload, affine: bool) -> nn.Module:
    conv = nn.Conv2d(w.in_channels, w.out_channels, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(w.out_channels))


def _pool_linear(w: Workload, affine: bool) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(w.in_channels, w.out_channels))


def _window_pool_linear(w: Workload, affine: bool) -> nn.Module:
    window = nn.AvgPool2d((w.height, w.width))
    return nn.Sequential(window, nn.Flatten(), nn.Linear(w.in_channels, w.out_channels))


def _norm_relu_pool_linear(w: Workload, affine: bool) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(w.in_channels), nn.ReLU(), *_pool_linear(w, affine))


Builder = Callable[[Workload, bool], nn.Module]

# The papers' operations; a convolution of any other kernel or dilation is built by its name, too.
REGISTRY: dict[str, Builder] = {
    "nor_conv_1x1": convolution,
    "nor_conv_3x3": convolution,
    "sep_conv_3x3": convolution,
    "sep_conv_5x5": convolution,
    "dil_conv_3x3": convolution,
    "dil_conv_5x5": convolution,
    "max_pool_3x3": lambda w, affine: pool(w, "max", norm=False),
    "avg_pool_3x3": lambda w, affine: pool(w, "avg", norm=False),
    "max_pool_3x3_bn": lambda w, affine: pool(w, "max", norm=True, affine=affine),
    "avg_pool_3x3_bn": lambda w, affine: pool(w, "avg", norm=True, affine=affine),
    "factorized_reduce": FactorizedReduce,
    "residual_reduction": ResidualReduction,
    "relu": lambda w, affine: nn.ReLU(),
    "sum": lambda w, affine: Sum(),
    "concat": lambda w, affine: Concat(),
    "stem_conv_3x3": _stem_conv,
    "stem_imagenet_first": _stem_imagenet_first,
    "stem_imagenet_second": _stem_imagenet_second,
    "pool_linear": _pool_linear,
    "window_pool_linear": _window_pool_linear,
    "norm_relu_pool_linear": _norm_relu_pool_linear,
}


def build_operation(workload: Workload | None, affine: bool = True) -> nn.Module:
    """The module of a workload; None is the identity. ``affine`` gives its batch norms learnt factors.

    Raises HwnasError for an operation that is not in the registry.
    """
    if workload is None:
        return nn.Identity()
    builder = convolution if read_convolution(workload.op) else REGISTRY.get(workload.op)
    if builder is None:
        raise HwnasError(f"unknown operation {workload.op!r}", f"use one of {', '.join(REGISTRY)}")
    return builder(workload, affine)


def num_inputs(workload: Workload) -> int:
    """How many tensors of ``in_channels`` channels the workload's module takes."""
    return {"sum": 2, "concat": workload.out_channels // workload.in_channels}.get(workload.op, 1)


def randomise(module: nn.Module) -> nn.Module:
    """Weights that keep activations at a steady size through a long chain: neither zeros nor denormals are timed."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module
