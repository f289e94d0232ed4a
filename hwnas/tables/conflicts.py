"""Find latencies on which tables to merge contradict each other: entries, timed networks, edge costs, corrections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwnas.tables.diff import UNKNOWN_ERROR, Amount, comparable, cost_amounts, entry_amounts, network_amounts
from hwnas.tables.schema import Correction, LatencyTable

TOLERATED = 0.1  # relative difference that is tolerated beyond the errors: the state of a machine changes as much
SHOWN = 3  # contradictions of each kind that an error names


@dataclass(frozen=True)
class Contradiction:
    """One latency with two values: ``first_ms`` in the table ``first``, ``other_ms`` in the table ``other``."""

    name: str
    first: str
    first_ms: float
    other: str
    other_ms: float

    @property
    def factor(self) -> float:
        """The larger latency over the smaller one."""
        least, most = sorted((self.first_ms, self.other_ms))
        return most / least if least > 0 else float("inf")

    def describe(self) -> str:
        times = f" ({self.factor:.3g} times)" if self.factor < float("inf") else ""
        return f"{self.name}: {self.first_ms:.4g} ms in {self.first}, {self.other_ms:.4g} ms in {self.other}{times}"


@dataclass(frozen=True)
class Compared:
    """The latencies of one kind that several tables have: ``shared`` of them.

    ``contradictions`` differ by more than their errors, the largest factor first.
    """

    kind: str
    shared: int
    contradictions: list[Contradiction]

    @property
    def large(self) -> list[Contradiction]:
        """The contradictions that are not tolerated."""
        return [found for found in self.contradictions if found.factor > 1 + TOLERATED]

    def describe(self) -> str:
        """Return how many are not tolerated, and the worst of them with both values."""
        listed = "; ".join(found.describe() for found in self.large[:SHOWN])
        more = f"; and {len(self.large) - SHOWN} more" if len(self.large) > SHOWN else ""
        return f"{len(self.large)} of {self.shared} shared {self.kind} ({listed}{more})"


def compare_latencies(tables: Mapping[str, LatencyTable], levels: Sequence[int]) -> list[Compared]:
    """Compare the entries, then the timed networks, of several tables by name.

    ``levels`` are the tables' preferences, least first: a latency is compared only between the tables of the least
    level that have it, because it is taken from one of these.
    """
    entries = {name: entry_amounts(table) for name, table in tables.items()}
    networks = {name: network_amounts(table) for name, table in tables.items()}
    return [_compare("entries", entries, levels), _compare("timed networks", networks, levels)]


def _compare(kind: str, amounts: Mapping[str, Mapping[str, Amount]], levels: Sequence[int]) -> Compared:
    keys = list(dict.fromkeys(key for listed in amounts.values() for key in listed))
    shared, found = 0, []
    for key in keys:
        first, *others = rivals([key in listed for listed in amounts.values()], levels)
        shared += bool(others)
        for other in others:
            names = list(amounts)
            one, two = (amounts[names[number]][key] for number in (first, other))
            if abs(one.ms - two.ms) > one.error_ms + two.error_ms:
                found.append(Contradiction(key, names[first], one.ms, names[other], two.ms))
    return Compared(kind, shared, sorted(found, key=lambda c: (-c.factor, c.name)))


def rivals(has_it: Sequence[bool], levels: Sequence[int]) -> list[int]:
    """Return the numbers of the tables of the least level among those that have something."""
    holders = [number for number, has in enumerate(has_it) if has]
    least = min(levels[number] for number in holders)
    return [number for number in holders if levels[number] == least]


def describe_edge_costs(network: str, first: str, one: LatencyTable, other: str, two: LatencyTable) -> str:
    """Describe how the edge costs of a network differ in two tables."""
    problem = f"{first} and {other} give different edge costs of {network}"
    if not comparable(one.edge_costs[network], two.edge_costs[network]):
        return f"{problem}, which have other cells or operations"
    amounts = {name: cost_amounts(table.edge_costs[network]) for name, table in ((first, one), (other, two))}
    found = _compare("costs", amounts, [0, 0])
    if not found.contradictions:
        return f"{problem}, all {found.shared} within their errors"
    worst = found.contradictions[0].describe()
    return f"{problem}: {len(found.contradictions)} of {found.shared} by more than their errors, such as {worst}"


def describe_correction(network: str, first: str, one: Correction, other: str, two: Correction) -> str:
    """Return how two corrections contradict each other; empty when they do not.

    They do when every factor of the one is larger than that of the other by more than 10 % of both: any sum of entries
    becomes another latency. Single factors may differ, because networks hardly determine them one by one.
    """
    families = {*one.factors, *two.factors}
    pairs = [(one.scale, two.scale), *((one.factor(family), two.factor(family)) for family in sorted(families))]
    apart = [b - a if abs(b - a) > UNKNOWN_ERROR * (a + b) else 0.0 for a, b in pairs]
    if not (min(apart) > 0 or max(apart) < 0):
        return ""
    return f"the correction of {network} (in {first} {one.describe()}; in {other} {two.describe()})"
