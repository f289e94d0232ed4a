"""From visits to latencies: the machine's drift divided out, slopes over repetitions, the fit from sums to networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.profiling.session import SENTINEL_NAME, Visit, names_by_round
from hwnas.tables.schema import Additivity, Correction

STATISTIC = "median over rounds of the least time of a visit, divided by the sentinel's drift"
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Timings:
    """Drift-corrected milliseconds of every model, one a round, in the machine's median state.

    ``sentinel_ms`` is the sentinel's own median; ``drift`` how far it moved: its 90th over its 10th percentile, less 1.
    """

    rounds_ms: dict[str, Array]
    raw_median_ms: dict[str, float]
    sentinel_ms: float
    drift: float


def correct_drift(visits: Sequence[Visit], reference_ms: float | None = None) -> Timings:
    """Divide every reading by what the sentinels around it say of the machine at that moment.

    Each sentinel reading is smoothed with its two neighbours; between them the state is interpolated. Times are those
    of the state in which the sentinel takes ``reference_ms``: by default its median over these visits.
    """
    where = names_by_round(visits)
    at = np.array(where[SENTINEL_NAME], dtype=float)
    readings = np.array([visits[number].min_ms for number in where[SENTINEL_NAME]])
    median = float(np.median(readings))
    reference = reference_ms or median
    smooth = np.array([np.median(readings[max(0, i - 1) : i + 2]) for i in range(len(readings))])
    state = np.interp(np.arange(len(visits)), at, smooth / reference)
    rounds_ms = {
        name: np.array([visits[number].min_ms / state[number] for number in numbers])
        for name, numbers in where.items()
        if name != SENTINEL_NAME
    }
    raw = {name: float(np.median([visits[number].median_ms for number in numbers])) for name, numbers in where.items()}
    drift = float(np.percentile(readings, 90) / np.percentile(readings, 10) - 1)
    return Timings(rounds_ms, raw, median, drift)


@dataclass(frozen=True)
class Slope:
    """Milliseconds one copy of a workload takes: its median and spread over rounds.

    ``relative_error`` is the half width of the median's 95 % interval over the median (McGill et al. 1978: 1.57 IQR
    over the square root of the samples).
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    samples: int
    relative_iqr: float

    @property
    def relative_error(self) -> float:
        return float(1.57 * self.relative_iqr / np.sqrt(self.samples))


def slope(few_ms: Array, many_ms: Array, copies: int) -> Slope:
    """The latency of one copy, from rounds of a model with few and rounds of one with ``copies`` more of them."""
    by_round = (many_ms - few_ms) / copies
    median = float((np.median(many_ms) - np.median(few_ms)) / copies)
    quartiles = np.percentile(by_round, [25, 75])
    p10, p90 = np.percentile(by_round, [10, 90])
    spread = float((quartiles[1] - quartiles[0]) / median) if median > 0 else float("inf")
    return Slope(median, float(p10), float(p90), len(by_round), spread)


def fit_correction(sums_ms: Array, measured_ms: Array) -> Correction:
    """offset_ms and scale that minimise the relative squared error of offset_ms + scale * sum."""
    from scipy.optimize import lsq_linear

    design = np.stack([np.ones_like(sums_ms), sums_ms], axis=1) / measured_ms[:, None]
    bounds = (np.array([-np.inf, 0.1]), np.array([np.inf, 10.0]))
    solution = lsq_linear(design, np.ones_like(measured_ms), bounds=bounds).x
    return Correction(offset_ms=float(solution[0]), scale=float(solution[1]), networks=len(sums_ms))


def report_additivity(predicted_ms: Array, rounds_ms: Sequence[Array]) -> Additivity:
    """Compare predictions with networks timed end to end that no fit has seen.

    The floor compares the median over even rounds with that over odd rounds of the same network.
    """
    from scipy.stats import kendalltau

    measured = np.array([np.median(rounds) for rounds in rounds_ms])
    error = predicted_ms / measured - 1
    halves = np.array([np.median(rounds[::2]) / np.median(rounds[1::2]) - 1 for rounds in rounds_ms])
    tau = float(kendalltau(predicted_ms, measured).statistic)
    return Additivity(
        networks=len(measured),
        mape=float(100 * np.mean(np.abs(error))),
        within_5_percent=float(np.mean(np.abs(error) <= 0.05)),
        within_10_percent=float(np.mean(np.abs(error) <= 0.10)),
        kendall_tau=tau if np.isfinite(tau) else None,
        worst=float(100 * np.max(np.abs(error))),
        bias=float(100 * np.mean(error)),
        floor=float(100 * np.mean(np.abs(halves))),
    )
