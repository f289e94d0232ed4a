"""A model of accuracy that adds up over edges: the twin of the latency table, fitted to trained architectures.

The value of an architecture is a Gaussian process (Rasmussen & Williams, "Gaussian Processes for Machine Learning",
2006, chapter 2) with three terms: a sum over edges of the worth of their operations, a sum over pairs of edges, and a
linear function of scores that need no training. Each term has a prior variance, and so has the noise of the values.
Predictions are averaged over a grid of these variances, weighted by the likelihood of the values (chapter 5). So the
run's own finalists decide how much scores count against operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hwnas.spaces import SearchSpace

Array = NDArray[np.float64]
Variances = tuple[float, float, float, float]

# Prior variances that are tried, in variances of the values: edges, pairs of edges, scores, noise.
GRID = tuple(product((0.3, 1.0, 3.0), (0.1, 0.5), (0.1, 0.5, 2.0), (0.1, 0.3, 1.0)))


@dataclass(frozen=True)
class Features:
    """Features of N architectures: ``operations`` [N, edges * K] as 0 and 1, standardised ``scores`` [N, F]."""

    operations: Array
    scores: Array
    edges: int

    @classmethod
    def of(cls, space: SearchSpace, choices: NDArray[np.intp], scores: Mapping[str, Array]) -> Features:
        """Return the features of ``choices`` [N, edges], dead edges as ``none``, with scores [N] by name."""
        operations = np.eye(len(space.operations))[choices].reshape(len(choices), -1)
        columns = [_standardised(values) for values in scores.values()]
        return cls(operations, np.stack(columns, axis=1) if columns else np.zeros((len(choices), 0)), choices.shape[1])

    def rows(self, index: Sequence[int] | NDArray[np.intp]) -> Features:
        return Features(self.operations[index], self.scores[index], self.edges)

    def with_score(self, values: Array) -> Features:
        """Return the features with one more score [N]."""
        return Features(self.operations, np.column_stack([self.scores, _standardised(values)]), self.edges)

    def similarities(self, other: Features) -> list[Array]:
        """Return the kernel [N, M] of every term, of variance 1 an architecture."""
        shared = self.operations @ other.operations.T / self.edges
        scores = self.scores @ other.scores.T / max(self.scores.shape[1], 1)
        return [shared, shared**2, scores]


@dataclass(frozen=True)
class _Process:
    """One Gaussian process: the variance of each term, its weight in the mean, and what its fit left."""

    variances: tuple[float, ...]
    weight: float
    inverse: Array
    dual: Array


@dataclass(frozen=True)
class AccuracyModel:
    """A fitted model. ``mean`` and ``scale`` are the mean and the standard deviation of the values.

    Its processes are fitted to standardised values.
    """

    known: Features
    mean: float
    scale: float
    processes: tuple[_Process, ...]

    @classmethod
    def fit(cls, known: Features, values: Array, grid: Sequence[Variances] | None = None) -> AccuracyModel:
        """Fit to the values [N] of architectures; larger is better. Of one value, that is expected everywhere.

        ``grid`` replaces GRID.

        Raises ValueError without values, or for one that is not finite.
        """
        if not len(values) or not np.isfinite(values).all():
            raise ValueError("an accuracy model needs values, all finite")
        mean, scale = float(values.mean()), float(values.std()) or 1.0
        targets = (values - mean) / scale
        kernels = known.similarities(known)
        grid = grid or GRID
        fitted = [_fit_process(kernels, targets, variances) for variances in grid]
        likelihoods = np.array([likelihood for likelihood, *_ in fitted])
        weights = np.exp(likelihoods - likelihoods.max())
        weights /= weights.sum()
        processes = [
            _Process(variances[:-1], float(weight), inverse, dual)
            for variances, weight, (_, inverse, dual) in zip(grid, weights, fitted, strict=True)
            if weight > 1e-3
        ]
        return cls(known, mean, scale, tuple(processes))

    def predict(self, features: Features) -> tuple[Array, Array]:
        """Return the expected value [M] of architectures and its standard deviation [M], noise of training left out."""
        across, own = features.similarities(self.known), _own_similarity(features)
        total = sum(process.weight for process in self.processes)
        means, squares = np.zeros(len(own[0])), np.zeros(len(own[0]))
        for process in self.processes:
            kernel = _weighted(across, process.variances)
            mean = kernel @ process.dual
            spread = _weighted(own, process.variances) - np.einsum("ij,jk,ik->i", kernel, process.inverse, kernel)
            means += process.weight * mean
            squares += process.weight * (np.maximum(spread, 0) + mean**2)
        means /= total
        spread = np.maximum(squares / total - means**2, 0)
        return self.mean + self.scale * means, self.scale * np.sqrt(spread)

    def by_edge(self, space: SearchSpace) -> dict[str, Array]:
        """Return the worth [E, K] of every operation on every edge, by cell kind: the term that is a sum over edges."""
        known, total = self.known, sum(process.weight for process in self.processes)
        worth = sum(p.weight * p.variances[0] * known.operations.T @ p.dual for p in self.processes)
        table = self.scale * np.asarray(worth).reshape(known.edges, len(space.operations)) / total / known.edges
        return {kind: rows.T for kind, rows in space.by_cell(table.T).items()}


def _fit_process(kernels: Sequence[Array], targets: Array, variances: Variances) -> tuple[float, Array, Array]:
    """Return the targets' log likelihood (up to a constant), the inverse covariance, and its product with them."""
    covariance = _weighted(kernels, variances[:-1]) + variances[-1] * np.eye(len(targets))
    inverse = np.asarray(np.linalg.inv(covariance), dtype=np.float64)
    dual = inverse @ targets
    return float(-0.5 * targets @ dual - 0.5 * np.linalg.slogdet(covariance)[1]), inverse, dual


def _weighted(kernels: Sequence[Array], variances: Sequence[float]) -> Array:
    return np.asarray(sum(variance * kernel for variance, kernel in zip(variances, kernels, strict=True)))


def _own_similarity(features: Features) -> list[Array]:
    """Return the diagonal [N] of every term's kernel."""
    shared = (features.operations**2).sum(axis=1) / features.edges
    return [shared, shared**2, (features.scores**2).sum(axis=1) / max(features.scores.shape[1], 1)]


def _standardised(values: Array) -> Array:
    return np.asarray((values - values.mean()) / (values.std() or 1.0))
