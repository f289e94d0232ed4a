"""Time a plan's models in several processes of the profiler; later ones leave out the models that are settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hwnas.profiling.connections.connection import Connection
from hwnas.profiling.models import repetitions
from hwnas.profiling.names import SENTINEL_NAME, is_network
from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.protocol import JobValues, make_job
from hwnas.profiling.session import run_job, stage
from hwnas.profiling.statistics import Estimate, Readings, estimate, read, slope
from hwnas.progress import OnProgress
from hwnas.spaces import Workload

TIGHT = 0.02  # an entry is settled when its error is below this share of it …
NEGLIGIBLE = 5e-4  # … or below this share of a whole network's latency
NETWORKS_MS = 6e3  # for the runs of whole networks in one process: as many as fit …
LEAST_RUNS = 3  # … but at least so many: a single run may be a slow one


def time_models(
    plan: ProfilePlan,
    files: Mapping[str, str],
    workloads: Sequence[Workload],
    connection: Connection,
    folder: Path,
    on_progress: OnProgress,
) -> list[JobValues]:
    """Run one process of the profiler after another, over the models that are not settled yet."""
    job_values: list[JobValues] = []
    left = dict(files)
    while len(left) > 1 and len(job_values) < plan.most_processes and _there_is_time(plan, job_values, len(left)):
        number = len(job_values)
        runs = dict.fromkeys(filter(is_network, left), network_runs(plan.rounds_each, *_networks_in(job_values)))
        job = make_job(plan.spec, left, plan.rounds_each, number, runs)
        total = f" of {plan.processes}" if number < plan.processes else ", to settle"
        on_run = stage(on_progress, f"timing, process {number + 1}{total}", job)
        job_values.append(run_job(connection, job, folder, f"pass{number}", on_run))
        if len(job_values) >= plan.least_processes:
            wanted = {SENTINEL_NAME, *unsettled(read(job_values), workloads)}
            if len(job_values) < plan.network_processes:
                wanted |= set(filter(is_network, left))
            left = {name: file for name, file in left.items() if name in wanted}
    return job_values


def _there_is_time(plan: ProfilePlan, job_values: Sequence[JobValues], models: int) -> bool:
    """Return whether another process over ``models`` models stays within the plan's minutes; the first always runs."""
    if not job_values:
        return True
    spent_ms, last = sum(values.wall_ms for values in job_values), job_values[-1]
    return spent_ms + last.wall_ms * models / len(last.job.models) <= 60e3 * plan.minutes


def network_runs(rounds: int, networks: int, run_ms: float | None) -> int:
    """Return the runs of each network in the next process: few in the first one, then as many as there is time for."""
    if run_ms is None:
        return max(1, rounds // 3)
    return int(np.clip(NETWORKS_MS / max(networks * run_ms, 1e-9), min(LEAST_RUNS, rounds), rounds))


def _networks_in(job_values: Sequence[JobValues]) -> tuple[int, float | None]:
    """Return the number of whole networks in the first process, and the mean duration of their runs."""
    first = [run for values in job_values[:1] for run in values.runs if is_network(run.model)]
    return len({run.model for run in first}), float(np.mean([run.wall_ms for run in first])) if first else None


def unsettled(readings: Readings, workloads: Sequence[Workload]) -> set[str]:
    """Return the models of workloads whose latencies are not known precisely enough yet."""
    result: set[str] = set()
    whole_ms = usual_network_ms(readings)
    for workload, found in entry_estimates(readings, workloads).items():
        if not is_tight(found, whole_ms):
            result |= {f"{workload.key}@{copies}" for copies in repetitions(workload)}
    return result


def usual_network_ms(readings: Readings) -> float:
    """Return the median latency of the whole networks, 0 without any."""
    networks = [estimate(values).latency_ms for name, values in readings.process_times.items() if is_network(name)]
    return float(np.median(networks)) if networks else 0.0


def is_tight(found: Estimate, whole_ms: float) -> bool:
    return found.error_ms <= allowed_ms(found, whole_ms)


def allowed_ms(found: Estimate, whole_ms: float) -> float:
    """Return the error that an entry may have, given the latency of a whole network."""
    return max(TIGHT * found.latency_ms, NEGLIGIBLE * whole_ms)


def entry_estimates(readings: Readings, workloads: Sequence[Workload]) -> dict[Workload, Estimate]:
    """Return every workload's latency and error."""
    result = {}
    for workload in workloads:
        few, many = repetitions(workload)
        result[workload] = slope(readings, f"{workload.key}@{few}", f"{workload.key}@{many}", many - few)
    return result
