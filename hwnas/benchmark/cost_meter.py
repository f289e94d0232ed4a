"""What a search has cost: seconds and memory, added up over its interruptions."""

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
    """Seconds by the clock and of all processors, and the most resident memory of a process in MB (10^6 bytes)."""

    wall_s: float = 0.0
    processor_s: float = 0.0
    peak_memory_mb: float = 0.0


class Meter:
    """Writes the cost so far to a file, a line a step; what follows a checkpoint that is taken up again is forgotten.

    So every step counts once, however often the search was killed. It starts to count as it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wall_s, self._processor_s = time.monotonic(), time.process_time()
        self._before = Cost()
        self._write: Callable[[str], None] | None = None

    def lap(self, step: int) -> None:
        """Call it after every step, with the number of steps so far."""
        if self._write is None:
            self._write = self._go_on(step - 1)
        self._write(json.dumps({"step": step, **asdict(self._cost())}))

    def total(self, step: int) -> Cost:
        """The cost of a search that has made ``step`` steps, up to now."""
        if self._write is None:
            self._write = self._go_on(step)
        return self._cost()

    def _cost(self) -> Cost:
        return Cost(
            self._before.wall_s + time.monotonic() - self._wall_s,
            self._before.processor_s + time.process_time() - self._processor_s,
            max(self._before.peak_memory_mb, peak_memory_mb()),
        )

    def _go_on(self, step: int) -> Callable[[str], None]:
        """Read what ``step`` steps have cost, and forget later ones."""
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                break  # a torn line is the last one
            if row["step"] > step:
                break
            kept.append(line)
        last = json.loads(kept[-1]) if kept else {"step": 0}
        if last.pop("step") != step:
            raise HwnasError(f"{self.path} does not say what {step} steps have cost", f"remove {self.path.parent}")
        self._before = Cost(**last)
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        return append_lines(self.path)


def peak_memory_mb() -> float:
    """The most resident memory that this process has had.

    Not ``ru_maxrss`` where Linux tells it otherwise: that one begins with what the parent process had.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / 1e6
