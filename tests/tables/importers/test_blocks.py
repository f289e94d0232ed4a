"""Counts of blocks, against fvcore on torch modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hwnas.networks.count import count
from hwnas.tables.importers.blocks import count_layers
from hwnas.tables.importers.fbnet import fbnet_operation, hw_nas_bench_key
from hwnas.tables.importers.layers import ofa_key, proxyless_key


def convolution(i: int, o: int, k: int = 1, s: int = 1, g: int = 1, norm: bool = True, bias: bool = False) -> nn.Module:
    layer = nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=bias)
    return nn.Sequential(layer, nn.BatchNorm2d(o)) if norm else layer


class Gated(nn.Module):
    """Squeeze-and-excitation as once-for-all writes it, with means over pixels in place of a pooling layer."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(y))))


class Ghost(nn.Module):
    def __init__(self, i: int, o: int, k: int, s: int) -> None:
        super().__init__()
        self.first, self.second = convolution(i, o // 2, 1, s), convolution(o // 2, o // 2, k, 1, o // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.first(x)
        return torch.cat([half, self.second(half)], dim=1)


def classifier(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def nni(op: str, *shape: int) -> Any:
    return fbnet_operation({"op_name": op, "op_data_shape": shape})


BLOCKS = {
    "proxyless stem": (proxyless_key("Conv-input:15x14x3-output:8x7x16"), convolution(3, 16, 3, 2)),
    "proxyless wide": (
        proxyless_key("expanded_conv-input:9x9x8-output:5x5x12-expand:3-kernel:5-stride:2-idskip:0"),
        nn.Sequential(convolution(8, 24), convolution(24, 24, 5, 2, 24), convolution(24, 12)),
    ),
    "proxyless not widened": (
        proxyless_key("expanded_conv-input:9x9x8-output:9x9x12-expand:1-kernel:3-stride:1-idskip:0"),
        nn.Sequential(convolution(8, 8, 3, 1, 8), convolution(8, 12)),
    ),
    "proxyless head": (proxyless_key("Logits-input:7x5x12-output:10"), classifier(12, 10)),
    "ofa gated": (
        ofa_key("expanded_conv-input:11x11x8-output:6x6x16-expand:40-kernel:3-stride:2-idskip:0-se:1-hs:1"),
        nn.Sequential(convolution(8, 40), convolution(40, 40, 3, 2, 40), Gated(40, 16), convolution(40, 16)),
    ),
    "ofa mix": (ofa_key("Conv_2-input:1x1x8-output:1x1x16"), convolution(8, 16, norm=False)),
    "ofa head": (ofa_key("Logits-input:1x1x8-output:10"), nn.Sequential(nn.Flatten(), nn.Linear(8, 10))),
    "ofa pool": (ofa_key("AvgPool2D-input:6x6x8-output:1x1x8"), nn.AdaptiveAvgPool2d(1)),
    "hw-nas-bench block": (
        hw_nas_bench_key("ConvBlock_H9_W8_Cin8_Cout12_exp3_kernel5_stride2_group1"),
        nn.Sequential(convolution(8, 24), convolution(24, 24, 5, 2, 24), convolution(24, 12)),
    ),
    "hw-nas-bench groups": (
        hw_nas_bench_key("ConvBlock_H9_W8_Cin8_Cout8_exp1_kernel3_stride1_group2"),
        nn.Sequential(convolution(8, 8, g=2), convolution(8, 8, 3, 1, 8), convolution(8, 8, g=2)),
    ),
    "hw-nas-bench skip": (hw_nas_bench_key("Skip_H9_W8_Cin8_Cout12_stride2"), convolution(8, 12, 1, 2)),
    "hw-nas-bench classifier": (hw_nas_bench_key("FC_Cin8_Cout10"), nn.Sequential(nn.Flatten(), nn.Linear(8, 10))),
    "nni separable": (nni("sep_k5", 8, 9, 8, 12, 2), nn.Sequential(convolution(8, 8, 5, 2, 8), convolution(8, 12))),
    "nni ghost": (nni("gh_k3", 8, 9, 8, 12, 2), Ghost(8, 12, 3, 2)),
    "nni conv1x1": (nni("conv1x1", 8, 9, 8, 12, 1), convolution(8, 12, norm=False, bias=True)),
    "nni depth_conv": (
        nni("depth_conv", 8, 9, 8, 12, 2),
        nn.Sequential(convolution(8, 8, 3, 2, 8, norm=False, bias=True), convolution(8, 12, norm=False, bias=True)),
    ),
    "nni dilated widens twice": (
        nni("mb_k3_res_d3", 8, 9, 8, 8, 1),
        nn.Sequential(
            convolution(8, 16),
            nn.Conv2d(16, 16, 3, 1, 3, 3, 16, bias=False),
            nn.BatchNorm2d(16),
            convolution(16, 8),
        ),
    ),
    "fbnet": (
        nni("ir_k3_e6", 8, 9, 4, 8, 2),
        nn.Sequential(convolution(4, 24), convolution(24, 24, 3, 2, 24), convolution(24, 8)),
    ),
}


def averaged_values(module: nn.Module, image: torch.Tensor) -> int:
    """Return the number of values that the gates of a module average."""
    sizes: list[int] = []
    for gate in module.modules():
        if isinstance(gate, Gated):
            gate.register_forward_pre_hook(lambda _, inputs: sizes.append(inputs[0].numel()))
    with torch.no_grad():
        module.eval()(image)
    return sum(sizes)


@pytest.mark.parametrize("name", BLOCKS)
def test_counts_are_those_of_fvcore(name: str) -> None:
    (block, height, width), module = BLOCKS[name]
    counts = count_layers(block.layers, height, width)
    image = torch.zeros(1, block.in_channels, height, width)
    exact = count(module, image)
    # By convention averaging c channels over h x w pixels is c*h*w MACs, however it is written. fvcore counts so for
    # nn.AdaptiveAvgPool2d, and nothing for a mean.
    assert (counts.macs, counts.macs_conv_linear, counts.params) == (
        exact.macs_fvcore + averaged_values(module, image),
        exact.macs_conv_linear,
        exact.params,
    )
