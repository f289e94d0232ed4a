"""Timing a plan's models in several processes of the profiler, each leaving out what the ones before have settled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import filterfalse
from pathlib import Path

import numpy as np

from hwnas.profiling.models import repetitions
from hwnas.profiling.plan import ProfilePlan, is_network
from hwnas.profiling.session import SENTINEL_NAME, Lines, Recording, make_job, run_job
from hwnas.profiling.statistics import Estimate, Readings, estimate, read, slope
from hwnas.spaces import Workload

NETWORK_TIGHT = 0.015  # a whole network is settled when its error is below this share of it
TIGHT = 0.02  # an entry is settled when its error is below this share of it …
NEGLIGIBLE = 5e-4  # … or below this share of a whole network's latency
MOST_PASSES = 1.5  # times the processes a profile begins with; what is not settled by then is marked
LEAST_PASSES = 3
NETWORKS_MS = 6e3  # for the visits of whole networks in one process: these are long, so as many as fit
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
    rounds = -(-plan.rounds // plan.passes)
    recordings: list[Recording] = []
    left = dict(files)
    while len(left) > 1 and len(recordings) < round(plan.passes * MOST_PASSES):
        number = len(recordings)
        visits = dict.fromkeys(filter(is_network, left), network_visits(rounds, recordings))
        job = make_job(plan.spec, left, rounds, number, visits)
        stage = f"timing, process {number + 1}" + (f" of {plan.passes}" if number < plan.passes else ", to settle")
        total = len(job.visits)
        recordings.append(run_job(lines, job, folder, f"pass{number}", lambda n, s=stage, t=total: progress(s, n, t)))  # type: ignore[misc]
        if sum(recording.wall_ms for recording in recordings) > 60e3 * plan.minutes:
            break
        if len(recordings) >= min(LEAST_PASSES, plan.passes):
            still_open = unsettled(read(recordings), workloads)
            if len(recordings) >= plan.passes:  # what whole networks still lack, the report's floor tells
                still_open = set(filterfalse(is_network, still_open))
            left = {name: file for name, file in left.items() if name == SENTINEL_NAME or name in still_open}
    return recordings


def network_visits(rounds: int, recordings: Sequence[Recording]) -> int:
    """How often to meet every whole network in the next process: seldom at first, then as often as there is time."""
    if not recordings:
        return max(1, rounds // 3)
    first = [visit.wall_ms for visit in recordings[0].visits if is_network(visit.model)]
    distinct = {visit.model for visit in recordings[0].visits if is_network(visit.model)}
    return int(np.clip(NETWORKS_MS / (len(distinct) * np.mean(first)), 1, rounds)) if first else rounds


def unsettled(readings: Readings, workloads: Sequence[Workload]) -> set[str]:
    """The models whose latencies are not known tightly enough yet."""
    networks = {name: estimate(values) for name, values in readings.passes.items() if is_network(name)}
    result = {name for name, found in networks.items() if not found.error_ms <= NETWORK_TIGHT * found.latency_ms}
    whole_ms = np.median([found.latency_ms for found in networks.values()]) if networks else 0.0
    for workload, found in entry_estimates(readings, workloads).items():
        if not is_tight(found, float(whole_ms)):
            result |= {f"{workload.key}@{copies}" for copies in repetitions(workload)}
    return result


def is_tight(found: Estimate, whole_ms: float) -> bool:
    return found.error_ms <= max(TIGHT * found.latency_ms, NEGLIGIBLE * whole_ms)


def entry_estimates(readings: Readings, workloads: Sequence[Workload]) -> dict[Workload, Estimate]:
    """Every workload's latency and error."""
    result = {}
    for workload in workloads:
        few, many = repetitions(workload)
        result[workload] = slope(readings, f"{workload.key}@{few}", f"{workload.key}@{many}", many - few)
    return result
