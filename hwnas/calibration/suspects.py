"""Find readings that contradict the others: of another unit, batch size or device, or two of one architecture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.calibration.design_matrix import not_negative
from hwnas.calibration.regression import Prior, fit_posterior
from hwnas.cost.model import Array
from hwnas.spaces import SearchSpace
from hwnas.text import plural, short_number

BROKEN = 0.05  # of the median: a lower reading is no latency
MOST_BROKEN = 0.1  # share of such readings that a device with some failed measurements has
GAP = 8.0  # between neighbouring readings, each relative to what the prior expects: two groups
FAR = 30.0  # from a group's median: another group too, as failed measurements can fill a gap
UNITS = (60.0, 1e3, 3.6e3, 6e4, 1e6, 1e9)  # ratios of units of time
NEAR = 1.5  # factor within which a ratio is taken for one of UNITS
LEAST_SMALL = 3  # readings that are too small by the ratio of two units: single ones are failed measurements by chance
APART = 2.0  # factor by which two readings of one architecture contradict each other
LEAST_EXPECTED = 0.05  # of the mean latency: a lower expectation is not used
CERTAIN = 1e-3  # probability by chance below which a rank correlation counts


@dataclass(frozen=True)
class Suspects:
    """``reasons`` to doubt the readings, one sentence each.

    Where the readings fall into groups, ``predicted_ms`` [N] is what the largest group predicts of all networks.
    """

    reasons: list[str]
    predicted_ms: Array | None


def find_suspects(space: SearchSpace, design: Array, macs: Array, latency_ms: Array, prior: Prior) -> Suspects:
    """Check the latencies [N] of networks against each other, before anything is fitted to all of them.

    ``design`` [N, F] is the networks' design matrix, ``macs`` [N] their multiply-accumulates. Readings below 5 % of the
    median count as failed measurements, unless they are more than a tenth of all, or three or more that are apart from
    the others by the ratio of two units.
    """
    expected = np.maximum(design @ prior.mean, LEAST_EXPECTED)
    groups = _groups(np.log(latency_ms / expected))
    usual = max(groups, key=len)
    reasons, predicted = [], None
    if len(groups) > 1:
        posterior = fit_posterior(design[usual], latency_ms[usual], prior, not_negative(space))
        least = LEAST_EXPECTED * float(np.median(latency_ms[usual]))
        predicted = np.maximum(design @ posterior.mean, least)
        others = [group for group in groups if group is not usual]
        described = [_describe(latency_ms, predicted, group, len(usual)) for group in others]
        reasons = [reason for reason in described if reason]
    else:
        reasons = _inverse(macs, latency_ms)
    reasons += _contradictions(design[usual], latency_ms[usual])
    return Suspects(reasons, predicted)


def _groups(logs: Array) -> list[NDArray[np.intp]]:
    """Return the indices of the readings: split where neighbours are further apart than GAP, and each of these groups
    where readings are FAR from its median.
    """
    order = np.argsort(logs, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(logs[order]) > np.log(GAP)) + 1)
    return [part for group in groups for part in _without_far(logs, group) if len(part)]


def _without_far(logs: Array, group: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    far = np.median(logs[group]) + np.log(FAR) * np.array([-1, 1])
    return np.split(group, np.searchsorted(logs[group], far))


def _describe(latency_ms: Array, predicted_ms: Array, group: NDArray[np.intp], usual: int) -> str:
    """Return a sentence on a group of readings that the ``usual`` ones contradict; empty for failed measurements."""
    logs = np.log(latency_ms[group] / predicted_ms[group])
    ratio = float(np.exp(np.median(logs)))
    size, large = max(ratio, 1 / ratio), ratio > 1
    unit = min(UNITS, key=lambda factor: abs(np.log(size / factor)))
    near = np.abs(np.abs(logs) - np.log(unit)) < np.log(NEAR)
    is_unit = bool(np.mean(near) >= 0.8)
    failed = np.all(latency_ms[group] <= BROKEN * np.median(latency_ms)) and len(group) <= MOST_BROKEN * len(latency_ms)
    if failed and not (is_unit and len(group) >= LEAST_SMALL):
        return ""
    factor = f"{unit:.0f}" if is_unit else f"about {short_number(size)}"
    guess = "another unit?" if is_unit else "another batch size or device, or a failed measurement?"
    looks = "reading looks" if len(group) == 1 else "readings look"
    return f"{len(group)} {looks} {factor} times too {'large' if large else 'small'} for the other {usual}: {guess}"


def _inverse(macs: Array, latency_ms: Array) -> list[str]:
    from scipy.stats import kendalltau  # takes most of a second to import

    found = kendalltau(macs, latency_ms)
    if found.statistic < 0 and found.pvalue < CERTAIN:
        return ["networks with more multiply-accumulates take less time: are these images per second?"]
    return []


def _contradictions(design: Array, latency_ms: Array) -> list[str]:
    """Return a sentence on the architectures that occur with unlike readings."""
    _, same = np.unique(design, axis=0, return_inverse=True)
    readings = [latency_ms[same.ravel() == number] for number in range(int(same.max()) + 1)]
    apart = [(min(own), max(own)) for own in readings if max(own) > APART * min(own)]
    if not apart:
        return []
    least, most = max(apart, key=lambda pair: pair[1] / pair[0])
    return [
        f"{plural(len(apart), 'architecture')} listed more than once with readings more than {APART:g} times apart, "
        f"such as {least:.4g} and {most:.4g} ms"
    ]
