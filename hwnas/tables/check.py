"""What a table's contents tell on their own: whether it is complete, and whether more work takes no less time.

Order is what physics says, but caches and vector widths make real exceptions (17 channels may take longer than 32). So
entries out of order are warnings with their numbers, not faults.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from hwnas.spaces import SearchSpace, Workload
from hwnas.tables.schema import EdgeCosts, Entry, LatencyTable

TOLERATED = 0.1  # by so much may more work be quicker, beyond both errors
Size = Callable[[Entry], tuple[int, int]]


@dataclass(frozen=True)
class Disorder:
    """``larger`` has more channels, or a larger image, than ``smaller``, and takes less time."""

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
    """How much of a network a table holds. ``command`` measures what is ``missing``."""

    network: str
    needed: int
    missing: list[str]
    command: str


def disorders(entries: Iterable[Entry]) -> list[Disorder]:
    """Entries of one operation and stride that are quicker than one that is no larger in any size, beyond both errors
    and a tenth; the widest apart first. For each too quick entry the smaller one that contradicts it most.
    """
    groups: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups["channels", entry.op, entry.stride, entry.height, entry.width].append(entry)
        groups["resolution", entry.op, entry.stride, entry.in_channels, entry.out_channels].append(entry)
    found = []
    for (what, *_), group in groups.items():
        if what == "channels":
            pairs = _contradicted(group, lambda entry: (entry.in_channels, entry.out_channels))
            found += [_disorder("channels", smaller, larger) for smaller, larger in pairs]
        else:
            pairs = _contradicted(group, lambda entry: (entry.height, entry.width))
            found += [_disorder("resolution", smaller, larger) for smaller, larger in pairs]
    return sorted(found, key=lambda d: (d.larger_ms / d.smaller_ms, d.larger, d.smaller))


def _disorder(what: Literal["channels", "resolution"], smaller: Entry, larger: Entry) -> Disorder:
    return Disorder(what, smaller.workload.key, smaller.latency_ms, larger.workload.key, larger.latency_ms)


def _contradicted(group: Sequence[Entry], size: Size) -> list[tuple[Entry, Entry]]:
    """(smaller, larger) where the larger takes less than the smaller at least takes.

    A Fenwick tree over the second size holds the longest least time seen so far, so that a table of a hundred thousand
    entries is gone through in n log n.
    """
    ranks = {second: rank for rank, second in enumerate(sorted({size(entry)[1] for entry in group}), 1)}
    longest: list[tuple[float, Entry] | None] = [None] * (len(ranks) + 1)
    found = []
    for entry in sorted(group, key=size):
        rank = ranks[size(entry)[1]]
        best: tuple[float, Entry] | None = None
        place = rank
        while place:
            best = _longer(best, longest[place])
            place -= place & -place
        if best and best[0] > entry.latency_ms + (entry.error_ms or 0.0):
            found.append((best[1], entry))
        least = (1 - TOLERATED) * entry.latency_ms - (entry.error_ms or 0.0), entry
        place = rank
        while place < len(longest):
            longest[place] = _longer(longest[place], least)
            place += place & -place
    return found


def _longer(one: tuple[float, Entry] | None, other: tuple[float, Entry] | None) -> tuple[float, Entry] | None:
    if one is None or other is None:
        return one or other
    return other if other[0] > one[0] else one


def missing_workloads(table: LatencyTable, needed: Iterable[Workload]) -> list[str]:
    """The keys of the workloads in ``needed`` that the table has no entry for."""
    known = {entry.workload for entry in table.entries}
    return [workload.key for workload in needed if workload not in known]


def missing_costs(costs: EdgeCosts, space: SearchSpace) -> list[str]:
    """The cells of ``space`` of which ``costs`` does not say what every operation takes on every edge."""
    if costs.operations != list(space.operations):
        return [f"cell {kind}" for kind in space.cells]
    given = {kind: len(cell.macs) for kind, cell in costs.cells.items()}
    return [f"cell {kind}" for kind, cell in space.cells.items() if given.get(kind) != len(cell.edges)]
