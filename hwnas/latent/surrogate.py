"""A Gaussian process over latents, and expected improvement: which architectures are worth an evaluation.

Values are replaced by normal scores, the quantiles of N(0, 1) at their ranks: a few architectures that hardly learn
would else stretch the scale. Expected improvement over the best so far is that of Jones, Schonlau & Welch, "Efficient
Global Optimization of Expensive Black-Box Functions", 1998. The process (scikit-learn) is a linear function of the
latents plus a smooth one (Matern 5/2) plus noise; their sizes are those under which the scores are likeliest.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwnas.cost.model import Array

FAR = 10.0  # normal scores beyond those of the values, for which a value is extrapolated


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process fitted to normal ``scores`` [N] of ``latents`` [N, D].

    ``mean`` and ``scale`` standardise the latents; ``values`` are those that were given, larger ones being better.
    """

    process: Any
    latents: Array
    scores: Array
    values: Array
    mean: Array
    scale: float

    @classmethod
    def fit(cls, latents: Array, values: Array) -> Surrogate:
        """Fit to at least one value. Raises ValueError without values, or for one that is not finite."""
        from scipy.stats import norm, rankdata  # takes most of a second to import
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        if not len(values) or not np.isfinite(values).all():
            raise ValueError("a surrogate needs values, all finite")
        scores = np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))
        mean = latents.mean(axis=0)
        scale = float(np.linalg.norm(latents - mean, axis=1).mean()) or 1.0
        linear = ConstantKernel(1.0, (1e-3, 1e3)) * DotProduct(0.0, "fixed")
        smooth = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(1.0, (0.1, 10.0), nu=2.5)
        process = GaussianProcessRegressor(linear + smooth + WhiteKernel(0.1, (1e-4, 1.0)), random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of sizes at their bounds
            process.fit((latents - mean) / scale, scores)
        return cls(process, latents, scores, values, mean, scale)

    def with_scores(self, latents: Array, scores: Array) -> Surrogate:
        """Return the process given more scores, without fitting its sizes again."""
        from sklearn.base import clone

        process = clone(self.process)
        process.set_params(kernel=self.process.kernel_, optimizer=None)
        latents, scores = np.concatenate([self.latents, latents]), np.concatenate([self.scores, scores])
        process.fit((latents - self.mean) / self.scale, scores)
        return replace(self, process=process, latents=latents, scores=scores)

    def predict(self, latents: Array) -> tuple[Array, Array]:
        """Return the expected score [M] of latents [M, D] and its standard deviation [M]."""
        mean, deviation = self.process.predict((latents - self.mean) / self.scale, return_std=True)
        return np.asarray(mean), np.asarray(deviation)

    def predict_values(self, latents: Array) -> tuple[Array, Array]:
        """Return the value [M] at the expected score of latents [M, D], and half the range within one deviation [M]."""
        mean, deviation = self.predict(latents)
        high, low = self._values_at(mean + deviation), self._values_at(mean - deviation)
        return self._values_at(mean), (high - low) / 2

    def _values_at(self, scores: Array) -> Array:
        """Return the values at normal scores: between those given linear, beyond them at their deviation a score."""
        order = np.argsort(self.values, kind="stable")
        values, known = self.values[order], self.scores[: len(order)][order]
        slope = float(values.std())
        known = np.concatenate([[known[0] - FAR], known, [known[-1] + FAR]])
        values = np.concatenate([[values[0] - FAR * slope], values, [values[-1] + FAR * slope]])
        return np.asarray(np.interp(scores, known, values))

    def expected_improvement(self, latents: Array) -> Array:
        """Return E[max(score - best, 0)] [M] of latents [M, D], best being the largest expected score so far."""
        from scipy.stats import norm  # takes most of a second to import

        mean, deviation = self.predict(latents)
        deviation = np.maximum(deviation, 1e-12)
        gain = mean - self.predict(self.latents)[0].max()
        return np.asarray(gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation))
