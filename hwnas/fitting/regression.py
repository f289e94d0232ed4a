"""Bayesian linear regression of latencies, robust to broken readings, with a prior whose width the data decide.

    y_i = x_i b + e_i,   b ~ N(s m, s^2 (k C + t^2 m m')),   e_i ~ Student's t, its scale a share of x_i b

``m`` and ``C`` are the prior of a device whose mean latency is 1, ``s`` this device's, not known (t). ``k`` says how
much less alike it is than the prior's devices are to each other: it is what the evidence of the data and a log-normal
prior of its own make of it, averaged over a grid. The t distribution is a normal one of unknown weight (Lange, Little &
Taylor, J. Am. Stat. Assoc. 84, 1989): expectation maximisation alternates between weights and b. Its scale is averaged
over as well: ten readings hardly tell it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, lsq_linear
from scipy.stats import t

Array = NDArray[np.float64]

DEGREES_OF_FREEDOM = 4.0
SCALE_SPREAD = 0.5  # t above
WIDTHS = np.geomspace(0.25, 64.0, 9)  # k above …
WIDTH_SPREAD = 1.5  # … and how far its logarithm is expected to be from 0
MANY = 10  # measurements a cost: then the prior matters no more
SHARES = np.geomspace(0.35, 3.0, 7)  # scales of the t distribution that are looked at, times the most probable one
SCATTER_SHARE, SCATTER_SPREAD = 0.04, 1.0  # where nothing is known of that scale; the deviation of its logarithm
WIDENED = 1.1  # with few measurements; without it intervals of devices left out of a pool were too narrow
LEAST_PREDICTION = 0.2  # of the median latency: what scatters by a share of itself scatters by that much at the least
STEPS = 12


@dataclass(frozen=True)
class Prior:
    """Edge costs of devices as a family: ``mean`` [F] and ``covariance`` [F, F] with the mean latency of a network as
    the unit, the share of itself by which a latency timed once usually scatters and the deviation of its logarithm, and
    whose tables it was made from.
    """

    mean: Array
    covariance: Array
    scatter_share: float = SCATTER_SHARE
    scatter_spread: float = SCATTER_SPREAD
    pool: tuple[str, ...] = ()


@dataclass(frozen=True)
class Posterior:
    """Edge costs of one device, in ms: ``mean`` [F], ``covariance`` [F, F], and how single latencies scatter."""

    mean: Array
    covariance: Array
    scatter_ms: float
    scatter_share: float
    degrees_of_freedom: float = DEGREES_OF_FREEDOM


def fit_posterior(design: Array, latency_ms: Array, prior: Prior, not_negative: NDArray[np.bool_]) -> Posterior:
    """Edge costs from ``design`` [N, F] and the latencies [N] of the same networks.

    ``not_negative`` [F] are those that cannot be below 0. (What is paid always is paid beside ``none``, which can cost
    something itself: torch fills a tensor with zeros.)
    """
    guess = float(np.median(latency_ms / np.maximum(design @ prior.mean, 1e-3)))
    y, rounding = latency_ms / guess, rounding_ms(latency_ms) / guess
    found = []
    for width in WIDTHS if len(y) < MANY * design.shape[1] else WIDTHS[-1:]:
        best = _iterate(design, y, prior, width, rounding, None)
        found += [_iterate(design, y, prior, width, rounding, best.share * factor) for factor in SHARES]
    evidence = np.array([fit.evidence for fit in found])
    weights = np.exp(evidence - evidence.max())
    weights /= weights.sum()
    mean = np.einsum("k,kf->f", weights, np.stack([fit.mean for fit in found]))
    apart = np.stack([fit.mean - mean for fit in found])
    within: Array = np.einsum("k,kfg->fg", weights, np.stack([fit.covariance for fit in found]))
    covariance = within + np.einsum("k,kf,kg->fg", weights, apart, apart)
    covariance = (covariance + covariance.T) / 2
    share = _mixed_share(weights, np.array([fit.share for fit in found]))
    if len(y) < MANY * design.shape[1]:
        share *= WIDENED
    if (mean[not_negative] < 0).any():
        mean = _nearest(mean, covariance, np.where(not_negative, 0.0, -np.inf))
    return Posterior(mean * guess, covariance * guess**2, rounding * guess, share)


@dataclass(frozen=True)
class _Fit:
    mean: Array
    covariance: Array
    share: float
    evidence: float


def _iterate(design: Array, y: Array, prior: Prior, width: float, rounding: float, given: float | None) -> _Fit:
    """Costs for one width and one scale of the scatter, or the scale that makes the readings most probable."""
    m = prior.mean
    covariance: Array = width * prior.covariance + SCALE_SPREAD**2 * np.outer(m, m)
    precision, volume = np.linalg.inv(covariance), _log_det(covariance)
    least = LEAST_PREDICTION * float(np.median(y))
    predicted, weights, share = np.maximum(y, least), np.ones(len(y)), given or prior.scatter_share
    for _ in range(STEPS):
        scale2 = (share * predicted) ** 2 + rounding**2
        weighted = design * (weights / scale2)[:, None]
        covariance = np.asarray(np.linalg.inv(precision + weighted.T @ design), dtype=np.float64)
        mean = covariance @ (precision @ m + weighted.T @ y)
        predicted = np.maximum(design @ mean, least)
        residual2 = (y - design @ mean) ** 2
        weights = (DEGREES_OF_FREEDOM + 1) / (DEGREES_OF_FREEDOM + residual2 / scale2)
        if given is None:
            unknown = np.einsum("ij,jk,ik->i", design, covariance, design)
            told = np.mean(weights * (residual2 + unknown) / (predicted**2 + (rounding / share) ** 2))
            share = float(np.clip(np.sqrt(told), prior.scatter_share / 30, 10.0))
    scale2 = (share * predicted) ** 2 + rounding**2
    off = mean - m
    misfit = np.sum(weights * residual2 / scale2) + off @ precision @ off
    evidence = -0.5 * (misfit + np.sum(np.log(scale2 / weights)) + volume - _log_det(covariance))
    evidence += DEGREES_OF_FREEDOM / 2 * np.sum(np.log(weights) - weights)
    evidence -= 0.5 * (np.log(width) / WIDTH_SPREAD) ** 2
    evidence -= 0.5 * (np.log(share / prior.scatter_share) / prior.scatter_spread) ** 2
    return _Fit(mean, covariance, share, float(evidence))


def _mixed_share(weights: Array, shares: Array) -> float:
    """The scale of the t distribution whose 90 % interval is that of the mixture."""

    def outside(interval: float) -> float:
        return float(weights @ t.cdf(interval / shares, DEGREES_OF_FREEDOM)) - 0.95

    usual = t.ppf(0.95, DEGREES_OF_FREEDOM)
    return float(brentq(outside, 0.9 * usual * shares.min(), 1.1 * usual * shares.max()) / usual)


def _nearest(mean: Array, covariance: Array, lower: Array) -> Array:
    """The most probable costs that are not below ``lower``."""
    variances, directions = np.linalg.eigh(covariance)
    # Directions that are known to the last digit must not overflow.
    root = directions.T / np.sqrt(np.maximum(variances, 1e-12 * variances[-1]))[:, None]
    return np.asarray(lsq_linear(root, root @ mean, bounds=(lower, np.inf)).x)


def _log_det(matrix: Array) -> float:
    return float(np.linalg.slogdet(matrix)[1])


def rounding_ms(latency_ms: Array) -> float:
    """The standard deviation of rounding where all readings are whole milliseconds, else 0."""
    return float(1 / np.sqrt(12)) if np.all(latency_ms == np.round(latency_ms)) else 0.0
