"""How much there is to time and how long it will take, from writing and timing a small sample of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.profiling.assemble import Assembled
from hwnas.profiling.models import repetitions, write_model
from hwnas.profiling.plan import ProfilePlan, existing, models_to_time, network_names, random_architectures
from hwnas.profiling.session import SENTINEL_EVERY, SENTINEL_NAME, Job, ask, connect, run_job
from hwnas.profiling.timing import LEAST_PASSES, MOST_PASSES, NETWORKS_MS

SAMPLE = 12  # workloads
NETWORKS = 3
STILL_OPEN = 0.15  # of all that is timed, what is met again in each process after the first three, as found
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Forecast:
    """What a profile will do; ``timing_s`` at most ``--minutes``."""

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


def duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


def forecast_profile(plan: ProfilePlan, out: Path, progress: Progress) -> Forecast:
    """Write and time a sample, evenly spaced in size, and scale up. Raises HwnasError as ``profile`` would."""
    began = time.monotonic()
    start = ask(plan.spec)
    startup_s = time.monotonic() - began
    before = existing(plan, out, start)
    workloads = plan.workloads(before)
    needed = plan.space.network(plan.setting).workloads()
    known = len(needed) - sum(w in needed for w in workloads)
    if before and not workloads and plan.key in before.correction:
        return Forecast(0, known, 0, 0, 0.0, 0.0)
    networks = random_architectures(plan)
    models = models_to_time(plan, workloads, networks)
    by_size = sorted(workloads, key=lambda w: (w.op, w.in_channels * w.height * w.width))
    spaced = sorted({round(i) for i in np.linspace(0, len(by_size) - 1, SAMPLE)}) if by_size else []
    entries = [f"{by_size[i].key}@{copies}" for i in spaced for copies in repetitions(by_size[i])]
    whole = network_names(networks)[:NETWORKS]
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        wrote_s = _write(plan, models, [SENTINEL_NAME, *whole[:1], *entries, *whole], folder, progress)
        sample = [SENTINEL_NAME, *entries, *whole]
        files = {model: f"{model}{plan.spec.made_by.suffix}" for model in sample}
        job = Job(plan.spec.hardware, plan.spec.threads, plan.spec.batch, files, [*sample, *sample, *sample])
        with connect(plan.spec, folder) as lines:
            began = time.monotonic()
            recording = run_job(lines, job, folder, "sample", lambda n: progress("timing a sample", n, len(job.visits)))
            took_s = time.monotonic() - began
    load_s = max(took_s - startup_s - recording.wall_ms / 1e3, 0.0) / len(sample)

    first, later = recording.visits[: len(sample)], recording.visits[len(sample) :]

    def visits_s(names: Sequence[str], models: int, visits: float) -> float:
        """What so many visits to each of so many models take, the first of each with its longer warm-up."""
        one = [v.wall_ms for v in first if v.model in names]
        more = [v.wall_ms for v in later if v.model in names]
        return models * float(np.mean(one) + (visits - 1) * np.mean(more)) / 1e3 if names else 0.0

    rounds = -(-plan.rounds // plan.passes)
    timed = 2 * len(workloads) + len(networks)
    entries_s = visits_s(entries, 2 * len(workloads), rounds)
    networks_s = min(visits_s(whole, len(networks), rounds), NETWORKS_MS / 1e3)
    process_s = entries_s + networks_s + visits_s([SENTINEL_NAME], 1, rounds * timed / SENTINEL_EVERY)
    process_s += startup_s + load_s * len(models)
    least = min(LEAST_PASSES, plan.passes)
    timing_s = process_s * (least + STILL_OPEN * (round(plan.passes * MOST_PASSES) - least))
    # The first copy of a workload takes longer than the second: it exports the operation.
    writing_s = len(workloads) * sum(wrote_s[e] for e in entries) / max(len(spaced), 1)
    writing_s += len(networks) * sum(wrote_s[n] for n in whole) / max(len(whole), 1)
    return Forecast(
        workloads=len(workloads),
        known=known,
        networks=len(networks),
        models=len(models),
        writing_s=writing_s,
        timing_s=min(timing_s, 60 * plan.minutes),
    )


def _write(
    plan: ProfilePlan, models: Mapping[str, Assembled], names: Sequence[str], folder: Path, progress: Progress
) -> dict[str, float]:
    """Write models, one after the other, and return how many seconds each took; a name met again is written again."""
    result = {}
    for number, name in enumerate(names):
        path = folder / f"{name}{plan.spec.made_by.suffix}"
        path.unlink(missing_ok=True)
        began = time.monotonic()
        write_model(models[name], plan.spec, path)
        result[name] = time.monotonic() - began
        progress("writing a sample", number + 1, len(names))
    return result
