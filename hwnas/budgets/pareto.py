"""The predicted Pareto set of a search: the worth of an architecture against a cost.

The worth is its log probability, a proxy for accuracy, or what a model predicts of its accuracy.

A space that can be enumerated is enumerated. Otherwise the epsilon-constraint method (Haimes et al., IEEE Trans. Syst.
Man Cybern. 1, 1971) finds the set from the costly end: each point is the architecture of greatest worth within a bound
(hwnas.budgets.derive, exact), and the next bound lies just below its cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import Limits, cheapest, derive, follows_rules, scores
from hwnas.cost.build import CostFunction
from hwnas.cost.model import Array
from hwnas.spaces import Architecture, SearchSpace
from hwnas.spaces.encoding import ENUMERABLE, decode, encode, every_choice

APART = 1e-5  # relative difference below which costs count as equal where the space cannot be enumerated
SAME_SCORE = 1e-9  # effect of another order of summation; the integer program is exact to SAME_OPTIMUM
SAME_OPTIMUM = 1e-4


@dataclass(frozen=True)
class Point:
    """An architecture of the Pareto set, its worth (such as its log probability) and its cost."""

    architecture: Architecture
    worth: float
    cost: float


@dataclass(frozen=True)
class Worth:
    """Quantity that a Pareto set maximises: ``of`` returns the worth [N] of choices [N, edges of all cells].

    ``best`` returns the architecture of greatest worth within limits. It raises HwnasError when there is none.
    """

    of: Callable[[NDArray[np.intp]], Array]
    best: Callable[[Limits], Architecture]


@dataclass(frozen=True)
class ParetoSet:
    """Points from the cheapest on, with a worth that rises with cost.

    ``whole`` is true for the complete set; otherwise there may be more points between neighbours.
    """

    metric: str
    points: tuple[Point, ...]
    whole: bool


def pareto(
    space: SearchSpace,
    log_probability: Mapping[str, Array],
    model: CostFunction,
    limits: Limits,
    inputs_per_node: int | None = None,
    points: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ParetoSet:
    """Return the architectures within ``limits`` that no other beats in both probability and cost.

    The first arguments are those of ``derive``, the others those of ``front``.
    """
    worth = Worth(
        lambda choices: scores(space, log_probability, choices),
        lambda within: derive(space, log_probability, within, inputs_per_node),
    )
    return front(worth, model, limits, inputs_per_node, points, on_progress)


def front(
    worth: Worth,
    model: CostFunction,
    limits: Limits,
    inputs_per_node: int | None = None,
    points: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ParetoSet:
    """Return the architectures within ``limits`` that no other beats in both worth and cost.

    ``model`` is the cost. ``points`` (2 or more) bounds their number in a space that cannot be enumerated: they are
    then spread over the whole range of costs, each still exact. ``on_progress`` gets the number of points found and of
    points in all.

    Raises HwnasError when no architecture meets the limits.
    """
    if model.space.num_architectures <= ENUMERABLE:
        return _enumerated(worth, model, limits, inputs_per_node)
    return _swept(worth, model, limits, inputs_per_node, points, on_progress or (lambda done, of: None))


def _enumerated(
    worth: Worth,
    model: CostFunction,
    limits: Limits,
    inputs_per_node: int | None,
) -> ParetoSet:
    worth.best(limits)  # raises where no architecture meets the limits
    space = model.space
    choices = every_choice(space)
    allowed = follows_rules(space, choices, inputs_per_node)
    for limited, bound in limits.values():
        allowed &= limited.predict_many(choices) <= bound
    choices = choices[allowed]
    cost, score = model.predict_many(choices), worth.of(choices)
    order = np.lexsort((-score, np.round(cost / np.abs(cost).max(), 12)))  # equal up to the order of summation
    best, found = -np.inf, []
    for row in order:
        if score[row] > best + SAME_SCORE:
            best = score[row]
            found.append(Point(decode(space, choices[row]), float(score[row]), float(cost[row])))
    return ParetoSet(model.metric, tuple(found), whole=True)


def _swept(
    worth: Worth,
    model: CostFunction,
    limits: Limits,
    inputs_per_node: int | None,
    points: int | None,
    on_progress: Callable[[int, int], None],
) -> ParetoSet:
    least = model.predict(cheapest(model, limits, inputs_per_node))
    found: list[Point] = []
    bound, whole = limits[model.metric][1] if model.metric in limits else None, True
    while True:
        within = limits if bound is None else {**limits, model.metric: (model, bound)}
        architecture = worth.best(within)
        score = float(worth.of(encode(model.space, [architecture]))[0])
        found.append(Point(architecture, score, model.predict(architecture)))
        on_progress(len(found), points or len(found) + 1)
        cost = found[-1].cost
        bound = cost - APART * abs(cost)
        if points is not None:
            spread = found[0].cost + (least - found[0].cost) * len(found) / (points - 1)
            bound, whole = max(min(bound, spread), least), whole and bound <= spread
        if bound < least or cost <= least or (points is not None and len(found) == points):
            break
    return ParetoSet(model.metric, tuple(_nondominated(found)), whole)


def _nondominated(found: list[Point]) -> list[Point]:
    """Sort by cost, without points that cost more than one that is worth as much."""
    best, kept = -np.inf, []
    for point in reversed(found):
        if point.worth > best + SAME_SCORE:
            best = point.worth
            kept.append(point)
    return kept
