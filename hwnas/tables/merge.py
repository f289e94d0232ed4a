"""Merge several tables of the same device and runtime into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import canonical_json
from hwnas.tables.conflicts import Compared, compare_latencies, describe_correction, describe_edge_costs, rivals
from hwnas.tables.importers.table import IMPORTED, is_imported
from hwnas.tables.schema import (
    NOT_KNOWN,
    Correction,
    EdgeCosts,
    Entry,
    LatencyTable,
    MeasuredNetwork,
    Quality,
)
from hwnas.text import shorten
from hwnas.validation import first_problem

CHOOSE = "choose with --prefer FILE or --prefer-newer, or compare them with 'hwnas table diff'"
MUST_MATCH = ("name", "version", "provider", "precision", "threads", "batch", "options")
Rank = Callable[[int, float | None], tuple[Any, ...]]  # (number of the table, error in ms) -> sort key, least first


@dataclass(frozen=True)
class Merged:
    """A merged table. ``notes`` are lines on scaled and differing latencies, and on combined licences."""

    table: LatencyTable
    notes: list[str]


def merge_tables(tables: Mapping[str, LatencyTable], prefer_newer: bool = False, prefer: str | None = None) -> Merged:
    """Return the union of ``tables``; their keys name them in errors.

    What several tables have is taken from the one with the smallest error, the first of equal ones; with
    ``prefer_newer`` from the newest table, with ``prefer`` from the table of that name. All latencies are scaled to the
    machine speed of the first table that has a sentinel.

    Raises HwnasError when the tables are not of one device, runtime, protocol and provenance, when ``prefer_newer`` is
    set and a table has no date, and when, without a preference between them, two tables have different edge costs of a
    network, or latencies that differ by more than their errors and 10 %.
    """
    names, given = list(tables), list(tables.values())
    for name, other in zip(names[1:], given[1:], strict=True):
        _check_alike(names[0], given[0], name, other)
    if prefer_newer:
        for name, table in tables.items():
            if table.protocol.date in ("", NOT_KNOWN):
                raise HwnasError(f"{name} does not say when it was measured", "merge without --prefer-newer")
    notes: list[str] = []
    reference = next((name for name, table in tables.items() if table.quality.sentinel_ms), None)
    sentinel_ms = tables[reference].quality.sentinel_ms if reference else None
    scaled = given
    if reference and sentinel_ms:
        scaled = [_to_one_state(name, table, reference, sentinel_ms, notes) for name, table in tables.items()]
    # Dates have the form YYYY-MM-DDTHH:MM:SSZ, so that their text sorts by time.
    ages = _ranks([table.protocol.date for table in given])
    levels = [-age for age in ages] if prefer_newer else [int(prefer not in (None, name)) for name in names]

    def rank(number: int, error_ms: float | None) -> tuple[Any, ...]:
        return levels[number], error_ms is None, error_ms or 0.0, number

    _check_edge_costs(names, given, levels)
    _check_latencies(dict(zip(names, scaled, strict=True)), levels, notes)
    chosen = _chosen_entries(scaled, rank)
    owners = _owners(scaled, levels)
    edge_costs = _edge_costs(scaled, levels)
    newest = max(range(len(given)), key=lambda number: (ages[number], -number))
    try:
        table = LatencyTable(
            version=2 if edge_costs else 1,
            device=given[0].device,
            runtime=given[0].runtime,
            protocol=given[newest].protocol,
            quality=_quality(scaled, chosen, owners, sentinel_ms),
            correction=_corrections(scaled, owners),
            networks=_networks(scaled, owners, rank),
            provenance=given[0].provenance,
            source=_source(given),
            licence=_licence(given, notes),
            entries=[entry for _, entry in chosen.values()],
            edge_costs=edge_costs,
        )
        table = LatencyTable.model_validate(table.content())  # model_copy has not validated the scaled numbers
    except ValidationError as error:
        raise HwnasError(f"the merged table is not a valid one: {first_problem(error)}") from None
    return Merged(table, notes)


def _check_alike(name: str, table: LatencyTable, other_name: str, other: LatencyTable) -> None:
    """Raise HwnasError, with all differing fields and their values, unless both tables can be merged."""
    pairs = {"device.fingerprint": (table.device.fingerprint, other.device.fingerprint)}
    pairs |= {
        f"runtime.{field}": (getattr(table.runtime, field), getattr(other.runtime, field)) for field in MUST_MATCH
    }
    pairs["protocol.version"] = (str(table.protocol.version), str(other.protocol.version))
    pairs["provenance"] = (table.provenance, other.provenance)
    unlike = [f"{field} is {_shown(one)} and {_shown(two)}" for field, (one, two) in pairs.items() if one != two]
    if unlike:
        raise HwnasError(
            f"{name} and {other_name} differ in device, runtime or protocol: {', '.join(unlike)}",
            "merge tables of one kind, or compare them with 'hwnas table diff'",
        )


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    return repr(shorten(text, 60))


def _ranks(dates: Sequence[str]) -> list[int]:
    order = sorted(set(dates))
    return [order.index(date) for date in dates]


def _to_one_state(name: str, table: LatencyTable, reference: str, sentinel_ms: float, notes: list[str]) -> LatencyTable:
    """Return ``table`` with its latencies scaled to the machine speed at which ``reference`` was measured."""
    own_ms = table.quality.sentinel_ms
    if not own_ms:
        notes.append(f"{name} has no sentinel latency: its latencies are not scaled")
        return table
    if own_ms == sentinel_ms:
        return table
    factor = sentinel_ms / own_ms
    notes.append(
        f"{name}: all latencies times {factor:.4f}, because its sentinel took {own_ms:.4g} ms and that of {reference} "
        f"{sentinel_ms:.4g} ms"
    )
    return scaled_table(table, factor)


def scaled_table(table: LatencyTable, factor: float) -> LatencyTable:
    """Return ``table`` for a machine that is ``factor`` times as slow. The factors of corrections do not change."""

    def entry(old: Entry) -> Entry:
        times = ("latency_ms", "error_ms", "p10_ms", "p90_ms")
        return old.model_copy(update={field: _times(getattr(old, field), factor) for field in times})

    def network(old: MeasuredNetwork) -> MeasuredNetwork:
        return old.model_copy(
            update={field: _times(getattr(old, field), factor) for field in ("latency_ms", "error_ms")}
        )

    quality = table.quality
    return table.model_copy(
        update={
            "entries": [entry(old) for old in table.entries],
            "networks": {key: [network(old) for old in listed] for key, listed in table.networks.items()},
            "correction": {
                key: old.model_copy(update={"offset_ms": old.offset_ms * factor})
                for key, old in table.correction.items()
            },
            "edge_costs": {key: scaled_costs(old, factor) for key, old in table.edge_costs.items()},
            "quality": quality.model_copy(update={"sentinel_ms": _times(quality.sentinel_ms, factor)}),
        }
    )


def scaled_costs(costs: EdgeCosts, factor: float) -> EdgeCosts:
    """Return edge costs for a machine that is ``factor`` times as slow."""

    def grid(rows: list[list[float]], by: float = factor) -> list[list[float]]:
        return [[value * by for value in row] for row in rows]

    cells = {
        kind: cell.model_copy(
            update={field: grid(getattr(cell, field)) for field in ("live_ms", "always_ms", "error_ms")}
        )
        for kind, cell in costs.cells.items()
    }
    return costs.model_copy(
        update={
            "base_ms": costs.base_ms * factor,
            "cells": cells,
            "covariance": grid(costs.covariance, factor**2),
            "scatter_ms": costs.scatter_ms * factor,
        }
    )


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _chosen_entries(tables: Sequence[LatencyTable], rank: Rank) -> dict[str, tuple[int, Entry]]:
    """Return {workload key: (number of the table, its entry)} of the entries to keep."""
    chosen: dict[str, tuple[int, Entry]] = {}
    for number, table in enumerate(tables):
        for entry in table.entries:
            key = entry.workload.key
            before = chosen.get(key)
            if before is None or rank(number, entry.error_ms) < rank(before[0], before[1].error_ms):
                chosen[key] = number, entry
    return chosen


def _owners(tables: Sequence[LatencyTable], levels: Sequence[int]) -> dict[str, int]:
    """Return {network: number of the table} whose correction and accuracy reports are kept, which belong together."""
    owners: dict[str, int] = {}
    for number in sorted(range(len(tables)), key=lambda number: levels[number]):
        table, quality = tables[number], tables[number].quality
        for network in (*table.correction, *quality.additivity, *quality.residual, *quality.suspect_readings):
            owners.setdefault(network, number)
    return owners


def _check_latencies(tables: Mapping[str, LatencyTable], levels: Sequence[int], notes: list[str]) -> None:
    """Raise HwnasError when tables contradict each other; add a note on differences that are tolerated."""
    compared = compare_latencies(tables, levels)
    problems = [found.describe() for found in compared if found.large]
    problems += _unlike_corrections(tables, levels)
    if problems:
        raise HwnasError(f"{' and '.join(tables)} differ by more than their errors in {', in '.join(problems)}", CHOOSE)
    notes += [_small_differences(found) for found in compared if found.contradictions]


def _small_differences(compared: Compared) -> str:
    most = max(found.factor for found in compared.contradictions)
    return (
        f"{len(compared.contradictions)} of {compared.shared} shared {compared.kind} differ by more than their errors, "
        f"by at most {most - 1:.1%}: each is the one with the smallest error"
    )


def _unlike_corrections(tables: Mapping[str, LatencyTable], levels: Sequence[int]) -> list[str]:
    names, given = list(tables), list(tables.values())
    found = []
    for network in dict.fromkeys(network for table in given for network in table.correction):
        first, *others = rivals([network in table.correction for table in given], levels)
        one = given[first].correction[network]
        found += [
            describe_correction(network, names[first], one, names[other], given[other].correction[network])
            for other in others
        ]
    return [problem for problem in found if problem]


def _corrections(tables: Sequence[LatencyTable], owners: Mapping[str, int]) -> dict[str, Correction]:
    return {
        network: tables[number].correction[network]
        for network, number in owners.items()
        if network in tables[number].correction
    }


def _networks(
    tables: Sequence[LatencyTable], owners: Mapping[str, int], rank: Rank
) -> dict[str, list[MeasuredNetwork]]:
    """Return every timed network once. ``fitted`` is true for those that the kept correction was fitted on."""
    result = {}
    for key in dict.fromkeys(key for table in tables for key in table.networks):
        chosen: dict[str, tuple[int, MeasuredNetwork]] = {}
        seen = set()
        for number, table in enumerate(tables):
            for network in table.networks.get(key, []):
                if network.fitted and owners.get(key, number) == number:
                    seen.add(network.architecture)
                before = chosen.get(network.architecture)
                if before is None or rank(number, network.error_ms) < rank(before[0], before[1].error_ms):
                    chosen[network.architecture] = number, network
        result[key] = [n.model_copy(update={"fitted": n.architecture in seen}) for _, n in chosen.values()]
    return result


def _check_edge_costs(names: Sequence[str], given: Sequence[LatencyTable], levels: Sequence[int]) -> None:
    """Raise HwnasError when two tables have different edge costs of a network: parts of two fits do not go together."""
    for network in dict.fromkeys(network for table in given for network in table.edge_costs):
        first, *others = rivals([network in table.edge_costs for table in given], levels)
        for other in others:
            if given[other].edge_costs[network] != given[first].edge_costs[network]:
                raise HwnasError(
                    describe_edge_costs(network, names[first], given[first], names[other], given[other]),
                    "choose with --prefer FILE or --prefer-newer, or fit both tables' networks together",
                )


def _edge_costs(tables: Sequence[LatencyTable], levels: Sequence[int]) -> dict[str, EdgeCosts]:
    """Return the edge costs of every network, from the preferred table that has them."""
    result: dict[str, EdgeCosts] = {}
    for table, _ in sorted(zip(tables, levels, strict=True), key=lambda pair: pair[1]):
        result = {**table.edge_costs, **result}
    return result


def _quality(
    tables: Sequence[LatencyTable],
    chosen: Mapping[str, tuple[int, Entry]],
    owners: Mapping[str, int],
    sentinel_ms: float | None,
) -> Quality:
    qualities = [table.quality for table in tables]
    kept = [(number, entry) for number, entry in chosen.values() if entry.latency_ms > 0]
    errors = [None if entry.error_ms is None else entry.error_ms / entry.latency_ms for _, entry in kept]
    known = [error for error in errors if error is not None]

    def greatest(field: str) -> float | None:
        return max((value for quality in qualities if (value := getattr(quality, field)) is not None), default=None)

    def owned(field: str) -> dict[str, Any]:
        reports = {network: getattr(qualities[number], field) for network, number in owners.items()}
        return {network: found[network] for network, found in reports.items() if network in found}

    return Quality(
        sentinel_ms=sentinel_ms,
        sentinel_drift=greatest("sentinel_drift"),
        worst_relative_iqr=greatest("worst_relative_iqr"),
        worst_relative_error=max(known) if known and len(known) == len(errors) else None,
        unstable=sorted(key for key, (number, _) in chosen.items() if key in qualities[number].unstable),
        noise=list(dict.fromkeys(reason for quality in qualities for reason in quality.noise)),
        additivity=owned("additivity"),
        residual=owned("residual"),
        suspect_readings=owned("suspect_readings"),
    )


def _source(given: Sequence[LatencyTable]) -> str:
    """Return the source: the hashes of the merged tables, after the source that all of them share."""
    sources = {table.source.split("; merged from")[0] for table in given}
    shared = f"{sources.pop()}; " if len(sources) == 1 and "" not in sources else ""
    if not shared and all(is_imported(table) for table in given):
        shared = f"{IMPORTED} several files; "
    text = f"{shared}merged from {', '.join(table.sha256[:12] for table in given)}"
    return shorten(text, 200)


def _licence(given: Sequence[LatencyTable], notes: list[str]) -> str:
    """Return the conjunction of all licences; empty when one of them is unknown."""
    licences = list(dict.fromkeys(table.licence for table in given))
    if len(licences) == 1:
        return licences[0]
    together = " AND ".join(f"({licence})" if " " in licence else licence for licence in licences)
    if "" in licences or len(together) > 200:
        notes.append("the licences differ and one table has none: the merged table has none")
        return ""
    notes.append(f"the licences differ: the merged table has {together}")
    return together
