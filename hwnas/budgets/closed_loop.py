"""The re-timing loop: time architectures, one after the other, until a good one meets its latency budgets.

A table predicts with an error. The most probable architecture within a budget may therefore exceed it on the device,
and a better one just outside may meet it. The first attempt is plain derivation. Let s be the scale of the table's
error (Student's t), v the value of an architecture (its log probability) and B the budget. The next attempt maximises

    P(latency <= B) sqrt(max(0, v - v0)),   v0: value of the best one timed within B, or of a safe one

over the Pareto set of v and predicted latency, SPAN s around B. This is the expected improvement of constrained
Bayesian optimisation (Gardner et al., ICML 2014) with a known v; the root prefers a sure small gain to an unlikely
large one. While no attempt has met B, the last ones take ever safer bounds, tightened by the bias measured so far.
Nothing is trained.

Where a table has no error bars, or errors of 0 as a made-up one has, the bound is tightened by the measured bias until
an architecture meets it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from scipy.special import stdtr

from hwnas.calibration.intervals import ERROR_DEGREES
from hwnas.spaces import Architecture

MOST_ATTEMPTS = 5
SAFE = (1.0, 2.5)  # scales below the budget, in the last two attempts
SPAN = 3.0
LEAST_CHANCE = 0.02  # less likely improvements are not timed


@dataclass(frozen=True)
class Candidate:
    """An architecture, its value, and by metric its predicted latency and the scale of the prediction's error.

    ``error_ms`` is None where a table has no error bars.
    """

    architecture: Architecture
    value: float
    predicted_ms: Mapping[str, float]
    error_ms: Mapping[str, float] | None


@dataclass(frozen=True)
class Attempt:
    """A candidate that was derived within ``bounds_ms`` and timed at ``measured_ms``."""

    candidate: Candidate
    bounds_ms: Mapping[str, float]
    measured_ms: Mapping[str, float]

    def meets(self, budget_ms: Mapping[str, float]) -> bool:
        return all(self.measured_ms[metric] <= bound for metric, bound in budget_ms.items())


Bounds = Mapping[str, float]
Propose = Callable[[Bounds, Collection[Architecture]], Candidate | None]


def close_loop(
    propose: Propose,
    measure: Callable[[Candidate], Mapping[str, float]],
    budget_ms: Bounds,
    step: float,
    callback: Callable[[Attempt, Candidate, Bounds], None] = lambda attempt, following, bounds: None,
    reading_step_ms: Mapping[str, float] | None = None,
) -> list[Attempt]:
    """Time at most MOST_ATTEMPTS architectures and return them in order; ``best_of`` selects one of them.

    ``propose(bounds, excluded)`` returns the best architecture that is predicted within the bounds and not excluded, or
    None. ``step`` is the distance, in scales of the error, of the bounds at which improvements are searched (0: every
    point of the predicted Pareto set). ``callback`` gets the last attempt, the next candidate and its bounds.
    ``reading_step_ms`` is the resolution of the clock by metric: a latency reads as within B if it is below the last
    reading within B plus half a step.
    """
    steps = reading_step_ms or {}
    seen_ms = {m: (math.floor(b / steps[m]) + 0.5) * steps[m] if steps.get(m) else b for m, b in budget_ms.items()}
    attempts: list[Attempt] = []
    following: tuple[Candidate, Bounds] | None = _proposed(propose, budget_ms, ())
    while following:
        candidate, bounds = following
        attempts.append(Attempt(candidate, bounds, measure(candidate)))
        following = _next(propose, attempts, budget_ms, seen_ms, step) if len(attempts) < MOST_ATTEMPTS else None
        if following:
            callback(attempts[-1], *following)
    return attempts


def best_of(attempts: Collection[Attempt], budget_ms: Bounds) -> Attempt:
    """Return the most valuable attempt that meets the budget, or the one that exceeds it least."""
    kept = [attempt for attempt in attempts if attempt.meets(budget_ms)]
    if kept:
        return max(kept, key=lambda attempt: attempt.candidate.value)
    return min(attempts, key=lambda attempt: max(attempt.measured_ms[m] / bound for m, bound in budget_ms.items()))


def _proposed(propose: Propose, bounds: Bounds, tried: Collection[Architecture]) -> tuple[Candidate, Bounds] | None:
    found = propose(bounds, tried)
    return (found, bounds) if found else None


def _next(
    propose: Propose, attempts: list[Attempt], budget_ms: Bounds, seen_ms: Bounds, step: float
) -> tuple[Candidate, Bounds] | None:
    tried = [attempt.candidate.architecture for attempt in attempts]
    kept = best_of(attempts, budget_ms) if any(attempt.meets(budget_ms) for attempt in attempts) else None
    first = attempts[0].candidate
    if first.error_ms is None or not all(first.error_ms.values()):
        worst = max(a.measured_ms[m] / a.candidate.predicted_ms[m] for a in attempts for m in budget_ms)
        tighter = {metric: bound / max(1.0, worst) for metric, bound in budget_ms.items()}
        return None if kept else _proposed(propose, tighter, tried)
    share = max(error / first.predicted_ms[metric] for metric, error in first.error_ms.items())
    if kept:
        return _improved(propose, seen_ms, share, step, tried, kept.candidate.value)
    left = MOST_ATTEMPTS - len(attempts)
    bias = {metric: _bias(attempts, metric) for metric in budget_ms}
    safe = None
    # Take the first bound that has a candidate.
    for scales in (SAFE[-min(left, len(SAFE))] if left <= len(SAFE) else SAFE[-1], 1.0, 0.0):
        bounds = {m: bound * max(1 - scales * share, 0.0) / bias[m] for m, bound in seen_ms.items()}
        safe = safe or _proposed(propose, bounds, tried)
    if left > len(SAFE) and safe:
        return _improved(propose, seen_ms, share, step, tried, safe[0].value) or safe
    return safe


def _improved(
    propose: Propose, seen_ms: Bounds, share: float, step: float, tried: list[Architecture], least_value: float
) -> tuple[Candidate, Bounds] | None:
    """Return the untried architecture of the predicted Pareto set with the greatest expected improvement."""
    best: tuple[float, Candidate, Bounds] | None = None
    scales = SPAN
    while scales >= -SPAN:
        bounds = {metric: bound * (1 + scales * share) for metric, bound in seen_ms.items()}
        candidate = propose(bounds, tried)
        if candidate is None or candidate.value <= least_value:  # so it is at any tighter bound
            break
        chance = _chance(candidate, seen_ms)
        worth = chance * math.sqrt(candidate.value - least_value)
        if chance >= LEAST_CHANCE and (best is None or worth > best[0]):
            best = worth, candidate, bounds
        # This candidate breaks the next bound.
        reached = max((candidate.predicted_ms[m] / bound - 1) / share for m, bound in seen_ms.items())
        scales = min(scales - max(step, 1e-3), reached - 1e-6)
    return (best[1], best[2]) if best else None


def _bias(attempts: list[Attempt], metric: str) -> float:
    """Return the geometric mean of measured over predicted latency, at least 1."""
    logs = [math.log(a.measured_ms[metric] / a.candidate.predicted_ms[metric]) for a in attempts]
    return max(1.0, math.exp(sum(logs) / len(logs)))


def _chance(candidate: Candidate, seen_ms: Bounds) -> float:
    """Return the probability that all latencies are below ``seen_ms``, with independent errors."""
    assert candidate.error_ms is not None
    chance = 1.0
    for metric, bound in seen_ms.items():
        margin, error = bound - candidate.predicted_ms[metric], candidate.error_ms[metric]
        chance *= float(stdtr(ERROR_DEGREES, margin / error)) if error else float(margin >= 0)
    return chance
