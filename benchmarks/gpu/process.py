"""Run one step as a process that ends in time."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 3.0  # between the request to end and the end
TAIL_LINES = 40


@dataclass(frozen=True)
class Ended:
    """The end of a process: its exit code, None where it had to be ended, and the last lines that it printed."""

    code: int | None
    seconds: float
    tail: str


def run_for(command: Sequence[str], limit_s: float, log: Path, environment: Mapping[str, str]) -> Ended:
    """Run a command for at most ``limit_s`` seconds, output appended to ``log``; end it with all that it started."""
    began = time.monotonic()
    with log.open("a+b") as output:
        start = output.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=dict(environment), start_new_session=True
        )
        try:
            code = wait(process, limit_s)
        finally:
            _end(process)
        output.seek(start)
        lines = output.read().decode("utf-8", "replace").splitlines()
    return Ended(code, time.monotonic() - began, "\n".join(lines[-TAIL_LINES:]))


def wait(process: subprocess.Popen[bytes], limit_s: float) -> int | None:
    """Return the exit code of a process; None where it has not ended after ``limit_s`` seconds."""
    try:
        return process.wait(timeout=max(limit_s, 0.0))
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and all of its group: first on request, then by force, if its driver lets go of it."""
    ends = time.monotonic() + GRACE_S
    _signal(process, signal.SIGTERM)
    while time.monotonic() < ends and (process.poll() is None or _signal(process, 0)):
        time.sleep(0.02)
    _signal(process, signal.SIGKILL)
    wait(process, GRACE_S)


def _signal(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal to the group of a process; return whether there is such a group."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True
