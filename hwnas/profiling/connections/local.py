"""The connection to this machine: the profiler is a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.profiling.connections.connection import profiler_failed
from hwnas.runtimes.device_spec import PYTHON_NAME, DeviceSpec


def local_lines(spec: DeviceSpec, job_file: Path) -> Iterator[str]:
    """Run the profiler on this machine and yield its lines. Raises HwnasError, with its last line, when it fails."""
    stderr_file = job_file.with_suffix(".stderr")
    python = sys.executable if spec.python == PYTHON_NAME else spec.python
    command = [python, str(spec.runtime.program), str(job_file)]
    with stderr_file.open("w", encoding="utf-8") as stderr:
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment())
        except OSError as error:
            stderr_file.unlink()
            raise HwnasError(
                f"cannot run {python}: {error.strerror}", "name an interpreter with ?python=PATH"
            ) from None
    assert process.stdout
    try:
        for line in process.stdout:
            yield line.rstrip("\n")
        if process.wait() != 0:
            raise profiler_failed(spec, process.returncode, stderr_file.read_text(encoding="utf-8", errors="replace"))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        stderr_file.unlink(missing_ok=True)


def environment() -> dict[str, str]:
    """Return this process's environment without the variables that would override the job's number of threads."""
    return {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
