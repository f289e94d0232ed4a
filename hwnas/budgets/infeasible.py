"""Several limits at once: whether one architecture can keep them all, and which of them contradict each other."""

from __future__ import annotations

from hwnas.budgets.derive import Limits, cheapest
from hwnas.errors import HwnasError


def least_under_others(limits: Limits, inputs_per_node: int | None = None) -> dict[str, float]:
    """How far every limited metric can go down while the others keep their limits, exactly.

    Raises HwnasError where the others of some metric cannot all be kept.
    """
    least = {}
    for metric, (model, _) in limits.items():
        others = {other: limit for other, limit in limits.items() if other != metric}
        least[metric] = model.predict(cheapest(model, others, inputs_per_node))
    return least


def contradiction(limits: Limits, inputs_per_node: int | None = None) -> dict[str, float]:
    """Limits that no architecture keeps together, though it could without any one of them.

    Each with the least that its metric can be under the others of them. Empty where all limits can be kept. Raises
    HwnasError when the space's rules alone leave no architecture.
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
