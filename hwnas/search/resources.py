"""SNAS's own penalty (Xie et al., ICLR 2019): three resources of the network in the loss, independent of the budget.

The paper adds eta * E[C(Z)] to the loss, with C from parameter size, FLOPs (our MACs) and memory access cost. The
released code takes, for every cell and edge e and each resource m, r_m[e] = sum over operations of w[e, k] * c_m[e, k],
c in parameters, multiply-accumulates and values moved, and of these

    log       sum over e of (ln r_params + ln r_macs + ln r_memory) / 3, an r below 1 set to 1
    linear    sum over e of 0.43 * (2 * r_params + r_macs / 4000 + r_memory / 100)

averaged over the cells of a kind and added up over the kinds. w is the batch's relaxed sample Z (its
``reparametrization``, with which its README trains) or softmax(log_alpha) (its ``discrete``). With the latter
``linear`` is the paper's exact expectation E[C(Z)]; ``log`` is the logarithm of an expectation, no expectation of a
logarithm, which ``none`` would make minus infinity. An edge whose r is below 1 (almost all ``none`` or, for parameters,
pooling) adds nothing and gets no gradient: the clamp of the code cuts it, and so does this.

Differences from the code: an edge's costs are averaged over the cells of its kind before the logarithm, not after it;
they come from the cost models, so batch norms, additions and MACs are counted as hwnas counts them; a resource may be
left out, and ``log`` divides by the number of the others. The code's third form, a score function, is not implemented:
with a cost linear in Z it estimates what ``probabilities`` gives exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from hwnas.cost.metric import BYTES, MACS, MEMORY_ACCESS, PARAMS, Metric
from hwnas.cost.model import CostModel

LINEAR = {PARAMS.name: 0.43 * 2, MACS.name: 0.43 / 4000, MEMORY_ACCESS.name: 0.43 / 100}
BYTES_A_VALUE = 4.0  # float32: the code counts values where the cost model counts bytes


class ResourcePenalty:
    """The penalty of one space at one size: ``shares[kind]`` [E, K], rows that sum to 1, in; a float64 scalar out.

    ``costs`` has a model for each of ``resources``; ``instances`` is the number of cells of each kind in the network.
    Everything outside the edges (stem, classifier and so on) is left out, as in the released code. Where widths of a
    chain's stages are chosen, an edge's cost is its mean over those around it.
    """

    def __init__(
        self,
        costs: Mapping[str, CostModel],
        instances: Mapping[str, int],
        form: Literal["log", "linear"],
        resources: Sequence[str],
    ) -> None:
        self.form, self.resources = form, tuple(resources)
        self.edges = {
            metric: {
                kind: torch.from_numpy(
                    edges / instances[kind] / (BYTES_A_VALUE if Metric.parse(metric).unit == BYTES else 1.0)
                )
                for kind, edges in costs[metric].linear()[1].items()
                if instances[kind]
            }
            for metric in self.resources
        }

    def __call__(self, shares: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for metric, edges in self.edges.items():
            for kind in edges:
                cost = edges[kind] = edges[kind].to(shares[kind].device)  # moved to the device once
                used = (shares[kind].double() * cost).sum(dim=-1)
                if self.form == "log":
                    terms.append(used.clamp(min=1).log().sum() / len(self.resources))
                else:
                    terms.append(LINEAR[metric] * used.sum())
        return torch.stack(terms).sum()
