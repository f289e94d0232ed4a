"""Torch modules of 3x3 pooling, bare or with a batch norm after it."""

from __future__ import annotations

from torch import nn

from hwnas.spaces import Workload


def max_pool_3x3(workload: Workload, affine: bool) -> nn.MaxPool2d:
    return nn.MaxPool2d(3, workload.stride, padding=1)


def avg_pool_3x3(workload: Workload, affine: bool) -> nn.AvgPool2d:
    return nn.AvgPool2d(3, workload.stride, 1, count_include_pad=False)


def max_pool_3x3_bn(workload: Workload, affine: bool) -> nn.Sequential:
    return nn.Sequential(max_pool_3x3(workload, affine), nn.BatchNorm2d(workload.out_channels, affine=affine))


def avg_pool_3x3_bn(workload: Workload, affine: bool) -> nn.Sequential:
    return nn.Sequential(avg_pool_3x3(workload, affine), nn.BatchNorm2d(workload.out_channels, affine=affine))
