"""Convolutions that a space can offer, named by their kernel and dilation, and the parser of these names.

``nor_conv_3x3`` ReLU, convolution, batch norm (NAS-Bench-201)
``sep_conv_5x5`` ReLU, depthwise and 1x1 convolution, batch norm, twice (DARTS)
``dil_conv_3x3`` the same once, dilated by 2 (DARTS); ``dil_conv_3x3_d4``: dilated by 4
``conv_7x1_1x7`` ReLU, 1x7 convolution, 7x1 convolution, batch norm (NASNet; the name is that of DARTS's code)

A name describes its operation completely, so that no two operations share the entries of a table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwnas.spaces.layers import LayerTrace
from hwnas.spaces.operation import Operation
from hwnas.spaces.space import Workload

PREFIXES = {"relu_conv_bn": "nor_conv", "separable_conv": "sep_conv", "dilated_conv": "dil_conv"}
ASYMMETRIC = "asymmetric_conv"
KINDS = (*PREFIXES, ASYMMETRIC)
USUAL_DILATION = {"relu_conv_bn": 1, "separable_conv": 1, "dilated_conv": 2, ASYMMETRIC: 1}
MAX_KERNEL = 31
MAX_DILATION = 16


@dataclass(frozen=True)
class Convolution:
    """A kind of operation with its kernel (odd) and, for ``dilated_conv``, its dilation."""

    kind: str
    kernel: int
    dilation: int

    @property
    def op(self) -> str:
        """The name in workloads and tables."""
        if self.kind == ASYMMETRIC:
            return f"conv_{self.kernel}x1_1x{self.kernel}"
        dilated = f"_d{self.dilation}" * (self.dilation != USUAL_DILATION[self.kind])
        return f"{PREFIXES[self.kind]}_{self.kernel}x{self.kernel}{dilated}"


def read_convolution(op: str) -> Convolution | None:
    """The convolution that a workload's ``op`` names, or None."""
    if found := re.fullmatch(r"conv_(\d{1,2})x1_1x\1", op):
        kind, kernel, dilation = ASYMMETRIC, int(found[1]), 1
    elif found := re.fullmatch(r"(nor|sep|dil)_conv_(\d{1,2})x\2(?:_d(\d{1,2}))?", op):
        kind = next(kind for kind, prefix in PREFIXES.items() if prefix == f"{found[1]}_conv")
        kernel, dilation = int(found[2]), int(found[3] or USUAL_DILATION[kind])
    else:
        return None
    known = kernel % 2 and kernel <= MAX_KERNEL and 1 <= dilation <= MAX_DILATION
    known = known and (kind == "dilated_conv" or dilation == 1)
    convolution = Convolution(kind, kernel, dilation)
    return convolution if known and convolution.op == op else None


def convolution_operation(op: str) -> Operation | None:
    """The operation that a convolution's name describes, or None for any other name."""
    convolution = read_convolution(op)
    if convolution is None:
        return None
    kernel = convolution.kernel

    def layers(t: LayerTrace, w: Workload) -> None:
        if convolution.kind == "relu_conv_bn":
            t.relu_conv(0, w.out_channels, kernel, w.stride)
        elif convolution.kind == "dilated_conv":
            t.depthwise_block(0, w.out_channels, kernel, w.stride)
        elif convolution.kind == ASYMMETRIC:
            t.asymmetric_pair(t.relu(0), w.out_channels, kernel, w.stride)
        else:
            once = t.depthwise_block(0, w.in_channels, kernel, w.stride)
            t.depthwise_block(once, w.out_channels, kernel, 1)

    module = f"hwnas.operations.convolutions:{convolution.kind}"
    return Operation(name=op, module=module, layers=layers, begins_with="relu", ends_with=("conv",))
