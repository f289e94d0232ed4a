"""Measure the cost of a search: seconds and memory, summed over interruptions."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.files import write_text


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, processor seconds of the process and of those that it started, and peak resident memory of
    the process in MB (10^6 bytes).
    """

    wall_s: float = 0.0
    processor_s: float = 0.0
    peak_memory_mb: float = 0.0


class CostMeter:
    """Measures cost from the creation of the object on, and adds the cost ``before``."""

    def __init__(self, before: Cost) -> None:
        self._before = before
        self._wall_s, self._processor_s = time.monotonic(), _processor_s()

    def total(self) -> Cost:
        """Return the cost up to now."""
        return Cost(
            self._before.wall_s + time.monotonic() - self._wall_s,
            self._before.processor_s + _processor_s() - self._processor_s,
            max(self._before.peak_memory_mb, peak_memory_mb()),
        )


def _processor_s() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def cost_until(path: Path, step: int) -> Cost:
    """Return the cost of the first ``step`` steps from a log with one line a step, and drop the later lines.

    An interrupted search resumes from a checkpoint, so every step counts once however often it was interrupted. Raises
    HwnasError where the log has no line for the step.
    """
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            break  # a torn line can only be the last
        if row["step"] > step:
            break
        lines.append(line)
    last = json.loads(lines[-1]) if lines else {"step": 0}
    if last.pop("step") != step:
        raise HwnasError(f"{path} has no line for step {step}", f"remove {path.parent}")
    write_text(path, "".join(f"{line}\n" for line in lines))
    return Cost(**last)


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
