"""SNAS's own penalty (Xie et al., ICLR 2019): three resources of the network in the loss, whatever the budget limits.

The paper adds eta * E[C(Z)] to the loss, with C from parameter size, FLOPs (our MACs) and memory access cost. The
released code takes, for every cell and edge e and each resource m, r_m[e] = sum over operations of w[e, k] * c_m[e, k],
c in parameters, multiply-accumulates and values moved, and of these

    log       sum over e of (ln r_params + ln r_macs + ln r_memory) / 3, an r below 1 set to 1
    linear    sum over e of 0.43 * (2 * r_params + r_macs / 4000 + r_memory / 100)

averaged over the cells of a kind and added up over the kinds. w is the batch's relaxed sample Z (its
``reparametrization``, with which its README trains) or softmax(log_alpha) (its ``discrete``). With the latter
``linear`` is the paper's exact expectation E[C(Z)]; ``log`` is the logarithm of an expectation, no expectation of a
logarithm, which ``none`` would make minus infinity. An edge whose r is below 1 (all but ``none``, or, for parameters,
but pooling) adds nothing and feels no pull: the code's clamp cuts the gradient, and so does this.

Where this differs from the code: an edge's costs are averaged over the cells of its kind before the logarithm, there
after it; they are the cost models', so batch norms, additions and a MACs convention count as hwnas counts them; a
resource may be left out, and ``log`` divides by the number that stay. The code's third form, a score function, is not
here: with a cost linear in Z it estimates what ``probabilities`` gives exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from hwnas.cost.model import CostModel

LINEAR = {"params": 0.43 * 2, "macs": 0.43 / 4000, "memory_access_bytes": 0.43 / 100}
BYTES_A_VALUE = 4.0  # float32: the code counts values where the cost model counts bytes


class ResourcePenalty:
    """The penalty of one space at one size: ``shares[kind]`` [E, K], rows that sum to 1, in; a float64 scalar out.

    ``costs`` has a model for each of ``resources``; ``places`` says how many cells of each kind the network has. What
    lies outside the edges (stem, classifier and so on) is left out, as in the released code.
    """

    def __init__(
        self,
        costs: Mapping[str, CostModel],
        places: Mapping[str, int],
        form: Literal["log", "linear"],
        resources: Sequence[str],
    ) -> None:
        self.form, self.resources = form, tuple(resources)
        self.edges = {
            metric: {
                kind: torch.from_numpy(edges / places[kind] / (BYTES_A_VALUE if metric.endswith("_bytes") else 1.0))
                for kind, edges in costs[metric].linear()[1].items()
                if places[kind]
            }
            for metric in self.resources
        }

    def __call__(self, shares: Mapping[str, Tensor]) -> Tensor:
        terms = []
        for metric, edges in self.edges.items():
            for kind in edges:
                cost = edges[kind] = edges[kind].to(shares[kind].device)  # once: there it stays
                used = (shares[kind].double() * cost).sum(dim=-1)
                if self.form == "log":
                    terms.append(used.clamp(min=1).log().sum() / len(self.resources))
                else:
                    terms.append(LINEAR[metric] * used.sum())
        return torch.stack(terms).sum()
