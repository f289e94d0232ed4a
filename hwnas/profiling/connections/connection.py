"""The interface of a connection, and the errors that connections have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.text import quoted

FIX = "; fix: "  # before the advice at the end of a profiler's last line, if it knows any
# Run the profiler on a job file and yield the lines that it prints. Raises ConnectionDroppedError when the connection
# breaks, HwnasError when the profiler fails.
Connection = Callable[[Path], Iterator[str]]


class ConnectionDroppedError(HwnasError):
    """The connection to the device broke. The lines so far are valid, and the job can be resumed."""


def profiler_failed(spec: DeviceSpec, code: int, stderr: str) -> HwnasError:
    """Return the error of a profiler that exited with ``code``: the last line that it printed, and a fix."""
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), f"exit code {code}")
    package = last.rpartition("No module named ")[2].strip("'\"") if "No module named" in last else ""
    last, _, told = last.partition(FIX)
    where = f" on {spec.host}" if spec.host else ""
    smaller = spec.batch > 1 and last.startswith("out of memory:")
    fix = f"install it{where} (python -m pip install {package})" if package else f"run it by hand{where} to see more"
    if smaller:
        fix = f"profile fewer images at once: --device {quoted(replace(spec, batch=spec.batch // 2).text)}"
    fix = told or fix
    return HwnasError(f"profiler {spec.runtime.profiler} failed on {spec.text}: {last.strip()}", fix)
