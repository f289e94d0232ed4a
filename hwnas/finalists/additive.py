"""The accuracy model of a finished run that is a sum over live edges, so that an integer program can maximise it.

It is fitted to the first trainings of the run's finalists and baselines: to -log of the error, which adds up better
over edges than accuracy does. k wrong of n validation images count as an error of (k + 1/2) / (n + 1), which is never
0. Dead edges count as ``none``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import Limits, largest
from hwnas.budgets.pareto import Worth
from hwnas.cost.model import Array, CellCost, CostModel
from hwnas.finalists.accuracy_model import AccuracyModel, Features
from hwnas.spaces import NONE, Architecture, SearchSpace
from hwnas.spaces.encoding import encode, without_dead_edges

# Prior variances that are tried, as in accuracy_model.GRID, without pairs of edges and scores.
GRID = tuple(product((0.3, 1.0, 3.0), (0.0,), (0.0,), (0.1, 0.3, 1.0)))


@dataclass(frozen=True)
class AdditiveModel:
    """A fitted model; ``inputs_per_node`` as in hwnas.budgets.derive."""

    space: SearchSpace
    model: AccuracyModel
    inputs_per_node: int | None

    @classmethod
    def fit(
        cls,
        space: SearchSpace,
        architectures: Sequence[Architecture],
        accuracies: Array,
        images: int,
        inputs_per_node: int | None,
    ) -> AdditiveModel:
        """Fit to the accuracies [N] of architectures on ``images`` validation images."""
        errors = (images * (1 - accuracies) + 0.5) / (images + 1)
        features = _features(space, encode(space, list(architectures)))
        return cls(space, AccuracyModel.fit(features, -np.log(errors), GRID), inputs_per_node)

    def accuracies(self, choices: NDArray[np.intp], deviations: float = 0.0) -> Array:
        """Return the predicted accuracy [N] of ``choices`` [N, edges], or one some standard deviations away.

        The deviation is that of the prediction; the noise of a single training is left out.
        """
        mean, deviation = self.model.predict(_features(self.space, choices))
        return np.asarray(1 - np.exp(-(mean + deviations * deviation)))

    def worth(self) -> Worth:
        """Return the predicted -log(error) as what a Pareto set maximises."""
        model = self.as_sum()

        def best(limits: Limits) -> Architecture:
            return largest(model, limits, self.inputs_per_node)

        return Worth(model.predict_many, best)

    def as_sum(self) -> CostModel:
        """Return the predicted -log(error) as a sum over live edges."""
        space, none = self.space, self.space.operations.index(NONE)
        by_edge = self.model.by_edge(space)
        cells = {
            kind: CellCost.of_edges(values - values[:, [none]], space.cells[kind].num_inputs)
            for kind, values in by_edge.items()
        }
        base = self.model.mean + sum(float(values[:, none].sum()) for values in by_edge.values())
        return CostModel(space, "accuracy", base, cells, dead_edges_are_free=True)


def _features(space: SearchSpace, choices: NDArray[np.intp]) -> Features:
    return Features.of(space, without_dead_edges(space, choices), {})
