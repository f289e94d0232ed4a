"""Where a step's time goes: the parts of a step, and a look at some steps with torch's profiler."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from hwnas.files import atomic_path, write_json

WARM_UP, STEPS = 3, 5  # of every kind of step: how many pass before, and are looked at
PARTS = ("data", "sampling", "forward", "constraint", "backward", "averaging", "optimiser")
OPERATORS = 10  # the dearest of torch's own, which the table names
PREFIX = "hwnas: "


def span(name: str) -> record_function:
    """Inside, time is counted for that part of a step; parts lie side by side."""
    return record_function(PREFIX + name)


class StepProfile:
    """Profiles the first steps of every kind, behind a warm-up; use it as a context, call ``step`` for every step.

    ``folder`` gets, of each kind, a Chrome trace, and ``steps.json``; ``say`` hears a table. What the profiler itself
    costs, a few microseconds an operator, is in the times. Nothing is written unless ``writes``.
    """

    def __init__(self, folder: Path, say: Callable[[str], None], writes: bool = True) -> None:
        self.folder, self.log, self.writes = folder, say, writes
        self.seen: dict[str, int] = {}
        self.tables: dict[str, Any] = {}
        self._kind, self._profiler = "", profile()

    def __enter__(self) -> StepProfile:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self._kind and not failure:
            self._stop()
        if not (self.tables or failure):
            self.log(f"too few steps to profile one: {WARM_UP + 1} of a kind are needed")

    def step(self, kind: str, take: Callable[[], None], evaluate: Callable[[], object]) -> None:
        """Take a step. ``evaluate`` is called once a kind, to be timed."""
        if self._kind not in ("", kind):
            self._stop()
        seen = self.seen[kind] = self.seen.get(kind, 0) + 1
        if seen == WARM_UP + 1:
            self._start(kind)
        if not self._kind:
            take()
            return
        with span("step"):
            take()
        if seen == WARM_UP + STEPS:
            with span("evaluation"):
                evaluate()
            self._stop()

    def _start(self, kind: str) -> None:
        self._kind, self._profiler = kind, started()

    def _stop(self) -> None:
        kind, self._kind = self._kind, ""
        stop(self._profiler)
        self.tables[kind] = table_of(self._profiler)
        if self.writes:
            trace = self.folder / f"{kind.replace(' ', '_')}.trace.json"
            with atomic_path(trace) as temporary:
                self._profiler.export_chrome_trace(str(temporary))
            self.tables[kind]["trace"] = trace.name
            write_json(self.folder / "steps.json", self.tables)
            for line in lines_of(kind, self.tables[kind]):
                self.log(line)


def started() -> profile:
    """torch's profiler at work, of a GPU, too, where there is one."""
    on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    profiler = profile(activities=[ProfilerActivity.CPU, *on_gpu])
    with _hushed():
        profiler.start()
    return profiler


def stop(profiler: profile) -> None:
    with _hushed():
        profiler.stop()


@contextmanager
def _hushed() -> Iterator[None]:
    """Inside, standard error is closed to what torch's profiler says of itself, whatever its log level."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def table_of(profiler: profile) -> dict[str, Any]:
    """What a profile with the parts of some steps says, in milliseconds a step."""
    events = profiler.key_averages()
    found = {event.key.removeprefix(PREFIX): event for event in events if event.key.startswith(PREFIX)}
    step = found["step"]
    whole = step.cpu_time_total

    def row(name: str, time_us: float, calls: int) -> dict[str, Any]:
        return {"part": name, "ms": time_us / step.count / 1e3, "share": time_us / whole, "calls": calls / step.count}

    parts = [row(name, found[name].cpu_time_total, found[name].count) for name in PARTS if name in found]
    rest = whole - sum(found[name].cpu_time_total for name in PARTS if name in found)
    own = sorted((e for e in events if not e.key.startswith(PREFIX)), key=lambda e: -e.self_cpu_time_total)
    return {
        "steps": step.count,
        "step_ms": whole / step.count / 1e3,
        "parts": [*parts, row("rest", rest, step.count)],
        "evaluation_ms": found["evaluation"].cpu_time / 1e3 if "evaluation" in found else None,
        "operators": [
            {"operator": e.key, "self_ms": e.self_cpu_time_total / step.count / 1e3, "calls": e.count / step.count}
            for e in own[:OPERATORS]
        ],
    }


def lines_of(kind: str, table: dict[str, Any]) -> list[str]:
    """A table as lines of text."""
    head = f"profile of {table['steps']} steps, {kind}: {table['step_ms']:.4g} ms a step"
    rows = [f"  {row['part']:<12}{row['ms']:>10.4g} ms{row['share']:>8.1%}" for row in table["parts"]]
    if table["evaluation_ms"] is not None:
        rows.append(f"  {'evaluation':<12}{table['evaluation_ms']:>10.4g} ms, once an epoch and target")
    dearest = ", ".join(f"{row['operator']} {row['self_ms']:.4g} ms" for row in table["operators"][:3])
    trace = f"; trace: {table['trace']}" if "trace" in table else ""
    return [head, *rows, f"  dearest operators: {dearest}{trace}"]
