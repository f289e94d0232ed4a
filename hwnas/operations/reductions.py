"""Torch modules that halve height and width."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hwnas.operations.convolutions import Pointwise, relu_conv_bn
from hwnas.spaces import Workload


class FactorizedReduce(nn.Module):
    """ReLU, two 1x1 convolutions of stride 2, one of them shifted by a pixel, concatenated, batch norm (DARTS)."""

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
        """Return the concatenated convolutions, before the batch norm."""
        return torch.cat([self.even(x), self.odd(self.shifted(x))], dim=1)

    def shifted(self, x: Tensor) -> Tensor:
        """Return the odd half's input: x without its first row and column. Odd sides are padded."""
        bottom, right = (int(side) % 2 for side in x.shape[2:])  # int: constants in an exported graph
        if self.training:  # a slice's gradient is not channels last; exported models have slices
            return nn.functional.pad(x, (-1, right, -1, bottom))
        shifted = x[:, :, 1:, 1:]
        return nn.functional.pad(shifted, (0, right, 0, bottom)) if bottom or right else shifted


class ResidualReduction(nn.Module):
    """Two ReLU-Conv-BN plus an average-pooled and projected shortcut (between the stages of NAS-Bench-201)."""

    def __init__(self, workload: Workload, affine: bool) -> None:
        super().__init__()
        out = workload.out_channels
        self.first = relu_conv_bn(replace(workload, op="nor_conv_3x3"), affine)
        self.second = relu_conv_bn(Workload("nor_conv_3x3", out, out, workload.height, workload.width), affine)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(workload.in_channels, out, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))
