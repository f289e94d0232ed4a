"""Run jobs on a device. A journal of every line lets an interrupted job resume."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.files import append_lines, sha256_of, write_json, write_text
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.connections.connection import Connection, ConnectionDroppedError
from hwnas.profiling.protocol import Job, JobValues, Start, new_job
from hwnas.progress import OnProgress
from hwnas.runtimes.device_spec import DeviceSpec

RECONNECT_AFTER_S = (1, 2, 5, 10, 20)  # the pauses before further attempts, as long as they bring no new run


def ask(spec: DeviceSpec) -> Start:
    """Return the description of the device and its runtime, from a job without runs. Raises HwnasError if it fails."""
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        with connect(spec, folder) as connection:
            values = run_job(connection, new_job(spec, {}, []), folder, "ask")
    assert values.start
    return values.start


def run_job(
    connection: Connection, job: Job, folder: Path, name: str, on_run: Callable[[int], None] = lambda done: None
) -> JobValues:
    """Run the profiler on a job whose models are in ``folder``; ``on_run`` gets the number of runs done.

    ``folder/NAME.jsonl`` keeps every line; if it belongs to the same job, only the remaining runs are made. After a
    dropped connection the job is resumed, a few times.
    """
    journal = folder / f"{name}.jsonl"
    digest = sha256_of(asdict(job))
    values = read_journal(journal, digest, job)
    if not values.start:
        journal.unlink(missing_ok=True)
        append_lines(journal)(json.dumps({"event": "job", "sha256": digest}))
    append = append_lines(journal)
    on_run(len(values.runs))
    pauses = iter(RECONNECT_AFTER_S)
    while not values.start or len(values.runs) < len(job.visits):
        done = len(values.runs)
        write_json(folder / f"{name}.json", {**asdict(job), "first_visit": done})
        try:
            for line in connection(folder / f"{name}.json"):
                values.add(line)
                append(line)
                on_run(len(values.runs))
        except ConnectionDroppedError as error:
            if len(values.runs) > done:
                pauses = iter(RECONNECT_AFTER_S)
            pause = next(pauses, None)
            if pause is None:
                raise
            print(f"hwnas: {error.problem}; trying again in {pause} s", file=sys.stderr)
            time.sleep(pause)
        else:
            if not values.start or len(values.runs) < len(job.visits):
                raise HwnasError("the profiler stopped early", "run the same command again to resume")
    return values


def stage(on_progress: OnProgress, name: str, job: Job) -> Callable[[int], None]:
    """Return the ``on_run`` of a job that reports to ``on_progress`` as the stage ``name``."""
    return lambda done: on_progress(name, done, len(job.visits))


def read_journal(journal: Path, digest: str, job: Job) -> JobValues:
    """Read the values that an interrupted run of the same job left, and remove an incomplete last line."""
    values = JobValues(job)
    if not journal.exists():
        return values
    text = journal.read_text(encoding="utf-8", errors="replace")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        write_text(journal, whole)
    lines = whole.splitlines()
    try:
        if lines and json.loads(lines[0]) == {"event": "job", "sha256": digest}:
            for line in lines[1:]:
                values.add(line)
    except (ValueError, HwnasError):
        return JobValues(job)
    return values
