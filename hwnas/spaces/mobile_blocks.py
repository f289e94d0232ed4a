"""Layers of mobile networks, named by all that they are, and the parser of these names.

``conv_bn_relu_3x3``          convolution, batch norm, ReLU; ``bias`` in place of ``bn``, ``relu6``, ``hswish`` or
                              nothing in place of ``relu``, ``_g2`` for groups
``separable_bn_relu_3x3``     depthwise and 1x1 convolution, each with batch norm and ReLU (MobileNet)
``mbconv_3x3_e6_res``         inverted residual (MobileNetV2): 1x1 to six times the channels, depthwise, 1x1
``ir_3x3_e1_g2``              the same as in FBNet: the first 1x1 is always there; two groups with a channel shuffle
``global_avg_pool``, ``linear``   the end of a network, where more layers stand between the two

Of an inverted residual, ``_e6`` is the expansion and ``_m72`` the number of channels in the middle where that is no
multiple of the input's. ``_res`` adds the input, ``_d2`` is dilated. ``_se`` has squeeze-and-excitation to a quarter of
the middle channels with a hard sigmoid (MobileNetV3), ``_sei`` to a quarter of the input channels with a sigmoid
(MnasNet). The activation is ReLU, with ``_r6`` ReLU6, with ``_hs`` h-swish. ``mbconv`` has no first 1x1 where nothing
is expanded: with ``_e1`` it is a depthwise-separable convolution with a linear output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hwnas.spaces.layers import LayerKind, LayerTrace
from hwnas.spaces.operation import Operation
from hwnas.spaces.space import Workload

Activation = Literal["relu", "relu6", "hswish", ""]
Gate = Literal["se", "sei", ""]
SUFFIX_OF = {"relu": "", "relu6": "_r6", "hswish": "_hs"}  # of an activation in the name of an inverted residual
MODULES = "hwnas.operations.mobile_blocks"
MAX_KERNEL, MAX_EXPANSION, MAX_MIDDLE, MAX_GROUPS = 31, 16, 100_000, 64

_CONVOLUTION = re.compile(r"(conv|separable)(_bn)?(_bias)?(?:_(relu|relu6|hswish))?_(\d{1,2})x\5(?:_g(\d{1,2}))?")
_BLOCK = re.compile(
    r"(mbconv|ir)_(\d{1,2})x\2_(?:e(\d{1,2})|m(\d{1,5}))(?:_g(\d{1,2}))?(?:_d(\d))?(?:_(se|sei))?(?:_(r6|hs))?(_res)?"
)


@dataclass(frozen=True)
class PlainConvolution:
    """A convolution with what follows it; ``separable``: depthwise and 1x1, both with what follows."""

    kernel: int
    norm: bool = True
    bias: bool = False
    activation: Activation = "relu"
    groups: int = 1
    separable: bool = False

    @property
    def op(self) -> str:
        """The name in workloads and tables."""
        form = "_bn" * self.norm + "_bias" * self.bias + f"_{self.activation}" * bool(self.activation)
        start = "separable" if self.separable else "conv"
        return f"{start}{form}_{self.kernel}x{self.kernel}" + f"_g{self.groups}" * (self.groups > 1)

    def layers(self, t: LayerTrace, w: Workload) -> None:
        x = 0
        if self.separable:
            x = _activate(t, t.conv(0, w.in_channels, self.kernel, w.stride, w.in_channels), self.activation)
            _activate(t, t.conv(x, w.out_channels, 1), self.activation)
        else:
            _activate(t, t.conv(0, w.out_channels, self.kernel, w.stride, self.groups), self.activation)

    @property
    def ends_with(self) -> tuple[LayerKind, ...]:
        last: dict[str, tuple[LayerKind, ...]] = {"": ("conv",), "relu": ("conv", "relu")}
        return last.get(self.activation, ("conv", "activation"))


@dataclass(frozen=True)
class InvertedResidual:
    """An inverted residual: ``expansion`` times the input channels in the middle or, where it is 0, ``middle``.

    ``expands_always`` keeps the first 1x1 convolution where nothing is expanded (FBNet).
    """

    kernel: int
    expansion: int = 0
    middle: int = 0
    activation: Activation = "relu"
    gate: Gate = ""
    groups: int = 1
    dilation: int = 1
    residual: bool = False
    expands_always: bool = False

    @property
    def op(self) -> str:
        """The name in workloads and tables."""
        return (
            f"{'ir' if self.expands_always else 'mbconv'}_{self.kernel}x{self.kernel}"
            + (f"_e{self.expansion}" if self.expansion else f"_m{self.middle}")
            + f"_g{self.groups}" * (self.groups > 1)
            + f"_d{self.dilation}" * (self.dilation > 1)
            + f"_{self.gate}" * bool(self.gate)
            + SUFFIX_OF[self.activation]
            + "_res" * self.residual
        )

    def middle_channels(self, in_channels: int) -> int:
        """Return the number of channels in the middle."""
        return self.expansion * in_channels if self.expansion else self.middle

    def expands(self, in_channels: int) -> bool:
        """Return whether the block begins with a 1x1 convolution."""
        return self.expands_always or self.middle_channels(in_channels) != in_channels

    def squeezed_channels(self, in_channels: int) -> int:
        """Return the number of channels between the two layers of squeeze-and-excitation."""
        return divisible(self.middle_channels(in_channels) // 4) if self.gate == "se" else max(in_channels // 4, 1)

    def layers(self, t: LayerTrace, w: Workload) -> None:
        middle, x = self.middle_channels(w.in_channels), 0
        if self.expands(w.in_channels):
            x = _activate(t, t.conv(0, middle, 1, groups=self.groups), self.activation)
            x = t.layer("shuffle", (x,), t.shapes[x]) if self.groups > 1 else x
        x = t.conv(x, middle, self.kernel, w.stride, middle)
        # MnasNet's and MobileNetV3's activation stands before the gate.
        x = _activate(t, x, self.activation)
        if self.gate:
            pooled = t.layer("pool", (x,), (middle, 1, 1))
            squeezed = t.relu(t.conv(pooled, self.squeezed_channels(w.in_channels), 1))
            x = t.layer("scale", (x, t.activation(t.conv(squeezed, middle, 1))), t.shapes[x])
        y = t.conv(x, w.out_channels, 1, groups=self.groups)
        if self.residual:
            t.add(0, y)

    @property
    def ends_with(self) -> tuple[LayerKind, ...]:
        return ("conv", "add") if self.residual else ("conv",)


MobileLayer = PlainConvolution | InvertedResidual


def inverted_residual(in_channels: int, middle: int, **facts: object) -> InvertedResidual:
    """Return an inverted residual with ``middle`` channels in the middle, by the name that these sizes have.

    ``facts`` are its other fields.
    """
    whole = middle % in_channels == 0 and middle // in_channels <= MAX_EXPANSION
    sizes = {"expansion": middle // in_channels} if whole else {"middle": middle}
    return InvertedResidual(**sizes, **facts)  # type: ignore[arg-type]


def read_mobile_layer(op: str) -> MobileLayer | None:
    """Return the layer that a workload's ``op`` names, or None."""
    layer = _read_block(op) if op.startswith(("mbconv_", "ir_")) else _read_convolution(op)
    return layer if layer and layer.op == op and _is_in_range(layer) else None


def _read_convolution(op: str) -> PlainConvolution | None:
    found = _CONVOLUTION.fullmatch(op)
    if not found:
        return None
    return PlainConvolution(
        kernel=int(found[5]),
        norm=bool(found[2]),
        bias=bool(found[3]),
        activation=found[4] or "",  # type: ignore[arg-type]
        groups=int(found[6] or 1),
        separable=found[1] == "separable",
    )


def _read_block(op: str) -> InvertedResidual | None:
    found = _BLOCK.fullmatch(op)
    if not found:
        return None
    kind, kernel, expansion, middle, groups, dilation, gate, activation, residual = found.groups()
    return InvertedResidual(
        kernel=int(kernel),
        expansion=int(expansion or 0),
        middle=int(middle or 0),
        activation={"r6": "relu6", "hs": "hswish", None: "relu"}[activation],  # type: ignore[arg-type]
        gate=gate or "",  # type: ignore[arg-type]
        groups=int(groups or 1),
        dilation=int(dilation or 1),
        residual=bool(residual),
        expands_always=kind == "ir",
    )


def _is_in_range(layer: MobileLayer) -> bool:
    known = layer.kernel % 2 == 1 and layer.kernel <= MAX_KERNEL and 1 <= layer.groups <= MAX_GROUPS
    if isinstance(layer, PlainConvolution):
        return known and not (layer.separable and layer.groups > 1)
    sized = 1 <= layer.expansion <= MAX_EXPANSION if layer.expansion else 1 <= layer.middle <= MAX_MIDDLE
    return known and sized and layer.dilation <= 4


def mobile_operation(op: str) -> Operation | None:
    """Return the operation that the name of a mobile layer describes, or None for any other name."""
    layer = read_mobile_layer(op)
    if layer is None:
        return None
    inverted = isinstance(layer, InvertedResidual)
    module = f"{MODULES}:{'InvertedResidualBlock' if inverted else 'plain_convolution'}"
    return Operation(name=op, module=module, layers=layer.layers, ends_with=layer.ends_with)


def divisible(channels: float, by: int = 8) -> int:
    """Round channels as MobileNet does: to a multiple of ``by``, down by at most a tenth."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def _activate(t: LayerTrace, x: int, activation: Activation) -> int:
    if not activation:
        return x
    return t.relu(x) if activation == "relu" else t.activation(x)
