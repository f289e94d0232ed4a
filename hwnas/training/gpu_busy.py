"""The time in which a GPU worked during profiled steps."""

from __future__ import annotations

from collections.abc import Iterable

from torch.autograd import DeviceType
from torch.profiler import profile

Interval = tuple[float, float]


def busy_us(profiler: profile, prefix: str) -> float | None:
    """Return the microseconds in which a GPU worked inside the spans named ``prefix`` + "step".

    None where no work of a GPU was recorded. On a GPU a span has a second event, from its first kernel to its last.
    """
    events = profiler.events() or []
    work = [event for event in events if event.device_type != DeviceType.CPU and not event.name.startswith(prefix)]
    if not work:
        return None
    steps = [event for event in events if event.device_type == DeviceType.CPU and event.name == f"{prefix}step"]
    return covered(_intervals(work), _intervals(steps))


def covered(work: Iterable[Interval], windows: Iterable[Interval]) -> float:
    """Return the length of the union of ``work`` inside the ``windows``, which do not overlap."""
    union: list[Interval] = []
    for start, end in sorted(work):
        if union and start <= union[-1][1]:
            union[-1] = union[-1][0], max(union[-1][1], end)
        else:
            union.append((start, end))
    inside = (min(end, last) - max(start, first) for first, last in windows for start, end in union)
    return sum(length for length in inside if length > 0)


def _intervals(events: Iterable[object]) -> list[Interval]:
    return [(event.time_range.start, event.time_range.end) for event in events]  # type: ignore[attr-defined]
