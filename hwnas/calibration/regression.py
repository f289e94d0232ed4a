"""Bayesian linear regression of latencies, robust to broken readings, with a prior whose width is inferred.

    y_i = x_i b + e_i,   b ~ N(s m, s^2 (k C + t^2 m m')),   e_i ~ Student's t, its scale a share of x_i b

``m`` and ``C`` are the prior of a device whose mean latency is 1; ``s`` is this device's unknown mean latency, with
deviation t. ``k`` is the width of the prior: the device may differ from the prior's devices more than they differ from
each other. It has a log-normal prior, and the result is averaged over a grid of widths by their evidence. A prior may
consist of several hypotheses with an ``m`` and a ``C`` of their own; the average is then over these, too. The t
distribution is a normal one of unknown weight (Lange, Little & Taylor, J. Am. Stat. Assoc. 84, 1989): expectation
maximisation alternates between weights and b. The result is averaged over the scale of the t distribution, too, which
ten readings hardly determine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, lsq_linear
from scipy.special import stdtr, stdtrit

Array = NDArray[np.float64]

DEGREES_OF_FREEDOM = 4.0
SCALE_SPREAD = 0.5  # t above
WIDTHS = np.geomspace(0.25, 64.0, 9)  # k above …
WIDTH_SPREAD = 1.5  # … and the deviation of its logarithm
MANY = 10  # measurements for each cost, from which on the prior no longer matters
SHARES = np.geomspace(0.35, 3.0, 7)  # scales of the t distribution in the average, times the most probable one
SCATTER_SHARE, SCATTER_SPREAD = 0.04, 1.0  # prior of that scale; the deviation of its logarithm
WIDENED = 1.1  # with few measurements; without it intervals of devices left out of a pool were too narrow
LEAST_PREDICTION = 0.2  # share of the median latency below which predictions do not lower the scatter
STEPS = 12
RANK = 1e-9  # singular values of the design matrix below this share of the largest are 0
AT_ONCE = 2**23  # numbers in all designs that are fitted together


@dataclass(frozen=True)
class Hypothesis:
    """A kind of device: edge costs of ``mean`` [F] and ``covariance`` [F, F], and the probability of being of it."""

    mean: Array
    covariance: Array
    probability: float = 1.0


@dataclass(frozen=True)
class Prior:
    """The distribution of edge costs over devices: ``mean`` [F] and ``covariance`` [F, F] in units of the mean latency.

    A mixture of ``hypotheses`` has their mean and covariance; without hypotheses the distribution is normal.
    ``scatter_share`` is the relative scatter of single latencies, ``scatter_spread`` the deviation of its logarithm.
    ``pool`` names the devices that the prior was made from; ``notes`` are lines on those that know other networks only.
    """

    mean: Array
    covariance: Array
    scatter_share: float = SCATTER_SHARE
    scatter_spread: float = SCATTER_SPREAD
    pool: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    hypotheses: tuple[Hypothesis, ...] = ()


def mixture(hypotheses: Sequence[Hypothesis]) -> Prior:
    """Return the prior of these hypotheses, whose probabilities add up to 1."""
    mean: Array = np.sum([h.probability * h.mean for h in hypotheses], axis=0)
    covariance: Array = np.sum(
        [h.probability * (h.covariance + np.outer(h.mean - mean, h.mean - mean)) for h in hypotheses], axis=0
    )
    return Prior(mean, covariance, hypotheses=tuple(hypotheses))


@dataclass(frozen=True)
class Posterior:
    """Edge costs of one device in ms: ``mean`` [F], ``covariance`` [F, F], and the scatter of single latencies."""

    mean: Array
    covariance: Array
    scatter_ms: float
    scatter_share: float
    degrees_of_freedom: float = DEGREES_OF_FREEDOM


def fit_posterior(design: Array, latency_ms: Array, prior: Prior, not_negative: NDArray[np.bool_]) -> Posterior:
    """Fit edge costs to ``design`` [N, F] and the latencies [N] of the same networks.

    ``not_negative`` [F] marks the costs that cannot be below 0. The costs of all edges can, because they are relative
    to ``none``, which has a cost of its own in torch (it fills a tensor with zeros).
    """
    guess = float(np.median(latency_ms / np.maximum(design @ prior.mean, 1e-3)))
    y, rounding = latency_ms / guess, rounding_ms(latency_ms) / guess
    few = len(y) < MANY * design.shape[1]
    whitened = _whiten(design, prior, WIDTHS if few else WIDTHS[-1:])
    every = np.arange(len(whitened.width))
    scales = np.outer(_fits(whitened, every, y, prior, rounding, None).share, SHARES).ravel()
    found = _fits(whitened, np.repeat(every, len(SHARES)), y, prior, rounding, scales)
    weights = np.exp(found.evidence - found.evidence.max())
    weights /= weights.sum()
    means = whitened.mean[found.case]
    for case, back in enumerate(whitened.back):
        means[found.case == case] += found.z[found.case == case] @ back.T
    mean = weights @ means
    apart = means - mean
    covariance: Array = apart.T @ (weights[:, None] * apart)
    for case, back in enumerate(whitened.back):
        mine = np.where(found.case == case, weights, 0)
        observed = np.tensordot(mine, found.covariance, 1) - mine.sum() * np.eye(back.shape[1])
        covariance += mine.sum() * whitened.covariance(case) + back @ observed @ back.T
    covariance = (covariance + covariance.T) / 2
    share = _mixed_share(weights, found.share)
    if few:
        share *= WIDENED
    if (mean[not_negative] < 0).any():
        mean = _nearest(mean, covariance, np.where(not_negative, 0.0, -np.inf))
    return Posterior(mean * guess, covariance * guess**2, rounding * guess, share)


@dataclass(frozen=True)
class _Whitened:
    """The regression for P pairs of a hypothesis and a width, in R unknowns z with a standard normal prior.

    R is the rank of the design matrix. b = ``mean`` + ``back`` z + a part that no reading depends on. The networks'
    latencies are ``expected`` + ``design`` @ z. ``log_prior`` is the logarithm of a pair's prior probability. Shapes of
    the arrays: [P], [P], [P, F], [P, N], [P, N, R], [P, F, R].
    """

    hypotheses: tuple[Hypothesis, ...]
    width: Array
    log_prior: Array
    mean: Array
    expected: Array
    design: Array
    back: Array

    def covariance(self, case: int) -> Array:
        """Return the prior covariance [F, F] of a pair, with that of the speed."""
        each = len(self.width) // len(self.hypotheses)
        return _with_speed(self.hypotheses[case // each], float(self.width[case]))


def _whiten(design: Array, prior: Prior, widths: Array) -> _Whitened:
    # Where there are more readings than costs, what the device is like no longer matters.
    normal = (Hypothesis(prior.mean, prior.covariance),)
    hypotheses = (prior.hypotheses or normal) if len(design) < design.shape[1] else normal
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    rank = int(np.sum(sizes > RANK * sizes[0]))
    left, seen = left[:, :rank], sizes[:rank, None] * right[:rank]
    roots, backs = zip(*(_roots(seen, hypothesis, widths) for hypothesis in hypotheses), strict=True)
    log_prior = -0.5 * (np.log(widths) / WIDTH_SPREAD) ** 2
    return _Whitened(
        hypotheses=hypotheses,
        width=np.tile(widths, len(hypotheses)),
        log_prior=np.concatenate([np.log(h.probability) + log_prior for h in hypotheses]),
        mean=np.repeat([h.mean for h in hypotheses], len(widths), axis=0),
        expected=np.repeat([design @ h.mean for h in hypotheses], len(widths), axis=0),
        design=left @ np.concatenate(roots),
        back=np.concatenate(backs),
    )


def _roots(seen: Array, hypothesis: Hypothesis, widths: Array) -> tuple[Array, Array]:
    """Return for each width the root [R, R] of the covariance of ``seen`` @ b, where ``seen`` is [R, F], and b's part
    that depends on it, [F, R].
    """
    m, width = hypothesis.mean, widths[:, None, None]
    expected, with_costs = seen @ m, hypothesis.covariance @ seen.T
    between = width * (seen @ with_costs) + SCALE_SPREAD**2 * np.outer(expected, expected)
    root: Array = np.asarray(np.linalg.cholesky(between), dtype=np.float64)
    costs = width * with_costs + SCALE_SPREAD**2 * np.outer(m, expected)
    return root, np.asarray(np.linalg.solve(root, costs.swapaxes(1, 2)).swapaxes(1, 2), dtype=np.float64)


def _with_speed(hypothesis: Hypothesis, width: float) -> Array:
    return width * hypothesis.covariance + SCALE_SPREAD**2 * np.outer(hypothesis.mean, hypothesis.mean)


@dataclass(frozen=True)
class _Fits:
    """K fits: index of the pair, z [K, R] with its covariance [K, R, R], scale, and log evidence."""

    case: NDArray[np.intp]
    z: Array
    covariance: Array
    share: Array
    evidence: Array


def _fits(
    whitened: _Whitened, case: NDArray[np.intp], y: Array, prior: Prior, rounding: float, given: Array | None
) -> _Fits:
    """Fit for each index in ``case``, with the scales of the scatter ``given`` or the most probable ones.

    Fits are batched up to AT_ONCE numbers.
    """
    size = max(AT_ONCE // whitened.design[0].size, 1)
    parts = [
        _iterate(whitened, case[i : i + size], y, prior, rounding, None if given is None else given[i : i + size])
        for i in range(0, len(case), size)
    ]
    return _Fits(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(_Fits)))


def _iterate(
    whitened: _Whitened, case: NDArray[np.intp], y: Array, prior: Prior, rounding: float, given: Array | None
) -> _Fits:
    design, one = whitened.design[case], np.eye(whitened.design.shape[2])
    least, expected = LEAST_PREDICTION * float(np.median(y)), whitened.expected[case]
    shape = len(case), len(y)
    predicted, weights = np.broadcast_to(np.maximum(y, least), shape), np.ones(shape)
    share = np.full(len(case), prior.scatter_share) if given is None else given
    for _ in range(STEPS):
        scale2 = (share[:, None] * predicted) ** 2 + rounding**2
        weighted = (design * (weights / scale2)[:, :, None]).swapaxes(1, 2)
        precision = one + weighted @ design
        covariance = np.linalg.inv(precision)
        z = covariance @ (weighted @ (y - expected)[:, :, None])
        found = expected + (design @ z)[:, :, 0]
        predicted = np.maximum(found, least)
        residual2 = (y - found) ** 2
        weights = (DEGREES_OF_FREEDOM + 1) / (DEGREES_OF_FREEDOM + residual2 / scale2)
        if given is None:
            unknown = np.sum((design @ covariance) * design, axis=2)
            ratios = weights * (residual2 + unknown) / (predicted**2 + (rounding / share[:, None]) ** 2)
            share = np.clip(np.sqrt(ratios.mean(axis=1)), prior.scatter_share / 30, 10.0)
    scale2 = (share[:, None] * predicted) ** 2 + rounding**2
    misfit = np.sum(weights * residual2 / scale2, axis=1) + np.sum(z**2, axis=(1, 2))
    evidence = -0.5 * (misfit + np.sum(np.log(scale2 / weights), axis=1) + np.linalg.slogdet(precision)[1])
    evidence += DEGREES_OF_FREEDOM / 2 * np.sum(np.log(weights) - weights, axis=1)
    evidence += whitened.log_prior[case]
    evidence -= 0.5 * (np.log(share / prior.scatter_share) / prior.scatter_spread) ** 2
    return _Fits(case, z[:, :, 0], covariance, share, evidence)


def _mixed_share(weights: Array, shares: Array) -> float:
    """Return the scale of the t distribution that has the 90 % interval of the mixture."""

    def outside(interval: float) -> float:
        return float(weights @ stdtr(DEGREES_OF_FREEDOM, interval / shares)) - 0.95

    usual = stdtrit(DEGREES_OF_FREEDOM, 0.95)
    return float(brentq(outside, 0.9 * usual * shares.min(), 1.1 * usual * shares.max()) / usual)


def _nearest(mean: Array, covariance: Array, lower: Array) -> Array:
    """Return the most probable costs that are not below ``lower``."""
    variances, directions = np.linalg.eigh(covariance)
    # Directions of vanishing variance must not overflow.
    root = directions.T / np.sqrt(np.maximum(variances, 1e-12 * variances[-1]))[:, None]
    return np.asarray(lsq_linear(root, root @ mean, bounds=(lower, np.inf)).x)


def rounding_ms(latency_ms: Array) -> float:
    """Return the standard deviation of rounding where all readings are whole milliseconds, else 0."""
    return float(1 / np.sqrt(12)) if np.all(latency_ms == np.round(latency_ms)) else 0.0
