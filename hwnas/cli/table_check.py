"""What ``hwnas table show`` and ``hwnas table check`` say of a table's contents."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.cli.common import show_table

if TYPE_CHECKING:
    from hwnas.spaces import SizedSpace
    from hwnas.tables.check import Coverage, Disorder
    from hwnas.tables.schema import LatencyTable

SHOWN = 20


@dataclass(frozen=True)
class Contents:
    """``problems`` are what makes a table fail; with ``strict`` what is out of order is among them."""

    coverage: list[Coverage]
    disorders: list[Disorder]
    problems: list[str]


def check_contents(table: LatencyTable, networks: list[SizedSpace], path: Path, strict: bool) -> Contents:
    """What the contents tell on their own, of these networks."""
    from hwnas.tables.check import disorders

    coverage = [_coverage(table, sized, path) for sized in networks]
    found = disorders(table.entries)
    problems = [f"{len(c.missing)} of {c.needed} of {c.network} are missing" for c in coverage if c.missing]
    if strict and found:
        problems.append(f"{len(found)} entries are quicker than smaller ones")
    return Contents(coverage, found, problems)


def _coverage(table: LatencyTable, sized: SizedSpace, path: Path) -> Coverage:
    from hwnas.cost.fusion import pieces
    from hwnas.tables.check import Coverage, missing_costs, missing_workloads
    from hwnas.tables.network_key import profile_command

    key, space, network = sized.key, sized.space, sized.network
    if costs := table.edge_costs.get(key):
        return Coverage(key, len(space.cells), missing_costs(costs, space), "fit it anew with 'hwnas table fit'")
    correction = table.correction.get(key)
    needed = network.workloads() + (pieces(network) if correction and "share" in correction.rewrites else [])
    command = profile_command(sized).replace("TABLE", str(path))
    return Coverage(key, len(needed), missing_workloads(table, needed), command)


def show_contents(table: LatencyTable, contents: Contents) -> None:
    from hwnas.text import printable

    print(f"sha256 {table.sha256} matches; {len(table.entries)} entries")
    if not contents.coverage:
        print("the table names no network: whether it is complete for one, --space tells")
    for covered in contents.coverage:
        if not covered.missing:
            print(f"complete for {covered.network}")
            continue
        print(f"{covered.network}: {len(covered.missing)} of {covered.needed} are missing:")
        print(textwrap.fill(", ".join(covered.missing), 118, initial_indent="  ", subsequent_indent="  "))
        print(f"  {covered.command}")
    if contents.disorders:
        print(
            f"\nwarning: {len(contents.disorders)} entries take less time than a smaller one, "
            "by more than the errors and 10 %"
        )
        for disorder in contents.disorders[:SHOWN]:
            print(printable(f"  {disorder.describe()}"))
        if len(contents.disorders) > SHOWN:
            print(f"  and {len(contents.disorders) - SHOWN} more; --json lists all")


def why_not_timed(table: LatencyTable, contents: Contents, only_contents: bool) -> str:
    """Why entries of a table are not timed again; empty where they can be."""
    from hwnas.tables.importers import is_imported

    if only_contents:
        return "--contents was given"
    if table.provenance != "measured":
        return f"a {table.provenance} table's numbers were not measured one by one, there is nothing to time again"
    if is_imported(table):
        return "an imported table does not say how it was measured"
    if contents.problems:
        return "its contents come first"
    return ""


def show_edge_costs(table: LatencyTable) -> None:
    """A table of edges by operations for every cell of every network."""
    from hwnas.tables.diff import edge_amounts
    from hwnas.tables.plot import edge_labels
    from hwnas.text import printable

    for network, costs in table.edge_costs.items():
        prior = f"; prior: {len(costs.pool)} other device{'s' * (len(costs.pool) > 1)}" if costs.pool else ""
        print(f"\n{printable(network)}: costs by edge, from {costs.measurements} networks{prior}")
        print(
            f"all that is fixed takes {costs.base_ms:.4f} ms; a single latency scatters by "
            f"{costs.scatter_ms:.4f} ms and {costs.scatter_share:.1%}\n"
        )
        ops = [printable(op) for op in costs.operations if op != "none"]
        for kind, cell in costs.cells.items():
            labels = edge_labels(network, kind, cell)
            rows = [[label] for label in labels]
            for edge, _, amount in edge_amounts(costs, cell):
                rows[edge].append(f"{amount.ms:.4f} ± {amount.error_ms:.4f}")
            show_table(f"{printable(kind)}: ms where the edge is live", ["edge", *ops], rows)
