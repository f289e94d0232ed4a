"""Profile a few search steps with torch's profiler: the time of each span of a step, and a Chrome trace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

from hwnas.files import atomic_path, write_json
from hwnas.training.gpu_busy import busy_us
from hwnas.training.step_table import StepOperator, StepSpan, StepTable

WARM_UP, STEPS = 3, 5  # of every kind of step: steps before the profile, steps in it
SPANS = ("data", "sampling", "forward", "constraint", "backward", "averaging", "optimiser")
OPERATORS = 10  # torch operators in a table, those with the most time of their own
PREFIX = "hwnas: "


def span(name: str) -> record_function:
    """Count the time inside for a span of a step; spans do not overlap."""
    return record_function(PREFIX + name)


class StepProfile:
    """A profile of the first steps of every kind, after a warm-up; a context manager whose ``step`` takes every step.

    ``folder`` gets ``steps.json`` and, for each kind, a Chrome trace; ``log`` gets a table. The times include the
    profiler's own cost, a few microseconds an operator. Nothing is written or logged unless ``writes``.
    """

    def __init__(self, folder: Path, log: Callable[[str], None], writes: bool = True) -> None:
        self.folder, self.log, self.writes = folder, log, writes
        self.seen: dict[str, int] = {}
        self.tables: dict[str, StepTable] = {}
        self._kind, self._profiler = "", profile()

    def __enter__(self) -> StepProfile:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if self._kind and not failure:
            self._stop()
        if not (self.tables or failure):
            self.log(f"too few steps for a profile: {WARM_UP + 1} of a kind are needed")

    def step(self, kind: str, take: Callable[[], None], evaluate: Callable[[], object]) -> None:
        """Take a step, profiled or not. ``evaluate`` is called once a kind, to be timed."""
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
            wait_for_gpu()
        if seen == WARM_UP + STEPS:
            with span("evaluation"):
                evaluate()
            self._stop()

    def _start(self, kind: str) -> None:
        self._kind, self._profiler = kind, started()

    def _stop(self) -> None:
        kind, self._kind = self._kind, ""
        stop(self._profiler)
        table = self.tables[kind] = table_of(self._profiler)
        if self.writes:
            trace = self.folder / f"{kind.replace(' ', '_')}.trace.json"
            with atomic_path(trace) as temporary:
                self._profiler.export_chrome_trace(str(temporary))
            table = self.tables[kind] = table.model_copy(update={"trace": trace.name})
            write_json(self.folder / "steps.json", {name: each.to_json() for name, each in self.tables.items()})
            for line in table.describe(kind):
                self.log(line)


def started() -> profile:
    """Start torch's profiler, of the CPU and of a GPU where there is one."""
    on_gpu = [ProfilerActivity.CUDA] if torch.cuda.is_available() else []
    profiler = profile(activities=[ProfilerActivity.CPU, *on_gpu])
    with _without_stderr():
        profiler.start()
    return profiler


def wait_for_gpu() -> None:
    """Wait until a GPU, where torch can use one, has done all queued work: a profiled step ends with its kernels."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def stop(profiler: profile) -> None:
    with _without_stderr():
        profiler.stop()


@contextmanager
def _without_stderr() -> Iterator[None]:
    """Discard standard error, where torch's profiler prints notes at any log level."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as null:
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def table_of(profiler: profile) -> StepTable:
    """Return the table of a profile: spans and operators, in milliseconds a step.

    On a GPU the spans are the processor's time: it queues work, and waits for it in "rest".
    """
    # On a GPU a span has a second row, of the kernels that it launched.
    events = [event for event in profiler.key_averages() if event.device_type == DeviceType.CPU]
    found = {event.key.removeprefix(PREFIX): event for event in events if event.key.startswith(PREFIX)}
    step = found["step"]
    total, busy = step.cpu_time_total, busy_us(profiler, PREFIX)

    def row(name: str, time_us: float, calls: int) -> StepSpan:
        return StepSpan(part=name, ms=time_us / step.count / 1e3, share=time_us / total, calls=calls / step.count)

    spans = [row(name, found[name].cpu_time_total, found[name].count) for name in SPANS if name in found]
    rest = total - sum(found[name].cpu_time_total for name in SPANS if name in found)
    own = sorted((e for e in events if not e.key.startswith(PREFIX)), key=lambda e: -e.self_cpu_time_total)
    return StepTable(
        steps=step.count,
        step_ms=total / step.count / 1e3,
        parts=[*spans, row("rest", rest, step.count)],
        evaluation_ms=found["evaluation"].cpu_time / 1e3 if "evaluation" in found else None,
        gpu_ms=None if busy is None else busy / step.count / 1e3,
        operators=[
            StepOperator(operator=e.key, self_ms=e.self_cpu_time_total / step.count / 1e3, calls=e.count / step.count)
            for e in own[:OPERATORS]
        ],
    )
