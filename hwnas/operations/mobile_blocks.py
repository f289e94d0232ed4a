"""Torch modules of mobile layers: plain and separable convolutions, inverted residuals (hwnas.spaces.mobile_blocks)."""

from __future__ import annotations

from torch import Tensor, nn

from hwnas.spaces import Workload
from hwnas.spaces.mobile_blocks import InvertedResidual, PlainConvolution, read_mobile_layer

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}


class SqueezeExcitation(nn.Module):
    """Scale every channel by a factor computed from the means of all channels (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, hard: bool) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.relu = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Hardsigmoid() if hard else nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class ChannelShuffle(nn.Module):
    """Deal the channels out in turn from ``groups`` equal blocks (ShuffleNet, Zhang et al., CVPR 2018)."""

    def __init__(self, groups: int, height: int, width: int) -> None:
        super().__init__()
        self.groups, self.size = groups, (height, width)

    def forward(self, x: Tensor) -> Tensor:
        # The sizes are constants, so that an exported graph has no shape arithmetic; -1 is the batch.
        channels = x.shape[1]
        dealt = x.reshape(-1, self.groups, int(channels) // self.groups, *self.size).transpose(1, 2)
        return dealt.reshape(-1, int(channels), *self.size)


class InvertedResidualBlock(nn.Module):
    """1x1 convolution, depthwise convolution, 1x1 convolution without an activation; plus the input with ``_res``."""

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        block, w = read_mobile_layer(workload.op), workload
        assert isinstance(block, InvertedResidual)
        middle = block.middle_channels(w.in_channels)
        layers: list[nn.Module] = []
        if block.expands(w.in_channels):
            layers += _normed(_conv(w.in_channels, middle, 1, groups=block.groups), block.activation, affine)
            layers += [ChannelShuffle(block.groups, w.height, w.width)] if block.groups > 1 else []
        depthwise = _conv(middle, middle, block.kernel, w.stride, middle, dilation=block.dilation)
        layers += _normed(depthwise, block.activation, affine)
        if block.gate:
            layers.append(SqueezeExcitation(middle, block.squeezed_channels(w.in_channels), block.gate == "se"))
        layers += _normed(_conv(middle, w.out_channels, 1, groups=block.groups), "", affine)
        self.layers, self.residual = nn.Sequential(*layers), block.residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


def plain_convolution(workload: Workload, affine: bool) -> nn.Sequential:
    """Build a convolution, or a depthwise and a 1x1 one, with batch norm or bias and activation."""
    form, w = read_mobile_layer(workload.op), workload
    assert isinstance(form, PlainConvolution)
    sizes = [(w.in_channels, w.out_channels, form.kernel, w.stride, form.groups)]
    if form.separable:
        sizes = [(w.in_channels, w.in_channels, form.kernel, w.stride, w.in_channels)]
        sizes.append((w.in_channels, w.out_channels, 1, 1, 1))
    layers: list[nn.Module] = []
    for size in sizes:
        conv = _conv(*size, bias=form.bias)
        layers += _normed(conv, form.activation, affine) if form.norm else [conv, *_activation(form.activation)]
    return nn.Sequential(*layers)


def global_avg_pool(workload: Workload, affine: bool) -> nn.AdaptiveAvgPool2d:
    return nn.AdaptiveAvgPool2d(1)


def linear(workload: Workload, affine: bool) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(workload.in_channels, workload.out_channels))


def _conv(
    into: int, out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False, dilation: int = 1
) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, stride, dilation * (kernel // 2), dilation, groups, bias)


def _normed(conv: nn.Conv2d, activation: str, affine: bool) -> list[nn.Module]:
    return [conv, nn.BatchNorm2d(conv.out_channels, affine=affine), *_activation(activation)]


def _activation(name: str) -> list[nn.Module]:
    return [ACTIVATIONS[name]()] if name else []
