"""Timing a plan's models in several processes of the profiler, each leaving out what the ones before have settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hwnas.profiling.models import repetitions
from hwnas.profiling.names import SENTINEL_NAME, is_network
from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.session import Lines, Recording, make_job, run_job
from hwnas.profiling.statistics import Estimate, Readings, estimate, read, slope
from hwnas.spaces import Workload

TIGHT = 0.02  # an entry is settled when its error is below this share of it …
NEGLIGIBLE = 5e-4  # … or below this share of a whole network's latency
NETWORKS_MS = 6e3  # for the visits of whole networks in one process: these are long, so as many as fit …
LEAST_VISITS = 3  # … and so many all the same: of a single one nobody knows whether it was a slow one
Progress = Callable[[str, int, int], None]


def time_models(
    plan: ProfilePlan,
    files: Mapping[str, str],
    workloads: Sequence[Workload],
    lines: Lines,
    folder: Path,
    progress: Progress,
) -> list[Recording]:
    """One process of the profiler after another, over what is not settled yet."""
    recordings: list[Recording] = []
    left = dict(files)
    while len(left) > 1 and len(recordings) < plan.most_passes and _there_is_time(plan, recordings, len(left)):
        number = len(recordings)
        visits = dict.fromkeys(filter(is_network, left), network_visits(plan.rounds_each, *_networks_in(recordings)))
        job = make_job(plan.spec, left, plan.rounds_each, number, visits)
        stage = f"timing, process {number + 1}" + (f" of {plan.passes}" if number < plan.passes else ", to settle")
        total = len(job.visits)
        recordings.append(run_job(lines, job, folder, f"pass{number}", lambda n, s=stage, t=total: progress(s, n, t)))  # type: ignore[misc]
        if len(recordings) >= plan.least_passes:
            wanted = {SENTINEL_NAME, *unsettled(read(recordings), workloads)}
            if len(recordings) < plan.network_passes:
                wanted |= set(filter(is_network, left))
            left = {name: file for name, file in left.items() if name in wanted}
    return recordings


def _there_is_time(plan: ProfilePlan, recordings: Sequence[Recording], models: int) -> bool:
    """Whether another process, over so many models, stays within the minutes that were given; the first always runs."""
    if not recordings:
        return True
    spent_ms, last = sum(recording.wall_ms for recording in recordings), recordings[-1]
    return spent_ms + last.wall_ms * models / len(last.job.models) <= 60e3 * plan.minutes


def network_visits(rounds: int, networks: int, visit_ms: float | None) -> int:
    """How often to meet every whole network in the next process: seldom at first, then as often as there is time."""
    if visit_ms is None:
        return max(1, rounds // 3)
    return int(np.clip(NETWORKS_MS / max(networks * visit_ms, 1e-9), min(LEAST_VISITS, rounds), rounds))


def _networks_in(recordings: Sequence[Recording]) -> tuple[int, float | None]:
    """How many whole networks the first process met, and what a visit to one took."""
    first = [visit for recording in recordings[:1] for visit in recording.visits if is_network(visit.model)]
    return len({visit.model for visit in first}), float(np.mean([v.wall_ms for v in first])) if first else None


def unsettled(readings: Readings, workloads: Sequence[Workload]) -> set[str]:
    """The models of workloads whose latencies are not known tightly enough yet."""
    result: set[str] = set()
    whole_ms = usual_network_ms(readings)
    for workload, found in entry_estimates(readings, workloads).items():
        if not is_tight(found, whole_ms):
            result |= {f"{workload.key}@{copies}" for copies in repetitions(workload)}
    return result


def usual_network_ms(readings: Readings) -> float:
    """The median of the whole networks, 0 without any."""
    networks = [estimate(values).latency_ms for name, values in readings.passes.items() if is_network(name)]
    return float(np.median(networks)) if networks else 0.0


def is_tight(found: Estimate, whole_ms: float) -> bool:
    return found.error_ms <= allowed_ms(found, whole_ms)


def allowed_ms(found: Estimate, whole_ms: float) -> float:
    """The error that an entry may have, where a whole network takes so long."""
    return max(TIGHT * found.latency_ms, NEGLIGIBLE * whole_ms)


def entry_estimates(readings: Readings, workloads: Sequence[Workload]) -> dict[Workload, Estimate]:
    """Every workload's latency and error."""
    result = {}
    for workload in workloads:
        few, many = repetitions(workload)
        result[workload] = slope(readings, f"{workload.key}@{few}", f"{workload.key}@{many}", many - few)
    return result
