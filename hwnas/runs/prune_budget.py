"""Budgets of pruned networks: one limit, in MACs or milliseconds or as a share of what the whole network costs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwnas.budgets.budget import Budget
from hwnas.budgets.text import NUMBER, absolute_limit, refuse_decimal_comma
from hwnas.cost.metric import LATENCY, MACS, Metric
from hwnas.errors import HwnasError

FORMS = "use 50%-macs, 120M-macs, 70% (of the latency) or 4.5ms"


@dataclass(frozen=True)
class PruningBudget:
    """A limit on ``metric``, MACS or LATENCY: ``amount`` in its unit or, if ``relative``, times the whole network's."""

    text: str
    metric: Metric
    amount: float
    relative: bool

    def resolve(self, whole: float) -> Budget:
        """Return the budget for a network that costs ``whole``. Raises HwnasError where that is within the limit."""
        bound = self.amount * whole if self.relative else self.amount
        if bound >= whole:
            raise HwnasError(
                f"budget {self.text!r} leaves nothing to prune: the network has {self.metric.format(whole)}",
                "give a smaller one",
            )
        return Budget(self.text, {self.metric.name: bound})


def parse_pruning_budget(text: str) -> PruningBudget:
    """Parse ``50%-macs``, ``120M-macs``, ``70%`` or ``4.5ms``. Raises HwnasError for anything else."""
    refuse_decimal_comma(text)
    text = text.strip()
    if "," in text:
        raise HwnasError(f"budget {text!r} has several limits, and a network is pruned to one", FORMS)
    if found := re.fullmatch(rf"{NUMBER}%(\s*-\s*macs|\s*-\s*latency)?", text, re.IGNORECASE):
        metric = MACS if (found[2] or "").lower().endswith("macs") else LATENCY
        return _positive(PruningBudget(text, metric, float(found[1]) / 100, relative=True))
    limit = absolute_limit(text)
    if limit is None or limit[0] not in (MACS, LATENCY):
        raise HwnasError(f"cannot prune to budget {text!r}: a network is pruned to MACs or milliseconds", FORMS)
    return _positive(PruningBudget(text, *limit, relative=False))


def _positive(budget: PruningBudget) -> PruningBudget:
    if not budget.amount > 0:
        raise HwnasError(f"budget {budget.text!r} is not above 0", FORMS)
    return budget
