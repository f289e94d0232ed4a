"""Compute latencies from runs: divide out drift, compare processes, take slopes over repetitions, with errors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hwnas.calibration.accuracy import held_out_accuracy
from hwnas.profiling.names import SENTINEL_NAME, is_network
from hwnas.profiling.protocol import JobValues, Run
from hwnas.tables.schema import Additivity

STATISTIC = (
    "median over processes of the 20th percentile of visits' least times, in the machine's fast state (likewise)"
)
FAST = 20  # the percentile of runs and of the machine's states that is used: slow ones, due to others, repeat less
MANY = 10  # models: so many that one more or less does not matter
WAITED = 0.1  # runs that waited for a processor for a larger share of their time are not used
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Readings:
    """Milliseconds of every model, in the machine's fast state (or in that of a reference).

    ``process_times[model]`` [P] has one value a process, NaN where there is none; ``run_times[model]`` those of all
    runs. ``sentinel_ms`` is the sentinel's latency in the fast state; ``drift`` its 90th over its 10th percentile,
    less 1; ``waited`` the share of runs that had to wait for a processor.
    """

    process_times: dict[str, Array]
    run_times: dict[str, Array]
    sentinel_ms: float
    drift: float
    waited: float


def read(job_values: Sequence[JobValues], reference_ms: float | None = None) -> Readings:
    """Correct the values of all processes to one state of the machine.

    Within a process every time is divided by the speed of the machine at that moment, as the sentinels around it show
    it. Between processes the common factor is divided out: memory layout and slow drift move all models together, and
    many models show it better than one sentinel (Tukey's median polish of logarithms). So is a factor that whole
    networks have in common in a process, and repeated workloads do not.
    With ``reference_ms`` times are scaled to the state in which the sentinel takes that long.
    """
    by_model = _times_by_model(job_values)
    process_times = {
        name: np.array([np.percentile(times, FAST) if times else np.nan for times in by_process])
        for name, by_process in by_model.items()
    }
    level = _levels(_for_levels(process_times), FAST)
    sentinels = process_times[SENTINEL_NAME] / level
    fast_ms = float(np.nanmedian(sentinels)) if np.isfinite(sentinels).any() else float("nan")
    scale = reference_ms / fast_ms if reference_ms else 1.0
    networks = np.array([times / level for name, times in process_times.items() if is_network(name)])
    # With few networks a common factor cannot be separated from that of each one.
    network_level = level * _levels(networks, 50) if len(networks) >= MANY else level
    levels = {name: network_level if is_network(name) else level for name in by_model}
    run_times = {
        name: np.concatenate([np.array(times) / at for times, at in zip(by_process, levels[name], strict=True)])
        for name, by_process in by_model.items()
    }
    runs = [run for values in job_values for run in values.runs]
    sentinel_runs = np.array([run.min_ms for run in runs if run.model == SENTINEL_NAME])
    return Readings(
        process_times={name: times / levels[name] * scale for name, times in process_times.items()},
        run_times={name: times * scale for name, times in run_times.items()},
        sentinel_ms=fast_ms,
        drift=float(np.percentile(sentinel_runs, 90) / np.percentile(sentinel_runs, 10) - 1),
        waited=float(np.mean([run.waited > WAITED for run in runs])),
    )


def _times_by_model(job_values: Sequence[JobValues]) -> dict[str, list[list[float]]]:
    """Return the times of each model, a list for each process, relative to the machine's speed at that moment."""
    found: dict[str, list[list[float]]] = {}
    for number, values in enumerate(job_values):
        for run, state in zip(values.runs, _states(values.runs), strict=True):
            by_process = found.setdefault(run.model, [[] for _ in job_values])
            if run.waited <= WAITED:
                by_process[number].append(run.min_ms / state)
    return found


def _states(runs: Sequence[Run]) -> Array:
    """Return how slow the machine was at each run: the sentinels, smoothed over three and interpolated."""
    at = [number for number, run in enumerate(runs) if run.model == SENTINEL_NAME]
    sentinels = np.array([runs[number].min_ms for number in at])
    smooth = np.array([np.median(sentinels[max(0, i - 1) : i + 2]) for i in range(len(sentinels))])
    return np.interp(np.arange(len(runs)), at, smooth / np.percentile(sentinels, FAST))


def _for_levels(process_times: dict[str, Array]) -> Array:
    """Return the times [models, P] that show how slow each process was, NaN where a time does not count.

    These are all but whole networks, or the sentinel alone if there are few: a model that is divided by a level that is
    mostly its own would seem to repeat better than it does.
    """
    names = [name for name in process_times if not is_network(name)]
    values = np.array([process_times[name] for name in names])
    few = (~np.isnan(values)).sum(axis=0) < MANY
    others = np.array([name != SENTINEL_NAME for name in names])
    values[np.ix_(others, few)] = np.nan
    return values


def _levels(values: Array, percentile: float) -> Array:
    """Return by which factor [P] each process was slower than that percentile of them, from ``values`` [models, P]."""
    known = ~np.isnan(values)
    logs = np.log(values[known.any(axis=1)][:, known.any(axis=0)])
    levels, found = np.zeros(values.shape[1]), np.zeros(logs.shape[1])
    if logs.size:
        for _ in range(10):
            found = np.nanmedian(logs - np.nanmedian(logs - found, axis=1)[:, None], axis=0)
        levels[known.any(axis=0)] = found - np.percentile(found, percentile)
    return np.asarray(np.exp(levels))


@dataclass(frozen=True)
class Estimate:
    """A latency and the half width of its 95 % interval over processes; infinite when fewer than two agree on one."""

    latency_ms: float
    error_ms: float


def estimate(values_ms: Array) -> Estimate:
    """Return the median over processes, of which NaN marks those without a value."""
    values = values_ms[~np.isnan(values_ms)]
    if not len(values):
        return Estimate(float("nan"), float("inf"))
    return Estimate(float(np.median(values)), half_interval(values) if len(values) > 1 else float("inf"))


def half_interval(values: Array) -> float:
    """Return the half width of the 95 % interval (Student's t) of the mean of independent values."""
    return float(interval_factor(len(values)) * values.std(ddof=1))


def interval_factor(count: int) -> float:
    """Return the ratio of that half width to the standard deviation of so many values."""
    return float(stdtrit(count - 1, 0.975) / np.sqrt(count))


def slope(readings: Readings, few: str, many: str, copies: int) -> Estimate:
    """Return the latency of one copy, from a model with few copies and one with ``copies`` more."""
    return estimate((readings.process_times[many] - readings.process_times[few]) / copies)


def spread(readings: Readings, few: str, many: str, copies: int) -> tuple[float, float]:
    """Return the 10th and 90th percentile of the slope of single runs, in milliseconds."""
    length = min(len(readings.run_times[few]), len(readings.run_times[many]))
    singles = (readings.run_times[many][:length] - readings.run_times[few][:length]) / copies
    return float(np.percentile(singles, 10)), float(np.percentile(singles, 90))


def report(predicted_ms: Array, process_times_ms: Sequence[Array]) -> Additivity:
    """Compare predictions with networks timed end to end that no fit has seen.

    The floor compares the median over even processes with that over odd ones of the same network.
    """
    measured = np.array([np.nanmedian(times) for times in process_times_ms])
    halves = np.array([_halves(times) for times in process_times_ms])
    floor = None if np.isnan(halves).all() else float(100 * np.nanmean(np.abs(halves)))
    return held_out_accuracy(predicted_ms, measured, floor)


def _halves(times_ms: Array) -> float:
    values = times_ms[~np.isnan(times_ms)]
    return float(np.median(values[::2]) / np.median(values[1::2]) - 1) if len(values) > 1 else float("nan")
