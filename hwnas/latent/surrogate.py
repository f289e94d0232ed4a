"""A Gaussian process over latents, and expected improvement: which architectures are worth an evaluation.

Expected improvement over the best value so far is that of Jones, Schonlau & Welch, "Efficient Global Optimization of
Expensive Black-Box Functions", 1998. The process (scikit-learn) is a linear function of the latents plus a smooth one
(Matern 5/2) plus noise; their sizes are those under which the values are likeliest.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from hwnas.cost.model import Array


@dataclass(frozen=True)
class Surrogate:
    """A Gaussian process fitted to the ``values`` [N] of ``latents`` [N, D]; larger values are better.

    ``mean`` and ``scale`` standardise the latents.
    """

    process: Any
    latents: Array
    values: Array
    mean: Array
    scale: float

    @classmethod
    def fit(cls, latents: Array, values: Array) -> Surrogate:
        """Fit to at least one value. Raises ValueError without values, or for one that is not finite."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, Matern, WhiteKernel

        if not len(values) or not np.isfinite(values).all():
            raise ValueError("a surrogate needs values, all finite")
        mean = latents.mean(axis=0)
        scale = float(np.linalg.norm(latents - mean, axis=1).mean()) or 1.0
        linear = ConstantKernel(1.0, (1e-3, 1e3)) * DotProduct(0.0, "fixed")
        smooth = ConstantKernel(1.0, (1e-3, 1e3)) * Matern(1.0, (0.1, 10.0), nu=2.5)
        kernel = linear + smooth + WhiteKernel(0.1, (1e-4, 1.0))
        process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # of sizes at their bounds
            process.fit((latents - mean) / scale, values)
        return cls(process, latents, values, mean, scale)

    def with_values(self, latents: Array, values: Array) -> Surrogate:
        """Return the process given more values, without fitting its sizes again."""
        from sklearn.base import clone

        process = clone(self.process)
        process.set_params(kernel=self.process.kernel_, optimizer=None)
        latents, values = np.concatenate([self.latents, latents]), np.concatenate([self.values, values])
        process.fit((latents - self.mean) / self.scale, values)
        return Surrogate(process, latents, values, self.mean, self.scale)

    def predict(self, latents: Array) -> tuple[Array, Array]:
        """Return the expected value [M] of latents [M, D] and its standard deviation [M]."""
        mean, deviation = self.process.predict((latents - self.mean) / self.scale, return_std=True)
        return np.asarray(mean), np.asarray(deviation)

    def expected_improvement(self, latents: Array) -> Array:
        """Return E[max(value - best, 0)] [M] of latents [M, D], best being the largest expected value so far."""
        from scipy.stats import norm  # takes most of a second to import

        mean, deviation = self.predict(latents)
        deviation = np.maximum(deviation, 1e-12)
        gain = mean - self.predict(self.latents)[0].max()
        return np.asarray(gain * norm.cdf(gain / deviation) + deviation * norm.pdf(gain / deviation))
