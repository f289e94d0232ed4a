"""Operations in latency tables of other projects: their names in our tables, and their counts.

A block is a list of layers with known sizes. A layer with stride s turns height h into ceil(h / s), because all of them
pad. With h and w after the stride, and k the kernel size:

    Conv      macs = out * in / groups * k * k * h * w        params = out * in / groups * k * k (+ out with a bias)
              and with a batch norm (two factors for each channel, counted as by fvcore)
              macs += 2 * out * h * w                         params += 2 * out
    Gate      squeeze-and-excitation, global pooling and two 1x1 convolutions with biases on a 1x1 image:
              macs = 2 * c * inner + c * h * w                params = 2 * c * inner + c + inner
    GlobalPool                                                macs = c * h * w (fvcore; not a convolution)
    Linear    macs = in * out                                 params = in * out + out

``macs_conv_linear`` leaves out batch norms and pooling, and adds the biases of Linear.

Blocks are named as hwnas's own operations (hwnas.spaces.mobile_blocks), so that imported entries are those of a space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.spaces.mobile_blocks import Activation, InvertedResidual, divisible
from hwnas.spaces.mobile_blocks import inverted_residual as named_block


@dataclass(frozen=True)
class Conv:
    in_channels: int
    out_channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    bias: bool = False
    norm: bool = True


@dataclass(frozen=True)
class Gate:
    channels: int
    inner: int


@dataclass(frozen=True)
class GlobalPool:
    channels: int


@dataclass(frozen=True)
class Linear:
    in_features: int
    out_features: int


Layer = Conv | Gate | GlobalPool | Linear


@dataclass(frozen=True)
class Block:
    """A block; ``op`` is its name in our tables."""

    op: str
    in_channels: int
    out_channels: int
    stride: int
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Counts:
    macs: int
    macs_conv_linear: int
    params: int


def count_layers(layers: Sequence[Layer], height: int, width: int) -> Counts:
    """Return the counts of consecutive layers on an image of ``height`` x ``width``."""
    fvcore = conv_linear = params = 0
    for layer in layers:
        match layer:
            case Conv():
                height, width = after_stride(height, layer.stride), after_stride(width, layer.stride)
                weights = layer.out_channels * layer.in_channels // layer.groups * layer.kernel**2
                fvcore += weights * height * width
                conv_linear += weights * height * width
                params += weights + layer.bias * layer.out_channels
                if layer.norm:
                    fvcore += 2 * layer.out_channels * height * width
                    params += 2 * layer.out_channels
            case Gate():
                weights = 2 * layer.channels * layer.inner
                fvcore += weights + layer.channels * height * width
                conv_linear += weights
                params += weights + layer.channels + layer.inner
            case GlobalPool():
                fvcore += layer.channels * height * width
                height = width = 1
            case Linear():
                weights = layer.in_features * layer.out_features
                fvcore, conv_linear = fvcore + weights, conv_linear + weights + layer.out_features
                params += weights + layer.out_features
    return Counts(fvcore, conv_linear, params)


def after_stride(size: int, stride: int) -> int:
    """Return the size after a stride: size / stride, rounded up."""
    return -(-size // stride)


def conv(
    in_channels: int, out_channels: int, kernel: int, stride: int, form: str = "bn_relu", groups: int = 1
) -> Block:
    """Return a convolution; ``form`` names its bias, norm and activation: ``bn_relu``, ``bias_relu``, ``hswish``, …"""
    suffix = f"_g{groups}" if groups > 1 else ""
    layer = Conv(in_channels, out_channels, kernel, stride, groups, "bias" in form, "bn" in form)
    return Block(f"conv_{form}_{kernel}x{kernel}{suffix}", in_channels, out_channels, stride, (layer,))


def mbconv(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    middle: int,
    activation: Activation,
    adds: bool,
    gated: bool = False,
) -> Block:
    """Return MobileNet's inverted residual block: 1x1 to ``middle`` channels (if they differ), depthwise, 1x1."""
    gate = "se" if gated else ""
    named = named_block(in_channels, middle, kernel=kernel, activation=activation, gate=gate, residual=adds)
    widen = (Conv(in_channels, middle),) if middle != in_channels else ()
    squeeze = (Gate(middle, divisible(middle // 4)),) if gated else ()
    depthwise = Conv(middle, middle, kernel, stride, middle)
    return Block(named.op, in_channels, out_channels, stride, (*widen, depthwise, *squeeze, Conv(middle, out_channels)))


def inverted_residual(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int,
    expand: int,
    adds: bool,
    groups: int = 1,
    dilation: int = 1,
) -> Block:
    """Return FBNet's block: 1x1 (in groups), depthwise, 1x1 (in groups); with ``adds`` it adds its input."""
    middle = in_channels * expand
    layers = (
        Conv(in_channels, middle, groups=groups),
        Conv(middle, middle, kernel, stride, middle),
        Conv(middle, out_channels, groups=groups),
    )
    named = InvertedResidual(kernel, expand, groups=groups, dilation=dilation, residual=adds, expands_always=True)
    return Block(named.op, in_channels, out_channels, stride, layers)


def skip(in_channels: int, out_channels: int, stride: int) -> Block:
    """Return FBNet's skip: the identity, or a 1x1 convolution if the size changes."""
    if stride == 1 and in_channels == out_channels:
        return Block("identity", in_channels, out_channels, 1, ())
    return conv(in_channels, out_channels, 1, stride)


def separable(in_channels: int, out_channels: int, kernel: int, stride: int) -> Block:
    """Return a depthwise and a 1x1 convolution, each with batch norm and ReLU."""
    layers = (Conv(in_channels, in_channels, kernel, stride, in_channels), Conv(in_channels, out_channels))
    return Block(f"separable_bn_relu_{kernel}x{kernel}", in_channels, out_channels, stride, layers)


def depth_conv(in_channels: int, out_channels: int, stride: int) -> Block:
    """Return a depthwise 3x3 and a 1x1 convolution, each with a bias and ReLU."""
    layers = (
        Conv(in_channels, in_channels, 3, stride, in_channels, bias=True, norm=False),
        Conv(in_channels, out_channels, bias=True, norm=False),
    )
    return Block("separable_bias_relu_3x3", in_channels, out_channels, stride, layers)


def ghost(in_channels: int, out_channels: int, kernel: int, stride: int) -> Block:
    """Return a ghost block: 1x1 to half the channels, and a depthwise convolution of these to the other half."""
    half = out_channels // 2
    layers = (Conv(in_channels, half, 1, stride), Conv(half, half, kernel, 1, half))
    return Block(f"ghost_{kernel}x{kernel}", in_channels, out_channels, stride, layers)


def global_pool(channels: int) -> Block:
    return Block("global_avg_pool", channels, channels, 1, (GlobalPool(channels),))


def linear(in_features: int, out_features: int, pooled: bool) -> Block:
    """Return a classifier, with ``pooled`` after global pooling (our own ``pool_linear``)."""
    layers = (GlobalPool(in_features), Linear(in_features, out_features))
    if pooled:
        return Block("pool_linear", in_features, out_features, 1, layers)
    return Block("linear", in_features, out_features, 1, layers[1:])
