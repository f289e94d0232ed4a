"""Torch modules of pooling, bare or with a batch norm after it; the workload's name gives kind and kernel."""

from __future__ import annotations

import re

from torch import nn

from hwnas.spaces import Workload


def pooling(workload: Workload, affine: bool) -> nn.MaxPool2d | nn.AvgPool2d:
    """Build ``max_pool_KxK`` or ``avg_pool_KxK``; an average leaves the padding out."""
    found = re.match(r"(max|avg)_pool_(\d+)x", workload.op)
    assert found
    kernel = int(found[2])
    if found[1] == "max":
        return nn.MaxPool2d(kernel, workload.stride, padding=kernel // 2)
    return nn.AvgPool2d(kernel, workload.stride, kernel // 2, count_include_pad=False)


def normed_pooling(workload: Workload, affine: bool) -> nn.Sequential:
    return nn.Sequential(pooling(workload, affine), nn.BatchNorm2d(workload.out_channels, affine=affine))
