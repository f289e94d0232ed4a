"""Show progress on standard error: bars with the remaining time on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

OnProgress = Callable[[str, int, int], None]  # called with stage, done, total


class Progress:
    """Progress display: a context manager, called with (stage, done, total). Shows nothing when ``quiet``."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, tuple[float, int, float]] = {}  # stage: start time, first count, time of the next line

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
        if done >= total:  # the next use of the stage starts from the beginning
            if self._started.pop(stage, None):
                print(f"{stage}: {done}/{total}", file=sys.stderr, flush=True)
            return
        start, first, due = self._started.setdefault(stage, (now, done, now + 5))
        if now >= due and done > first:
            left = (now - start) / (done - first) * (total - done)
            print(f"{stage}: {done}/{total}, {left:.0f} s left", file=sys.stderr, flush=True)
            self._started[stage] = (start, first, now + 10)

    def log(self, line: str) -> None:
        """Print one line above the bars."""
        if self.quiet:
            return
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
