"""Measure the cost of a search: seconds and memory, summed over interruptions."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.files import append_lines, write_text


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, processor seconds, and peak resident memory of the process in MB (10^6 bytes)."""

    wall_s: float = 0.0
    processor_s: float = 0.0
    peak_memory_mb: float = 0.0


class CostMeter:
    """Log of the cost so far, one line a step.

    Lines after the checkpoint that a search resumes from are dropped, so every step counts once however often the
    search was interrupted. Counting starts when the object is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wall_s, self._processor_s = time.monotonic(), time.process_time()
        self._before = Cost()
        self._write: Callable[[str], None] | None = None

    def record(self, step: int) -> None:
        """Append the cost so far; ``step`` is the number of steps taken."""
        if self._write is None:
            self._write = self._resume(step - 1)
        self._write(json.dumps({"step": step, **asdict(self._cost())}))

    def total(self, step: int) -> Cost:
        """Return the cost up to now of a search that has taken ``step`` steps."""
        if self._write is None:
            self._write = self._resume(step)
        return self._cost()

    def _cost(self) -> Cost:
        return Cost(
            self._before.wall_s + time.monotonic() - self._wall_s,
            self._before.processor_s + time.process_time() - self._processor_s,
            max(self._before.peak_memory_mb, peak_memory_mb()),
        )

    def _resume(self, step: int) -> Callable[[str], None]:
        """Read the cost of the first ``step`` steps and drop later lines."""
        lines = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                break  # a torn line can only be the last
            if row["step"] > step:
                break
            lines.append(line)
        last = json.loads(lines[-1]) if lines else {"step": 0}
        if last.pop("step") != step:
            raise HwnasError(f"{self.path} has no line for step {step}", f"remove {self.path.parent}")
        self._before = Cost(**last)
        write_text(self.path, "".join(f"{line}\n" for line in lines))
        return append_lines(self.path)


def peak_memory_mb() -> float:
    """Return the peak resident memory of this process in MB.

    On Linux ``ru_maxrss`` starts at the parent's value, so /proc is read where it exists.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6
