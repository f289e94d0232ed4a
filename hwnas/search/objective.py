"""The request of one target: its device, its budget, and the cost models of its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hwnas.budgets.budget import Budget
from hwnas.budgets.derive import Limits
from hwnas.cost.build import CostFunction
from hwnas.cost.model import CostModel
from hwnas.spaces import SizedSpace


@dataclass(frozen=True)
class Objective:
    """A budget on a device, and the cost model of every metric; ``device`` is "phone, cpu" for a budget on several.

    ``target`` is the id of the target in its run, empty where there is no run. ``target_sized`` is the network that the
    costs are of, None where that is the search network.
    """

    device: str
    budget: Budget
    costs: Mapping[str, CostFunction]
    target: str = ""
    target_sized: SizedSpace | None = None

    @property
    def penalised(self) -> dict[str, float]:
        """The limits that are in the loss: those on costs that are linear in Z. Derivation keeps all limits."""
        return {m: bound for m, bound in self.budget.limits.items() if isinstance(self.costs[m], CostModel)}

    @property
    def limits(self) -> Limits:
        return {metric: (self.costs[metric], bound) for metric, bound in self.budget.limits.items()}
