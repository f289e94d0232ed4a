"""Jobs for executors, in a module that imports no torch, so that their processes start fast."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.jobs.local import LocalExecutor


class CountedInput:
    """An input that counts, in ``file``, how often it is unpickled, and in ``sent`` how often it is pickled."""

    sent = 0

    def __init__(self, file: Path) -> None:
        self.file = file

    def __getstate__(self) -> dict[str, Any]:
        CountedInput.sent += 1
        return {"file": self.file}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.file = state["file"]
        with self.file.open("a") as file:
            file.write("received\n")


def describe_process(shared: CountedInput, item: int) -> dict[str, Any]:
    """Return the item with the process that runs the job, its threads and its GPUs; print a line."""
    print(f"job {item} prints")
    threads, gpus = (os.environ.get(name, "") for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"))
    return {"item": item, "process": os.getpid(), "threads": threads, "gpus": gpus}


def wait_for_file(folder: Path, item: str) -> Iterator[str]:
    """End once ``folder`` has a file named like the item."""
    yield "begins"
    while not (folder / item).exists():
        time.sleep(0.005)
    yield "ends"


def fail(shared: Mapping[str, Exception | tuple[str, str]], item: str) -> Iterator[int]:
    """Yield the process id; raise the exception that ``shared`` has for the item, or wait for ever.

    Two texts stand for an UnreadableError.
    """
    yield os.getpid()
    if item == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    error = shared.get(item)
    if error:
        raise error if isinstance(error, Exception) else UnreadableError(*error)
    time.sleep(600)


class UnreadableError(Exception):
    """An exception that can be pickled, but not unpickled."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def wait_in_jobs(folder: Path) -> None:
    """Run two jobs that never end; write a file for each, named by its process id."""
    jobs = LocalExecutor(2, 1).stream(fail, {}, {"one": "one", "two": "two"})
    for _, process in jobs:
        (folder / str(process)).touch()


def interrupted(folder: Path) -> None:
    """Run ``wait_in_jobs`` as the command line does, which answers Ctrl-C with a line."""
    try:
        wait_in_jobs(folder)
    except (KeyboardInterrupt, HwnasError) as error:
        print(type(error).__name__)


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def ended(processes: list[int]) -> bool:
    """Wait until the processes have ended, for at most 30 seconds."""
    for _ in range(600):
        if not any(map(is_running, processes)):
            return True
        time.sleep(0.05)
    return False
