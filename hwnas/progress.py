"""Progress: bars with the time left on a terminal, plain lines in a log. Always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any


class Progress:
    """Call it with (stage, done, total); use it as a context. Nothing is shown when ``quiet``."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, tuple[float, int]] = {}
        self._next_line: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self.quiet:
            return
        if self._bar:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage, total=total)
            self._bar.update(self._tasks[stage], completed=done, total=total)
            return
        now = time.monotonic()
        start, first = self._started.setdefault(stage, (now, done))
        if done >= total or now >= self._next_line.get(stage, now + 5):
            left = (now - start) / max(done - first, 1) * (total - done)
            print(f"{stage}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
            self._next_line[stage] = now + 10
        self._next_line.setdefault(stage, now + 5)

    def say(self, line: str) -> None:
        """One line above the bars."""
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
