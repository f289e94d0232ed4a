"""Check a table without timing: whether it is complete, and whether larger entries take no less time.

Entries out of order are warnings, not errors: caches and vector widths make real exceptions (17 channels can take
longer than 32).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwnas.spaces import SearchSpace, Workload
from hwnas.tables.schema import EdgeCosts, Entry, LatencyTable

TOLERANCE = 0.1  # a larger entry may be this much quicker, in addition to both errors
Size = Callable[[Entry], tuple[int, int]]


@dataclass(frozen=True)
class Disorder:
    """Two entries: ``larger`` has more channels or a larger image than ``smaller`` and takes less time."""

    what: Literal["channels", "resolution"]
    smaller: str
    smaller_ms: float
    larger: str
    larger_ms: float

    def describe(self) -> str:
        more = "more channels" if self.what == "channels" else "a larger image"
        return (
            f"{self.larger} takes {self.larger_ms:.4g} ms, {self.smaller} takes {self.smaller_ms:.4g} ms: "
            f"{more} in {self.larger_ms / self.smaller_ms:.2f} times the time"
        )


@dataclass(frozen=True)
class Coverage:
    """Workloads of a network that a table has. ``command`` measures the ``missing`` ones.

    ``note`` is empty, or states that the head was carried over from another number of classes, or which sizes differ
    where workloads are missing.
    """

    network: str
    needed: int
    missing: list[str]
    command: str
    note: str = ""


def disorders(entries: Iterable[Entry]) -> list[Disorder]:
    """Return pairs of entries of one operation and stride where the larger is quicker by more than the errors and 10 %.

    Each too quick entry is paired with the smaller entry that contradicts it most. The largest differences come first.
    """
    groups: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups["channels", entry.op, entry.stride, entry.height, entry.width].append(entry)
        groups["resolution", entry.op, entry.stride, entry.in_channels, entry.out_channels].append(entry)
    found = []
    for (dimension, *_), group in groups.items():
        if dimension == "channels":
            pairs = _contradicted(group, lambda entry: (entry.in_channels, entry.out_channels))
            found += [_disorder("channels", smaller, larger) for smaller, larger in pairs]
        else:
            pairs = _contradicted(group, lambda entry: (entry.height, entry.width))
            found += [_disorder("resolution", smaller, larger) for smaller, larger in pairs]
    return sorted(found, key=lambda d: (d.larger_ms / d.smaller_ms, d.larger, d.smaller))


def _disorder(dimension: Literal["channels", "resolution"], smaller: Entry, larger: Entry) -> Disorder:
    return Disorder(dimension, smaller.workload.key, smaller.latency_ms, larger.workload.key, larger.latency_ms)


def _contradicted(group: Sequence[Entry], size: Size) -> list[tuple[Entry, Entry]]:
    """Return (smaller, larger) pairs where the larger entry takes less than the least time of the smaller.

    A Fenwick tree over the second size holds the longest least time so far, so that n entries take O(n log n) steps.
    """
    ranks = {second: rank for rank, second in enumerate(sorted({size(entry)[1] for entry in group}), 1)}
    longest: list[tuple[float, Entry] | None] = [None] * (len(ranks) + 1)
    found = []
    for entry in sorted(group, key=size):
        rank = ranks[size(entry)[1]]
        best: tuple[float, Entry] | None = None
        index = rank
        while index:
            best = _longer(best, longest[index])
            index -= index & -index
        if best and best[0] > entry.latency_ms + (entry.error_ms or 0.0):
            found.append((best[1], entry))
        least = (1 - TOLERANCE) * entry.latency_ms - (entry.error_ms or 0.0), entry
        index = rank
        while index < len(longest):
            longest[index] = _longer(longest[index], least)
            index += index & -index
    return found


def _longer(one: tuple[float, Entry] | None, other: tuple[float, Entry] | None) -> tuple[float, Entry] | None:
    if one is None or other is None:
        return one or other
    return other if other[0] > one[0] else one


def missing_workloads(table: LatencyTable, needed: Iterable[Workload]) -> list[str]:
    """Return the keys of the workloads in ``needed`` that have no entry in the table."""
    known = {entry.workload for entry in table.entries}
    return [workload.key for workload in needed if workload not in known]


def missing_costs(costs: EdgeCosts, space: SearchSpace) -> list[str]:
    """Return the cells of ``space`` whose costs are not complete: one for every operation on every edge."""
    if costs.operations != list(space.operations):
        return [f"cell {kind}" for kind in space.cells]
    given = {kind: len(cell.macs) for kind, cell in costs.cells.items()}
    return [f"cell {kind}" for kind, cell in space.cells.items() if given.get(kind) != len(cell.edges)]
