"""Driving a profiler: a job in, a line for every visit out, journalled so that a killed run goes on."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import append_lines, sha256_of, write_json, write_text
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.tables.schema import Device

SENTINEL_EVERY = 5
PROTOCOL = 2
RECONNECT_AFTER_S = (1, 2, 5, 10, 20)  # how long to wait before each further attempt that brings nothing new
Lines = Callable[[Path], Iterator[str]]


class ConnectionDroppedError(HwnasError):
    """The way to the device broke; what has come back is kept and the job can be taken up again."""


@dataclass(frozen=True)
class Job:
    """What one process of a profiler is asked to do; ``profilers/README.md`` describes the fields."""

    hardware: str
    threads: int
    batch: int
    models: dict[str, str]
    visits: list[str]
    pin: bool = True
    first_warmup_ms: float = 10.0
    warmup_ms: float = 0.5
    block_ms: float = 0.05
    visit_ms: float = 3.0
    min_blocks: int = 3
    max_blocks: int = 40
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Visit:
    """One line that came back: milliseconds of one run, the least and the median of a few blocks in a row.

    ``waited`` is the share of the visit in which the process was ready to run and had no processor, 0 where unknown;
    ``wall_ms`` what the visit took, warm-up included; ``load_ms`` what loading the model took before its first one.
    """

    model: str
    min_ms: float
    median_ms: float
    waited: float = 0.0
    wall_ms: float = 0.0
    load_ms: float = 0.0


@dataclass(frozen=True)
class Start:
    """What a device and its runtime said of themselves before a job."""

    device: Device
    runtime: str
    version: str
    provider: str
    options: dict[str, str | int | float | bool]
    processors: list[int] | None
    governor: str | None
    load: float | None


@dataclass
class Recording:
    """All visits of a job, in order. ``stolen`` is the share of time that a virtual machine's host took away."""

    job: Job
    start: Start | None = None
    visits: list[Visit] = field(default_factory=list)
    stolen: float | None = None

    @property
    def wall_ms(self) -> float:
        """What all visits took, the loading of models included."""
        return sum(visit.wall_ms + visit.load_ms for visit in self.visits)


def make_job(spec: DeviceSpec, models: Mapping[str, str], rounds: int, seed: int, visits: Mapping[str, int]) -> Job:
    """Visit every model once a round, in an order shuffled anew each round, with the sentinel in between.

    A model that ``visits`` names is met that many times only, in rounds spread evenly.
    """
    order: list[str] = []
    shuffler = random.Random(seed)
    names = sorted(set(models) - {SENTINEL_NAME})
    for number in range(rounds):
        met = [
            n
            for n in names
            if (number + 1) * visits.get(n, rounds) // rounds > number * visits.get(n, rounds) // rounds
        ]
        shuffler.shuffle(met)
        for position, name in enumerate(met):
            if position % SENTINEL_EVERY == 0:
                order.append(SENTINEL_NAME)
            order.append(name)
    order.append(SENTINEL_NAME)
    return Job(spec.hardware, spec.threads, spec.batch, dict(models), order)


@contextmanager
def connect(spec: DeviceSpec, folder: Path) -> Iterator[Lines]:
    """The way to a device: a function from a job's file in ``folder`` to the lines that its profiler prints.

    Raises HwnasError when the device cannot be reached.
    """
    if spec.host:
        from hwnas.profiling.remote import remote_lines

        with remote_lines(spec, folder) as lines:
            yield lines
    else:
        yield partial(local_lines, spec)


def local_lines(spec: DeviceSpec, job_file: Path) -> Iterator[str]:
    """Run the profiler here. Raises HwnasError, with its last line, when it fails."""
    complaints = job_file.with_suffix(".stderr")
    command = [sys.executable, str(spec.runtime.program), str(job_file)]
    with complaints.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment())
    assert process.stdout
    try:
        for line in process.stdout:
            yield line.rstrip("\n")
        if process.wait() != 0:
            raise profiler_failed(spec, process.returncode, complaints.read_text(encoding="utf-8", errors="replace"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        complaints.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """This process's environment, without what would change the number of threads behind the job's back."""
    return {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}


def profiler_failed(spec: DeviceSpec, code: int, complaints: str) -> HwnasError:
    last = next((line for line in reversed(complaints.splitlines()) if line.strip()), f"exit code {code}")
    package = last.rpartition("No module named ")[2].strip("'\"") if "No module named" in last else ""
    where = f" on {spec.host}" if spec.host else ""
    fix = f"install it{where} (python -m pip install {package})" if package else f"run it by hand{where} to see more"
    return HwnasError(f"profiler {spec.runtime.profiler} failed on {spec.text}: {last.strip()}", fix)


def ask(spec: DeviceSpec) -> Start:
    """What the device and its runtime say of themselves: a job without visits. Raises HwnasError when it fails."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        with connect(spec, folder) as lines:
            recording = run_job(lines, Job(spec.hardware, spec.threads, spec.batch, {}, []), folder, "ask")
    assert recording.start
    return recording.start


def run_job(
    lines: Lines, job: Job, folder: Path, name: str, on_visit: Callable[[int], None] = lambda done: None
) -> Recording:
    """Run the profiler on a job whose models lie in ``folder``; ``on_visit`` hears how many visits are done.

    ``folder/NAME.jsonl`` keeps every line; if it belongs to the same job, only the remaining visits are made. After a
    dropped connection the job is taken up again, a few times.
    """
    journal = folder / f"{name}.jsonl"
    digest = sha256_of(asdict(job))
    recording = read_journal(journal, digest, job)
    if not recording.start:
        journal.unlink(missing_ok=True)
        append_lines(journal)(json.dumps({"event": "job", "sha256": digest}))
    append = append_lines(journal)
    on_visit(len(recording.visits))
    waits = iter(RECONNECT_AFTER_S)
    while not recording.start or len(recording.visits) < len(job.visits):
        done = len(recording.visits)
        write_json(folder / f"{name}.json", {**asdict(job), "first_visit": done})
        try:
            for line in lines(folder / f"{name}.json"):
                _record(recording, line)
                append(line)
                on_visit(len(recording.visits))
        except ConnectionDroppedError as error:
            if len(recording.visits) > done:
                waits = iter(RECONNECT_AFTER_S)
            wait = next(waits, None)
            if wait is None:
                raise
            print(f"hwnas: {error.problem}; trying again in {wait} s", file=sys.stderr)
            time.sleep(wait)
        else:
            if not recording.start or len(recording.visits) < len(job.visits):
                raise HwnasError("the profiler stopped early", "run the same command again to go on")
    return recording


def read_journal(journal: Path, digest: str, job: Job) -> Recording:
    """What an interrupted run of the same job has left; a torn last line is dropped."""
    recording = Recording(job)
    if not journal.exists():
        return recording
    text = journal.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(journal, whole)
    lines = whole.splitlines()
    try:
        if lines and json.loads(lines[0]) == {"event": "job", "sha256": digest}:
            for line in lines[1:]:
                _record(recording, line)
    except (ValueError, HwnasError):
        return Recording(job)
    return recording


def _record(recording: Recording, line: str) -> None:
    """Take in one line. Raises HwnasError when a profiler printed something else than the protocol says."""
    try:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "start":
            start = _start(event)
            recording.start = recording.start or start
            if (start.device, start.version) != (recording.start.device, recording.start.version):
                raise HwnasError(
                    "the device or its runtime is another than when this began", "run the same command again"
                )
        elif event["event"] == "visit":
            if event["visit"] != len(recording.visits) or recording.job.visits[event["visit"]] != event["model"]:
                raise ValueError("a visit out of order")
            least_ms, median_ms = float(event["min_ms"]), float(event["median_ms"])
            if not 0 < least_ms <= median_ms < float("inf"):
                raise ValueError("a time that cannot be")
            wall_ms = float(event["wall_ms"])
            waited = float(event.get("waited_ms", 0)) / max(wall_ms, 1e-9)
            load_ms = float(event.get("load_ms", 0))
            recording.visits.append(Visit(str(event["model"]), least_ms, median_ms, waited, wall_ms, load_ms))
        elif event["event"] == "end":
            recording.stolen = event["stolen"]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, ValidationError) as error:
        raise HwnasError(
            f"the profiler printed {line[:200]!r}, which is not of protocol {PROTOCOL} ({error})"
        ) from None


def _start(event: dict[str, Any]) -> Start:
    said = event["device"]
    fingerprint = sha256_of(
        [said["kind"], said["model"], said["cores"], round(said["memory_bytes"] / 2**30), said["os"]]
    )[:16]
    device = Device(**said, fingerprint=fingerprint)
    version, provider = str(event["version"]), str(event["provider"])
    return Start(
        device,
        str(event["runtime"]),
        version,
        provider,
        event["options"],
        event["processors"],
        event["governor"],
        event["load"],
    )
