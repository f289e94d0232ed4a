"""From visits to latencies: drift divided out, processes compared, slopes over repetitions, their errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.profiling.names import SENTINEL_NAME, is_network
from hwnas.profiling.session import Recording, Visit
from hwnas.tables.schema import Additivity

STATISTIC = (
    "median over processes of the 20th percentile of visits' least times, in the machine's fast state (likewise)"
)
FAST = 20  # percentile of visits and of the machine's states that counts: slow ones, a neighbour's doing, repeat less
MANY = 10  # models, of which one more or less does not matter
WAITED = 0.1  # a visit that had to wait for a processor for a larger share of its time is not used
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Readings:
    """Milliseconds of every model, in the machine's fast state (or in that of a reference).

    ``passes[model]`` is one value a process [P], NaN where it has none; ``rounds[model]`` all single readings.
    ``sentinel_ms`` is the sentinel's own latency in that fast state; ``drift`` how far it moved: its 90th over its 10th
    percentile, less 1; ``waited`` the share of visits that had to wait for a processor.
    """

    passes: dict[str, Array]
    rounds: dict[str, Array]
    sentinel_ms: float
    drift: float
    waited: float


def read(recordings: Sequence[Recording], reference_ms: float | None = None) -> Readings:
    """Bring all readings to one state of the machine.

    Inside a process every reading is divided by what the sentinels around it say of the machine at that moment.
    Between processes the common factor is divided out: where a process lies in memory, and the machine's slow drift,
    move all models together, and many models tell it better than one sentinel (Tukey's median polish of logarithms).
    So is what whole networks have in common in a process, and repeated workloads do not.
    With ``reference_ms`` times are scaled to the state in which the sentinel takes that long.
    """
    found: dict[str, list[list[float]]] = {}
    for number, recording in enumerate(recordings):
        for visit, state in zip(recording.visits, _states(recording.visits), strict=True):
            values = found.setdefault(visit.model, [[] for _ in recordings])
            if visit.waited <= WAITED:
                values[number].append(visit.min_ms / state)
    passes = {
        name: np.array([np.percentile(values, FAST) if values else np.nan for values in by_pass])
        for name, by_pass in found.items()
    }
    level = _levels(_telling(passes), FAST)
    sentinels = np.array([v.min_ms for recording in recordings for v in recording.visits if v.model == SENTINEL_NAME])
    by_pass = passes[SENTINEL_NAME] / level
    fast_ms = float(np.nanmedian(by_pass)) if np.isfinite(by_pass).any() else float("nan")
    scale = reference_ms / fast_ms if reference_ms else 1.0
    networks = np.array([values / level for name, values in passes.items() if is_network(name)])
    # Of a few it could not be told from what is each one's own.
    own = {True: level * _levels(networks, 50) if len(networks) >= MANY else level, False: level}
    rounds = {
        name: np.concatenate([np.array(values) / at for values, at in zip(by_pass, own[is_network(name)], strict=True)])
        for name, by_pass in found.items()
    }
    visits = [visit for recording in recordings for visit in recording.visits]
    return Readings(
        passes={name: values / own[is_network(name)] * scale for name, values in passes.items()},
        rounds={name: values * scale for name, values in rounds.items()},
        sentinel_ms=fast_ms,
        drift=float(np.percentile(sentinels, 90) / np.percentile(sentinels, 10) - 1),
        waited=float(np.mean([visit.waited > WAITED for visit in visits])),
    )


def _states(visits: Sequence[Visit]) -> Array:
    """How slow the machine was at each visit, relative to the whole: sentinels smoothed over three, interpolated."""
    at = [number for number, visit in enumerate(visits) if visit.model == SENTINEL_NAME]
    readings = np.array([visits[number].min_ms for number in at])
    smooth = np.array([np.median(readings[max(0, i - 1) : i + 2]) for i in range(len(readings))])
    return np.interp(np.arange(len(visits)), at, smooth / np.percentile(readings, FAST))


def _telling(passes: dict[str, Array]) -> Array:
    """What tells how slow each process was: all but whole networks, or the sentinel alone where these are few.

    Divided by a level that is mostly its own, a model would seem to repeat better than it does.
    """
    names = [name for name in passes if not is_network(name)]
    values = np.array([passes[name] for name in names])
    few = (~np.isnan(values)).sum(axis=0) < MANY
    others = np.array([name != SENTINEL_NAME for name in names])
    values[np.ix_(others, few)] = np.nan
    return values


def _levels(values: Array, percentile: float) -> Array:
    """The factor [P] by which each process was slower than that percentile of them, from ``values`` [models, P]."""
    read = ~np.isnan(values)
    logs = np.log(values[read.any(axis=1)][:, read.any(axis=0)])
    levels, found = np.zeros(values.shape[1]), np.zeros(logs.shape[1])
    if logs.size:
        for _ in range(10):
            found = np.nanmedian(logs - np.nanmedian(logs - found, axis=1)[:, None], axis=0)
        levels[read.any(axis=0)] = found - np.percentile(found, percentile)
    return np.asarray(np.exp(levels))


@dataclass(frozen=True)
class Estimate:
    """A latency and the half width of its 95 % interval over processes; infinite when fewer than two agree on one."""

    latency_ms: float
    error_ms: float


def estimate(values_ms: Array) -> Estimate:
    """The median over processes; NaN marks those without a value."""
    values = values_ms[~np.isnan(values_ms)]
    if not len(values):
        return Estimate(float("nan"), float("inf"))
    return Estimate(float(np.median(values)), half_interval(values) if len(values) > 1 else float("inf"))


def half_interval(values: Array) -> float:
    """The half width of the 95 % interval (Student's t) of the mean of independent readings."""
    return float(interval_factor(len(values)) * values.std(ddof=1))


def interval_factor(readings: int) -> float:
    """What the standard deviation of so many readings is multiplied with for that half width."""
    from scipy.stats import t

    return float(t.ppf(0.975, readings - 1) / np.sqrt(readings))


def slope(readings: Readings, few: str, many: str, copies: int) -> Estimate:
    """The latency of one copy, from a model with few and one with ``copies`` more of them."""
    return estimate((readings.passes[many] - readings.passes[few]) / copies)


def spread(readings: Readings, few: str, many: str, copies: int) -> tuple[float, float]:
    """10th and 90th percentile of single readings of the slope, milliseconds."""
    length = min(len(readings.rounds[few]), len(readings.rounds[many]))
    singles = (readings.rounds[many][:length] - readings.rounds[few][:length]) / copies
    return float(np.percentile(singles, 10)), float(np.percentile(singles, 90))


def report(predicted_ms: Array, passes_ms: Sequence[Array]) -> Additivity:
    """Compare predictions with networks timed end to end that no fit has seen.

    The floor compares the median over even processes with that over odd ones of the same network.
    """
    from scipy.stats import kendalltau

    measured = np.array([np.nanmedian(passes) for passes in passes_ms])
    error = predicted_ms / measured - 1
    halves = np.array([_halves(passes) for passes in passes_ms])
    tau = float(kendalltau(predicted_ms, measured).statistic)
    return Additivity(
        networks=len(measured),
        mape=float(100 * np.mean(np.abs(error))),
        within_5_percent=float(np.mean(np.abs(error) <= 0.05)),
        within_10_percent=float(np.mean(np.abs(error) <= 0.10)),
        kendall_tau=tau if np.isfinite(tau) else None,
        worst=float(100 * np.max(np.abs(error))),
        bias=float(100 * np.mean(error)),
        floor=None if np.isnan(halves).all() else float(100 * np.nanmean(np.abs(halves))),
    )


def _halves(passes_ms: Array) -> float:
    values = passes_ms[~np.isnan(passes_ms)]
    return float(np.median(values[::2]) / np.median(values[1::2]) - 1) if len(values) > 1 else float("nan")
