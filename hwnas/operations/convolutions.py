"""Torch modules of convolutions: ReLU-Conv-BN, separable, dilated (DARTS, Liu et al. 2019) and asymmetric."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.spaces import Workload
from hwnas.spaces.convolutions import Convolution, read_convolution


class Pointwise(nn.Conv2d):
    """A 1x1 convolution without a bias.

    With a stride and fewer than 8 input channels, training drops the skipped pixels before the convolution. The result
    is the same, and it avoids a defect of torch 2.13: on a CPU with AVX2 the weight gradient writes out of bounds.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.stride[0]) if self.training else super().forward(x)


def pointwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Compute ``Pointwise`` as in training, with a ``weight`` [out, C, 1, 1]."""
    if stride > 1 and weight.shape[1] < 8:
        x, stride = x[:, :, ::stride, ::stride], 1
    return nn.functional.conv2d(x, weight, None, stride)


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution with ``dilation`` D > 1, without a bias, padded so that stride 1 keeps the size.

    Training on a CPU runs a plain convolution on the D x D grids of every D-th pixel of every D-th row. This is exact,
    since no output reads pixels of two grids, and several times faster than torch 2.13's gradient of a dilated one.
    """

    def __init__(self, channels: int, kernel: int, stride: int, dilation: int) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        grids = self.grids(x) if self.training else None
        return super().forward(x) if grids is None else self.on_grids(grids, x.shape)

    def grids(self, x: Tensor) -> Tensor | None:
        """Return the grids of x [N, C, H, W] as a batch [D*D*N, C, H/D, W/D]; at stride D the one that is read.

        Returns None when the grids differ in size or do not help.
        """
        (d, _), (stride, _), (count, channels, height, width) = self.dilation, self.stride, x.shape
        if not self.is_faster(x.device) or stride not in (1, d) or (stride == 1 and (height % d or width % d)):
            return None
        if stride == d:
            return x[:, :, ::d, ::d]
        pixels = x.permute(0, 2, 3, 1).reshape(count, height // d, d, width // d, d, channels)
        return pixels.permute(2, 4, 0, 1, 3, 5).reshape(-1, height // d, width // d, channels).permute(0, 3, 1, 2)

    def on_grids(self, grids: Tensor, shape: torch.Size) -> Tensor:
        """Return the output for images of a ``shape`` [N, C, H, W], given their ``grids``."""
        (d, _), (stride, _), (count, channels, *_) = self.dilation, self.stride, shape
        kernel, height, width = self.kernel_size[0], *grids.shape[2:]
        if min(height, width) < kernel:  # gradients are slow there too; more zeros change nothing
            grids = nn.functional.pad(grids, (0, max(kernel - width, 0), 0, max(kernel - height, 0)))
        y = nn.functional.conv2d(grids, self.weight, padding=kernel // 2, groups=self.groups)[:, :, :height, :width]
        if stride == d:
            return y
        pixels = y.permute(0, 2, 3, 1).reshape(d, d, count, height, width, channels).permute(2, 3, 0, 4, 1, 5)
        return pixels.reshape(count, height * d, width * d, channels).permute(0, 3, 1, 2)

    @staticmethod
    def is_faster(device: torch.device) -> bool:
        """Return whether grids are faster than the dilated convolution on a device."""
        return device.type == "cpu"


def relu_conv_bn(workload: Workload, affine: bool) -> nn.Sequential:
    """ReLU, convolution, batch norm."""
    kernel = _named(workload).kernel
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


def separable_conv(workload: Workload, affine: bool) -> nn.Sequential:
    """ReLU, depthwise convolution, 1x1 convolution, batch norm; all of it twice."""
    kernel = _named(workload).kernel
    channels, out = workload.in_channels, workload.out_channels
    return nn.Sequential(
        *_depthwise_block(channels, channels, kernel, workload.stride, 1, affine),
        *_depthwise_block(channels, out, kernel, 1, 1, affine),
    )


def dilated_conv(workload: Workload, affine: bool) -> nn.Sequential:
    """ReLU, dilated depthwise convolution, 1x1 convolution, batch norm."""
    named, w = _named(workload), workload
    return nn.Sequential(
        *_depthwise_block(w.in_channels, w.out_channels, named.kernel, w.stride, named.dilation, affine)
    )


def asymmetric_conv(workload: Workload, affine: bool) -> nn.Sequential:
    """ReLU, 1xK convolution, Kx1 convolution, batch norm."""
    kernel, stride = _named(workload).kernel, workload.stride
    channels, out = workload.in_channels, workload.out_channels
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, kernel), (1, stride), (0, kernel // 2), bias=False),
        nn.Conv2d(channels, out, (kernel, 1), (stride, 1), (kernel // 2, 0), bias=False),
        nn.BatchNorm2d(out, affine=affine),
    )


def _named(workload: Workload) -> Convolution:
    """Return the kernel and dilation in the workload's name."""
    convolution = read_convolution(workload.op)
    assert convolution
    return convolution
