"""The tensor view of a cost model: E[C(Z)] under a factorised distribution, differentiable in its probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from hwnas.cost.model import CostModel


class ExpectedCost:
    """E[C] = base + sum over edges and operations of p[e, o] * c[e, o]; exact, because C is linear in Z.

    Of an edge that reads others the expectation is over the operations of all of them, which are independent: it is
    exact, too.

    Maps ``probabilities[kind]`` [E, K] to a scalar in the metric's unit (float64) on their device.
    """

    def __init__(self, model: CostModel) -> None:
        alone = {kind: replace(cost, couplings=()) for kind, cost in model.cells.items()}
        self.base, edges = replace(model, cells=alone).linear()
        self.edges = {kind: torch.from_numpy(values) for kind, values in edges.items()}
        self.couplings = {
            kind: [(coupling, torch.from_numpy(coupling.offered)) for coupling in cost.couplings]
            for kind, cost in model.cells.items()
        }

    def __call__(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for kind, p in probabilities.items():
            cost = self.edges[kind] = self.edges[kind].to(p.device)  # moved once
            terms.append((p.double() * cost).sum())
            for coupling, values in self.couplings[kind]:
                expected = values.to(p.device)
                for e, offers in zip(coupling.edges, coupling.offers, strict=True):  # axis by axis, the first one first
                    expected = torch.tensordot(p[e, list(offers)].double(), expected, dims=1)
                terms.append(expected)
        return self.base + torch.stack(terms).sum()
