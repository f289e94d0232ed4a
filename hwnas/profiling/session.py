"""Driving a profiler: a job in, a line for every visit out, journalled so that a killed run goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.files import append_lines, sha256_of, write_json
from hwnas.profiling.device import DeviceSpec

SENTINEL_NAME = "sentinel"


@dataclass(frozen=True)
class Job:
    """What a profiler is asked to do; ``profilers/README.md`` describes the fields."""

    device: str
    threads: int
    batch: int
    models: dict[str, str]
    visits: list[str]
    affinity: list[int] | None
    visit_ms: float = 3.0
    warmup_runs: int = 1
    min_runs: int = 2
    max_runs: int = 40
    processes: int = 1
    protocol: int = 1

    @property
    def bounds(self) -> list[int]:
        """Where one process stops and the next begins, the ends included."""
        return [round(number * len(self.visits) / self.processes) for number in range(self.processes + 1)]


@dataclass(frozen=True)
class Visit:
    """One line that came back: the least and the median time of a few runs in a row, in milliseconds."""

    model: str
    min_ms: float
    median_ms: float


@dataclass
class Recording:
    """All visits of a job, in order, and what the runtime said of itself."""

    runtime: dict[str, str] = field(default_factory=dict)
    visits: list[Visit] = field(default_factory=list)


def make_job(spec: DeviceSpec, models: dict[str, str], rounds: int, sentinel_every: int = 5) -> Job:
    """Visit every model once a round, in an order shuffled anew each round, with the sentinel in between.

    The rounds are spread over several processes: where a process lies in memory changes its times by several percent,
    and a table must not describe one process. (Loading torch programs takes too long for more than two.)
    """
    order: list[str] = []
    shuffler = random.Random(0)
    names = sorted(set(models) - {SENTINEL_NAME})
    for _ in range(rounds):
        shuffler.shuffle(names)
        for number, name in enumerate(names):
            if number % sentinel_every == 0:
                order.append(SENTINEL_NAME)
            order.append(name)
    order.append(SENTINEL_NAME)
    processes = min(rounds, 5 if spec.runtime == "onnxruntime" else 2)
    affinity = _processors(spec.threads)
    return Job(spec.hardware, spec.threads, spec.batch, models, order, affinity, processes=processes)


def _processors(threads: int) -> list[int] | None:
    """The last ``threads`` processors that this process may use: the first ones serve interrupts."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    return sorted(os.sched_getaffinity(0))[-threads:]


def run_job(spec: DeviceSpec, job: Job, folder: Path, on_visit: Callable[[int], None]) -> Recording:
    """Run the profiler on a job whose models lie in ``folder``; ``on_visit`` hears how many visits are done.

    A journal in ``folder`` keeps every line; if it belongs to the same job, only the remaining visits are made.
    Raises HwnasError, with the profiler's last line, when it fails.
    """
    journal = folder / "journal.jsonl"
    digest = sha256_of(asdict(job))
    recording = _read_journal(journal, digest)
    done = len(recording.visits)
    if not done:
        journal.unlink(missing_ok=True)
    append = append_lines(journal)
    if not done:
        append(json.dumps({"event": "job", "sha256": digest}))
    on_visit(done)
    for stop in (stop for stop in job.bounds if stop > done):
        first = len(recording.visits)
        write_json(folder / "job.json", {**asdict(job), "first_visit": first, "stop_visit": stop})
        for line in _profiler_lines(spec, folder / "job.json"):
            append(line)
            _record(recording, json.loads(line))
            on_visit(len(recording.visits))
    if len(recording.visits) != len(job.visits):
        raise HwnasError(f"profiler {spec.profiler.name} stopped early", "run the same command again to go on")
    return recording


def _profiler_lines(spec: DeviceSpec, job_file: Path) -> Iterator[str]:
    threads = {"OMP_NUM_THREADS": str(spec.threads), "MKL_NUM_THREADS": str(spec.threads)}
    complaints = job_file.with_name("stderr.txt")
    with complaints.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(spec.profiler), str(job_file)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **threads},
        )
    assert process.stdout
    try:
        for line in process.stdout:
            yield line.rstrip("\n")
        if process.wait() != 0:
            problem = complaints.read_text(encoding="utf-8", errors="replace").strip()
            last = problem.splitlines()[-1] if problem else f"exit code {process.returncode}"
            raise HwnasError(
                f"profiler {spec.profiler.name} failed on {spec.text}: {last}", f"run it by hand on {job_file}"
            )
    finally:
        process.kill()
        process.wait()


def _read_journal(journal: Path, digest: str) -> Recording:
    """What an interrupted run of the same job has left; a torn last line is dropped."""
    recording = Recording()
    if not journal.exists():
        return recording
    text = journal.read_text(encoding="utf-8", errors="replace")
    lines = text[: text.rfind("\n") + 1].splitlines()
    journal.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    try:
        events = [json.loads(line) for line in lines]
        if events and events[0] == {"event": "job", "sha256": digest}:
            for event in events[1:]:
                _record(recording, event)
    except (ValueError, KeyError, TypeError):
        return Recording()
    return recording


def _record(recording: Recording, event: dict) -> None:
    if event["event"] == "start":
        recording.runtime = {key: str(event[key]) for key in ("runtime", "version", "provider")}
    elif event["event"] == "visit":
        recording.visits.append(Visit(event["model"], float(event["min_ms"]), float(event["median_ms"])))


def names_by_round(visits: Sequence[Visit]) -> dict[str, list[int]]:
    """For every model, the numbers of its visits, in order."""
    result: dict[str, list[int]] = {}
    for number, visit in enumerate(visits):
        result.setdefault(visit.model, []).append(number)
    return result
