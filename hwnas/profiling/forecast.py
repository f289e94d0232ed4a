"""Forecast the duration of a profile, by writing and timing a small sample of its models."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import gammaincinv

from hwnas.profiling.assemble import Assembled
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.models import repetitions, write_model
from hwnas.profiling.names import SENTINEL_NAME, is_network, network_names
from hwnas.profiling.noise import QUIET_RUNS
from hwnas.profiling.plan import ProfilePlan, existing, models_to_time
from hwnas.profiling.protocol import SENTINEL_EVERY, JobValues, Run, make_job
from hwnas.profiling.session import ask, run_job, stage
from hwnas.profiling.statistics import interval_factor, read
from hwnas.profiling.timing import allowed_ms, entry_estimates, network_runs, usual_network_ms
from hwnas.progress import OnProgress
from hwnas.spaces import Workload
from hwnas.text import duration

SAMPLE = 12  # workloads
NETWORKS = 4
FITTING_S = 1.0  # for the correction, the residual predictor and the counts


@dataclass(frozen=True)
class Forecast:
    """The number of models that a profile will time, and its duration."""

    workloads: int
    known: int
    networks: int
    models: int
    writing_s: float
    timing_s: float

    @property
    def seconds(self) -> float:
        return self.writing_s + self.timing_s

    def describe(self) -> str:
        return (
            f"{self.workloads} workloads to time, {self.known} known already, {self.networks} whole networks: "
            f"{self.models} models; about {duration(self.writing_s)} to write them "
            f"and {duration(self.timing_s)} to time them, {duration(self.seconds)} in all"
        )


def forecast_profile(plan: ProfilePlan, out: Path, on_progress: OnProgress) -> Forecast:
    """Write and time a sample, as ``profile`` does, and scale up. Raises HwnasError as ``profile`` does."""
    starting_s = time.process_time()  # Python and torch, which the profile's own process starts too
    before = existing(plan, out, ask(plan.spec))
    workloads = plan.workloads(before)
    needed = plan.sized.network.workloads()
    known = len(needed) - sum(w in needed for w in workloads)
    if before and not workloads and plan.sized.key in before.correction:
        return Forecast(0, known, 0, 0, 0.0, 0.0)
    networks = plan.networks()
    models = models_to_time(plan, workloads, networks)
    by_size = sorted(workloads, key=lambda w: (w.op, w.in_channels * w.height * w.width))
    sampled = (
        [by_size[i] for i in sorted({round(i) for i in np.linspace(0, len(by_size) - 1, SAMPLE)})] if by_size else []
    )
    entries = [f"{w.key}@{copies}" for w in sampled for copies in repetitions(w)]
    whole = network_names(networks)[:NETWORKS]
    job_values, took_s = [], []
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        wrote_s = _write(plan, models, [SENTINEL_NAME, *whole[:1], *entries, *whole], folder, on_progress)
        files = {model: f"{model}{plan.spec.runtime.suffix}" for model in (SENTINEL_NAME, *entries, *whole)}
        with connect(plan.spec, folder) as connection:
            for number in range(plan.least_processes):
                job = make_job(plan.spec, files, plan.rounds_each, number, {})
                on_run = stage(on_progress, f"timing a sample, process {number + 1}", job)
                began = time.monotonic()
                job_values.append(run_job(connection, job, folder, f"sample{number}", on_run))
                took_s.append(time.monotonic() - began)
    # The first copy of a workload takes longer than the second: it exports the operation.
    writing_s = len(workloads) * sum(wrote_s[e] for e in entries) / max(len(sampled), 1)
    writing_s += len(networks) * sum(wrote_s[n] for n in whole) / max(len(whole), 1)
    return Forecast(
        workloads=len(workloads),
        known=known,
        networks=len(networks),
        models=len(models),
        writing_s=writing_s,
        timing_s=starting_s + _timing_s(plan, job_values, took_s, sampled, 2 * len(workloads), len(networks)),
    )


def _timing_s(
    plan: ProfilePlan,
    job_values: Sequence[JobValues],
    took_s: Sequence[float],
    sampled: Sequence[Workload],
    num_entries: int,
    num_networks: int,
) -> float:
    """Return the seconds of all processes, from the time per model and the models left, by the sample's spread."""
    runs = [run for values in job_values for run in values.runs]
    inside_s = sum(run.wall_ms + run.load_ms for run in runs) / 1e3
    startup_s = max(sum(took_s) - inside_s, 0.0) / len(job_values)
    entry, network = (
        _run_times([v for v in runs if v.model != SENTINEL_NAME and is_network(v.model) == whole])
        for whole in (False, True)
    )
    sentinel = _run_times([v for v in runs if v.model == SENTINEL_NAME])
    open_entries = _open_entries(plan, job_values, sampled)
    total_s = FITTING_S + (0.0 if plan.accept_noise else startup_s + sentinel.of(QUIET_RUNS))
    seldom = network_runs(plan.rounds_each, num_networks, None)
    often = network_runs(plan.rounds_each, num_networks, 1e3 * network.runs_s(seldom) / seldom)
    for number in range(plan.most_processes):
        entries, networks = num_entries * open_entries[number], num_networks * (number < plan.network_processes)
        runs_each = often if number else seldom
        sentinels = (entries * plan.rounds_each + networks * runs_each) / SENTINEL_EVERY
        process_s = min(entries + networks, 1.0) * startup_s + sentinel.of(sentinels)
        process_s += entries * entry.of(plan.rounds_each) + networks * network.of(runs_each)
        if number and total_s + process_s > 60 * plan.minutes:
            break
        total_s += process_s
    return total_s


@dataclass(frozen=True)
class _RunTimes:
    """Seconds that a model takes in a process: loading it, its first run, each later one."""

    load_s: float
    first_s: float
    later_s: float

    def of(self, runs: float) -> float:
        return self.load_s + self.runs_s(runs) if runs else 0.0

    def runs_s(self, runs: float) -> float:
        return self.first_s + (runs - 1) * self.later_s


def _run_times(runs: Sequence[Run]) -> _RunTimes:
    if not runs:
        return _RunTimes(0.0, 0.0, 0.0)
    first = [run for run in runs if run.load_ms]
    later = [run for run in runs if not run.load_ms]
    load_ms = np.mean([run.load_ms for run in first])
    first_ms, later_ms = (np.mean([run.wall_ms for run in some]) for some in (first, later or first))
    return _RunTimes(float(load_ms) / 1e3, float(first_ms) / 1e3, float(later_ms) / 1e3)


def _open_entries(plan: ProfilePlan, job_values: Sequence[JobValues], sampled: Sequence[Workload]) -> list[float]:
    """Return the share of the entries that each process will time."""
    readings = read(job_values)
    whole_ms = usual_network_ms(readings)
    errors = [found.error_ms / allowed_ms(found, whole_ms) for found in entry_estimates(readings, sampled).values()]
    return open_shares(errors, len(job_values), plan.most_processes)


def open_shares(errors: Sequence[float], processes: int, most: int) -> list[float]:
    """Simulate the share of models not settled before each of ``most`` processes; 1 before the first ``processes``.

    ``errors`` are half intervals over those first processes, relative to the error allowed. Values are assumed to be
    normal with the median model's deviation, and a model that was within its error once is settled, by luck or not.
    """
    if not errors or not np.isfinite(errors).any():
        return [1.0] * most
    # A standard deviation from few values is mostly lower than the true one.
    known = np.array(errors)[np.isfinite(errors)]
    usual_chi2 = 2 * gammaincinv((processes - 1) / 2, 0.5)  # the median of the distribution
    deviation = np.median(known) / interval_factor(processes) / np.sqrt(usual_chi2 / (processes - 1))
    readings = np.random.default_rng(0).normal(0, deviation, size=(2000, most))
    still_open = np.ones(len(readings), dtype=bool)
    shares = [1.0] * processes
    for number in range(processes, most):
        still_open &= interval_factor(number) * readings[:, :number].std(axis=1, ddof=1) > 1
        shares.append(float(still_open.mean()))
    return shares


def _write(
    plan: ProfilePlan, models: Mapping[str, Assembled], names: Sequence[str], folder: Path, on_progress: OnProgress
) -> dict[str, float]:
    """Write models one after the other and return the seconds of each; a repeated name is written again."""
    result = {}
    for number, name in enumerate(names):
        path = folder / f"{name}{plan.spec.runtime.suffix}"
        path.unlink(missing_ok=True)
        began = time.monotonic()
        write_model(models[name], plan.spec, path)
        result[name] = time.monotonic() - began
        on_progress("writing a sample", number + 1, len(names))
    return result
