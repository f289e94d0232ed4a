"""Compare two tables: header fields, latencies in one table only, latencies that differ by more than their errors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from hwnas.spaces import NONE
from hwnas.tables.schema import CellCosts, EdgeCosts, LatencyTable

UNKNOWN_ERROR = 0.1  # assumed for a latency without an error, relative to it
NORMAL_95 = 1.96  # half the 95 % interval of a normal distribution, in standard deviations


@dataclass(frozen=True)
class Amount:
    """One latency and the half width of its 95 % interval; ``known`` is false when that is an assumption."""

    ms: float
    error_ms: float
    known: bool = True


@dataclass(frozen=True)
class Difference:
    """One latency in both tables. ``name`` is an entry's key or a position in a network's edge costs.

    ``excess`` is the difference divided by the sum of both errors; above 1 the errors do not explain it.
    """

    name: str
    a_ms: float
    b_ms: float
    ratio: float | None
    tolerance_ms: float
    excess: float
    errors_known: bool


@dataclass(frozen=True)
class TableDiff:
    """Differences of two tables. ``header`` is ``{field: (a, b)}``.

    ``common`` is the number of latencies in both tables; ``differing`` are those that differ by more than their errors,
    the worst first. ``unlike`` names networks whose edge costs cannot be compared.
    """

    header: dict[str, tuple[Any, Any]]
    only_a: list[str]
    only_b: list[str]
    unlike: list[str]
    common: int
    errors_unknown: int
    median_ratio: float | None
    differing: list[Difference]

    @property
    def differs(self) -> bool:
        return bool(self.only_a or self.only_b or self.unlike or self.differing)


def diff_tables(a: LatencyTable, b: LatencyTable) -> TableDiff:
    """Compare two tables. Latencies are not scaled: a machine that became slower shows in ``median_ratio``.

    Two latencies differ when their distance is larger than the sum of their errors. An unknown error counts as a tenth
    of the latency.
    """
    shared = [network for network in a.edge_costs if network in b.edge_costs]
    unlike = [network for network in shared if not comparable(a.edge_costs[network], b.edge_costs[network])]
    in_a, in_b = amounts(a, unlike), amounts(b, unlike)
    both = [_difference(name, in_a[name], in_b[name]) for name in in_a if name in in_b]
    ratios = [difference.ratio for difference in both if difference.ratio is not None]
    return TableDiff(
        header=_header(a, b),
        only_a=[name for name in in_a if name not in in_b],
        only_b=[name for name in in_b if name not in in_a],
        unlike=unlike,
        common=len(both),
        errors_unknown=sum(not difference.errors_known for difference in both),
        median_ratio=median(ratios) if ratios else None,
        differing=sorted((d for d in both if d.excess > 1), key=lambda d: (-d.excess, d.name)),
    )


def amounts(table: LatencyTable, without: Collection[str] = ()) -> dict[str, Amount]:
    """Return every latency of a table by name: entries by key, then edge costs by network, cell, edge and operation.

    The networks in ``without`` and the operation ``none`` are left out.
    """
    result = entry_amounts(table)
    for network, costs in table.edge_costs.items():
        if network not in without:
            result |= {f"{network} {name}": amount for name, amount in cost_amounts(costs).items()}
    return result


def entry_amounts(table: LatencyTable) -> dict[str, Amount]:
    """Return the latencies of the entries by key."""
    listed = sorted(table.entries, key=lambda entry: entry.workload)
    return {entry.workload.key: latency_amount(entry.latency_ms, entry.error_ms) for entry in listed}


def network_amounts(table: LatencyTable) -> dict[str, Amount]:
    """Return the latencies of the timed networks by the network's sizes and its architecture."""
    return {
        f"{key} {network.architecture}": latency_amount(network.latency_ms, network.error_ms)
        for key, listed in table.networks.items()
        for network in listed
    }


def cost_amounts(costs: EdgeCosts) -> dict[str, Amount]:
    """Return the edge costs of a network by cell, edge and operation, and its base."""
    result = {"base": Amount(costs.base_ms, NORMAL_95 * costs.covariance[0][0] ** 0.5)}
    for kind, cell in costs.cells.items():
        for edge, op, amount in edge_amounts(costs, cell):
            result[f"{kind} edge {edge} {op}"] = amount
    return result


def latency_amount(ms: float, error_ms: float | None) -> Amount:
    """Return a latency with its error, a tenth of it where the error is unknown (None)."""
    return Amount(ms, UNKNOWN_ERROR * ms, known=False) if error_ms is None else Amount(ms, error_ms)


def edge_amounts(costs: EdgeCosts, cell: CellCosts) -> Iterator[tuple[int, str, Amount]]:
    """Yield (edge, operation, cost of the edge when it is live) for every edge of a cell and operation but ``none``."""
    for edge, (live, always, errors) in enumerate(zip(cell.live_ms, cell.always_ms, cell.error_ms, strict=True)):
        for op, live_ms, always_ms, error_ms in zip(costs.operations, live, always, errors, strict=True):
            if op != NONE:
                yield edge, op, Amount(live_ms + always_ms, error_ms)


def comparable(one: EdgeCosts, other: EdgeCosts) -> bool:
    """Return whether two networks' edge costs have the same cells and operations."""

    def edges(costs: EdgeCosts) -> Mapping[str, int]:
        return {kind: len(cell.macs) for kind, cell in costs.cells.items()}

    return one.operations == other.operations and edges(one) == edges(other)


def _difference(name: str, a: Amount, b: Amount) -> Difference:
    tolerance, apart = a.error_ms + b.error_ms, abs(a.ms - b.ms)
    # Both errors are zero: only equal latencies agree.
    excess = apart / tolerance if tolerance else (0.0 if not apart else float("inf"))
    ratio = b.ms / a.ms if a.ms > 0 else None
    return Difference(name, a.ms, b.ms, ratio, tolerance, excess, a.known and b.known)


def _header(a: LatencyTable, b: LatencyTable) -> dict[str, tuple[Any, Any]]:
    one, other = header_fields(a), header_fields(b)
    return {name: (one[name], other[name]) for name in one if one[name] != other[name]}


def header_fields(table: LatencyTable) -> dict[str, Any]:
    """Return the header fields of a table by dotted names such as ``runtime.threads``."""
    fields: dict[str, Any] = {"version": table.version}
    for part in ("device", "runtime", "protocol"):
        fields |= {f"{part}.{name}": value for name, value in getattr(table, part).model_dump(mode="json").items()}
    fields |= {name: getattr(table, name) for name in ("provenance", "source", "licence")}
    for name in ("sentinel_ms", "sentinel_drift", "noise"):
        fields[f"quality.{name}"] = getattr(table.quality, name)
    for name in ("correction", "networks"):
        fields[f"{name} of"] = sorted(getattr(table, name))
    return fields
