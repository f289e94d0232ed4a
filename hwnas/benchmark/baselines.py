"""Baselines that need no search: cells within a budget that are chosen at random, by MACs or by parameters.

Each is a distribution over cells: ``weights`` [N] that add up to 1. Its figures are expected values, not samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.collapse import collapse_of_all
from hwnas.benchmark.judged_target import JudgedTarget
from hwnas.benchmark.schema import (
    AT_RANDOM,
    BASELINES,
    BEST,
    BEST_OF_TEN,
    MOST_MACS,
    MOST_PARAMS,
    ReferenceRow,
    Spread,
)
from hwnas.cost.counts import count_metrics
from hwnas.cost.metric import MACS, PARAMS
from hwnas.cost.model import Array
from hwnas.spaces import SizedSpace
from hwnas.spaces.encoding import every_choice

Mask = NDArray[np.bool_]
DRAWS = 10


def uniform(within: Mask) -> Array:
    """Return the weights [N] of a cell that is drawn from those within."""
    return np.asarray(within / within.sum())


def most(values: Array, within: Mask) -> Array:
    """Return the weights [N] of the cell within that has the greatest value, equal where several have it."""
    return uniform(within & (values == values[within].max()))


def best_of(draws: int, values: Array, within: Mask) -> Array:
    """Return the weights [N] of the cell of the greatest value among ``draws`` different cells drawn from those within.

    Of n cells in the order of their values, the cell at position i (from 1) is the best with the probability
    C(i-1, draws-1) / C(n, draws). With fewer cells than ``draws``, all are drawn.
    """
    cells = np.flatnonzero(within)
    ordered, n = cells[np.argsort(values[cells], kind="stable")], len(cells)
    draws = min(draws, n)
    weights = np.zeros(len(values))
    # Going down from the last, each cell is less likely than the one above it by (i - draws + 1) / i for i below it.
    below = np.arange(n - 1, draws - 1, -1)
    chances = np.cumprod(np.concatenate([[draws / n], (below - draws + 1) / below]))
    weights[ordered[::-1][: len(chances)]] = chances
    return weights


@dataclass(frozen=True)
class Counts:
    """MACs and parameters [N] of the target network of every cell."""

    macs: Array
    params: Array

    @classmethod
    def of(cls, target: SizedSpace) -> Counts:
        """Count every cell of a NAS-Bench-201 network of these sizes."""
        models, choices = count_metrics(target), every_choice(target.space)
        return cls(*(models[metric.name].predict_many(choices) for metric in (MACS, PARAMS)))


def baseline_weights(values: Array, within: Mask, counts: Counts) -> dict[str, Array]:
    """Return the weights [N] of every baseline among the cells within a budget; ``values`` [N] are the accuracies."""
    return {
        AT_RANDOM: uniform(within),
        BEST_OF_TEN: best_of(DRAWS, values, within),
        MOST_MACS: most(counts.macs, within),
        MOST_PARAMS: most(counts.params, within),
    }


def references(accuracies: AccuracyTable, target: JudgedTarget, counts: Counts) -> list[ReferenceRow]:
    """Return the rows of a summary that need no search: every baseline, and the best cell of each data set."""
    rows: dict[str, dict[str, Any]] = {
        name: {"name": name, "accuracy": {}, "regret": {}} for name in (*BASELINES, BEST)
    }
    for data_set, values in accuracies.values.items():
        best = accuracies.best(data_set, target.within)
        weights = baseline_weights(values, target.within, counts)
        weights[BEST] = most(values, target.within)
        for name, chances in weights.items():
            rows[name]["accuracy"][data_set] = expected(values, chances)
            rows[name]["regret"][data_set] = expected(best - values, chances)
            if target.share is not None:
                rows[name].setdefault("share", {})[data_set] = expected(target.share, chances)
    at_random = uniform(target.within)
    rows[AT_RANDOM]["collapse"] = {name: expected(shares, at_random) for name, shares in collapse_of_all().items()}
    return [ReferenceRow(**row) for row in rows.values()]


def expected(values: Array, weights: Array) -> Spread:
    """Return mean and standard deviation of the values [N] under the weights.

    Of n equally likely cells it is the sample standard deviation (n - 1), None for a single cell.
    """
    possible = weights > 0
    values, weights = values[possible], weights[possible]
    mean = float(weights @ values)
    if len(values) == 1:
        return Spread(mean=mean, std=None)
    equal = bool((weights == weights[0]).all())
    variance = float(weights @ (values - mean) ** 2) * (len(values) / (len(values) - 1) if equal else 1.0)
    return Spread(mean=mean, std=variance**0.5)
