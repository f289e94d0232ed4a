"""Torch modules without weights that cells need beside their candidates: ReLU, sum, concatenation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.spaces import Workload


class Sum(nn.Module):
    """What a node adds for each of its inputs after the first: ``x + y``."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Concat(nn.Module):
    """A DARTS cell's output: its nodes side by side."""

    def forward(self, *nodes: Tensor) -> Tensor:
        return torch.cat(nodes, dim=1)


def relu(workload: Workload, affine: bool) -> nn.ReLU:
    return nn.ReLU()


def sum_of_two(workload: Workload, affine: bool) -> Sum:
    return Sum()


def concat(workload: Workload, affine: bool) -> Concat:
    return Concat()
