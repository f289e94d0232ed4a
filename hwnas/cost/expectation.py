"""The tensor view of a cost model: E[C(Z)] under a factorised distribution, differentiable in its probabilities."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hwnas.cost.model import CostModel


class ExpectedCost:
    """E[C] = base + sum over edges and operations of p[e, o] * c[e, o]; exact, because C is linear in Z.

    Maps ``probabilities[kind]`` [E, K] to a scalar in the metric's unit (float64) on their device.
    """

    def __init__(self, model: CostModel) -> None:
        self.base, edges = model.linear()
        self.edges = {kind: torch.from_numpy(values) for kind, values in edges.items()}

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for kind, p in probabilities.items():
            cost = self.edges[kind] = self.edges[kind].to(p.device)  # moved once
            terms.append((p.double() * cost).sum())
        return self.base + torch.stack(terms).sum()
