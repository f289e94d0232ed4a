"""Infeasible budgets: find the limits that no architecture meets together."""

from __future__ import annotations

from hwnas.budgets.derive import Limits, cheapest
from hwnas.errors import HwnasError


def least_under_others(limits: Limits, inputs_per_node: int | None = None) -> dict[str, float]:
    """Return the exact minimum of every limited metric within the limits of the others.

    Raises HwnasError where no architecture meets the limits on the others.
    """
    least = {}
    for metric, (model, _) in limits.items():
        others = {other: limit for other, limit in limits.items() if other != metric}
        least[metric] = model.predict(cheapest(model, others, inputs_per_node))
    return least


def conflicting_limits(limits: Limits, inputs_per_node: int | None = None) -> dict[str, float]:
    """Return a minimal set of limits that no architecture meets together; empty where all limits can be met.

    Without any one of them the others can be met. Each comes with the minimum of its metric under the others. Raises
    HwnasError when the rules of the space alone leave no architecture.
    """
    if _possible(limits, inputs_per_node):
        return {}
    few = dict(limits)
    for metric in limits:
        without = {other: limit for other, limit in few.items() if other != metric}
        if without and not _possible(without, inputs_per_node):
            few = without
    return least_under_others(few, inputs_per_node)


def _possible(limits: Limits, inputs_per_node: int | None) -> bool:
    model, _ = next(iter(limits.values()))
    try:
        cheapest(model, limits, inputs_per_node)
    except HwnasError:
        return False
    return True
