"""Judge cells by a target's budget: with latencies that were measured, or without them as its table predicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmark.cell_table import index_of_cell
from hwnas.benchmark.schema import Account
from hwnas.cost.metric import LATENCY, Metric
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.search.objective import Objective
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import every_choice
from hwnas.spaces.nasbench201 import NASBENCH201


@dataclass(frozen=True)
class JudgedTarget:
    """An objective, and the costs [N] of every cell that its budget limits, in the order of ``every_choice``.

    Costs of cells that were not measured are NaN.
    """

    objective: Objective
    costs: Mapping[str, Array]

    @cached_property
    def within(self) -> NDArray[np.bool_]:
        """Mask [N] of the cells that keep the budget; a cell that was not measured does not count as keeping it."""
        kept = [costs <= self.objective.budget.limits[metric] for metric, costs in self.costs.items()]
        return np.logical_and.reduce([np.ones(NASBENCH201.num_architectures, dtype=bool), *kept])

    @cached_property
    def share(self) -> Array | None:
        """Cost over bound [N], of the limit that a cell comes closest to; None without a budget."""
        shares = [costs / self.objective.budget.limits[metric] for metric, costs in self.costs.items()]
        return np.maximum.reduce(shares) if shares else None

    @cached_property
    def measured(self) -> NDArray[np.bool_]:
        """Mask [N] of the cells whose costs are all known."""
        known = [np.isfinite(costs) for costs in self.costs.values()]
        return np.logical_and.reduce([np.ones(NASBENCH201.num_architectures, dtype=bool), *known])

    def judge(self, cell: Architecture) -> Account:
        """Return whether a cell keeps the budget, with an empty account where there is none."""
        if self.share is None:
            return Account()
        index, budget = index_of_cell(cell), self.objective.budget
        known = bool(self.measured[index])
        costs = {name: float(values[index]) for name, values in self.costs.items()}
        return Account(
            target=self.objective.target,
            costs={name: value if math.isfinite(value) else None for name, value in costs.items()},
            limits=dict(budget.limits),
            kept=bool(self.within[index]) if known else None,
            share=float(self.share[index]) if known else None,
        )


def judge_targets(objectives: Sequence[Objective], latencies: Mapping[str, Array] | None = None) -> list[JudgedTarget]:
    """Return every objective with the costs of all cells.

    ``latencies`` [N] in ms are measured, by device; they replace the latencies that the tables predict. Raises
    HwnasError where no cell keeps a budget.
    """
    choices = every_choice(NASBENCH201)
    judged = []
    for objective in objectives:
        costs = {}
        for name in objective.budget.limits:
            metric = Metric.parse(name)
            if latencies is not None and metric.on(None) == LATENCY:
                costs[name] = latencies[metric.device or objective.device]
            else:
                costs[name] = objective.costs[name].predict_many(choices)
        target = JudgedTarget(objective, costs)
        if not target.within.any():
            raise HwnasError(
                f"no measured cell keeps budget {objective.budget.text} on {objective.device}",
                "give a larger budget, or check that --latency is of this device and the table of its network",
            )
        judged.append(target)
    return judged
