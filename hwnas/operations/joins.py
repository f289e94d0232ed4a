"""Torch modules without weights that cells need besides their candidates: ReLU, sum, concatenation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.spaces import Workload


class Sum(nn.Module):
    """The addition of two tensors: a node makes one for each input after the first."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class Concat(nn.Module):
    """The concatenation of a cell's output nodes along the channels."""

    def forward(self, *nodes: Tensor) -> Tensor:
        return torch.cat(nodes, dim=1)


def relu(workload: Workload, affine: bool) -> nn.ReLU:
    return nn.ReLU()


def sum_of_two(workload: Workload, affine: bool) -> Sum:
    return Sum()


def concat(workload: Workload, affine: bool) -> Concat:
    return Concat()
