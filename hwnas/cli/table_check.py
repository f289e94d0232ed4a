"""``hwnas table check``"""

from __future__ import annotations

import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import command, table_app
from hwnas.cli.options import AsJson, Channels, Classes, InputShape, Layers, SettingName, TableSpace, parse_input
from hwnas.cli.output import open_table, show_json, show_table
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.profiling.check import Checked
    from hwnas.spaces import SizedSpace
    from hwnas.tables.check import Coverage, Disorder
    from hwnas.tables.schema import LatencyTable

FIT_AGAIN = "fit it again with `hwnas table fit`"
SHOWN = 20
SHOWN_ENTRIES = 10


@dataclass(frozen=True)
class Contents:
    """Result of checking a table without timing. ``problems`` make the check fail."""

    coverage: list[Coverage]
    disorders: list[Disorder]
    problems: list[str]


@command(table_app, "check", "hwnas table check cpu.json")
def table_check(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    device: Annotated[
        str | None, typer.Option(help="The device to time on; default: the table's device, on this machine.")
    ] = None,
    entries: Annotated[int, typer.Option(min=1, help="How many entries to time again.")] = 20,
    only_contents: Annotated[bool, typer.Option("--contents", help="Check the contents only, time nothing.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail when a larger entry takes less time than a smaller one.")
    ] = False,
    space: TableSpace = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Check a table: first its contents, then a sample of its entries, timed again. Exit code 1 when it fails.

    Contents are the hash, whether the table has all workloads of a network (those it was made for, or the one that the
    options name), and whether entries with more channels or a larger image take no less time. Fitted, transferred and
    imported tables have no entries to time again.
    """
    from hwnas.api import size_changes
    from hwnas.tables.network_key import choose_network, networks_of
    from hwnas.text import printable

    content, shape = open_table(table), parse_input(input_shape)
    if all(option is None for option in (space, setting, channels, layers, shape, classes)):
        networks = networks_of(content)
    else:
        networks = [choose_network(content, space, setting, **size_changes(channels, layers, shape, classes))]
    contents = _check_contents(content, networks, table, strict)
    not_timed = _why_not_timed(content, contents, only_contents)
    if not as_json:
        print(f"{table}: {content.provenance} on {printable(content.describe())}")
        _show_contents(content, contents)
    timed = None if not_timed else _time_again(content, device, entries)
    passed = not contents.problems and not (timed and timed.problems)
    if as_json:
        _show_as_json(table, content, contents, timed, not_timed, passed)
    elif timed is None:
        print(f"not timed again: {not_timed}")
        print("its contents are in order" if passed else f"not in order: {'; '.join(contents.problems)}")
    else:
        _show_timed(table, timed)
    if not passed:
        raise typer.Exit(1)


def _check_contents(table: LatencyTable, networks: list[SizedSpace], path: Path, strict: bool) -> Contents:
    from hwnas.tables.check import disorders

    coverage = [_coverage(table, sized, path) for sized in networks]
    found = disorders(table.entries)
    problems = [f"{len(c.missing)} of {c.needed} of {c.network} are missing" for c in coverage if c.missing]
    if strict and found:
        problems.append(f"{len(found)} entries are quicker than smaller ones")
    return Contents(coverage, found, problems)


def _coverage(table: LatencyTable, sized: SizedSpace, path: Path) -> Coverage:
    from hwnas.tables.network_key import fill_command
    from hwnas.text import quoted

    found = _known(table, sized)
    command = found.command or fill_command(table, sized).replace("TABLE", quoted(path))
    if not found.missing:
        return replace(found, command=command)
    if table.edge_costs or found.missing == [sized.network.head.key]:
        from hwnas.cost.carried_head import carry_head  # numpy takes a while to import

        known, carried = carry_head(table, sized)
        if carried:
            return replace(_known(known, sized), command=command, note=carried.describe())
    from hwnas.tables.lacking import nearest_differences
    from hwnas.tables.unlike_sizes import in_words

    unlike = in_words(nearest_differences([table], sized))
    return replace(found, command=command, note=f"the table is for {unlike}" if unlike else "")


def _known(table: LatencyTable, sized: SizedSpace) -> Coverage:
    """Return the coverage of a network by what the table holds for it, with a command for fitted costs alone."""
    from hwnas.cost.fusion import pieces
    from hwnas.tables.check import Coverage, missing_costs, missing_workloads

    key, space, network = sized.key, sized.space, sized.network
    if costs := table.edge_costs.get(key):
        return Coverage(key, len(space.cells), missing_costs(costs, space), FIT_AGAIN)
    correction = table.correction.get(key)
    needed = network.workloads() + (pieces(network) if correction and "share" in correction.rewrites else [])
    return Coverage(key, len(needed), missing_workloads(table, needed), "")


def _why_not_timed(table: LatencyTable, contents: Contents, only_contents: bool) -> str:
    """Return why no entries are timed again; an empty text when they can be."""
    from hwnas.tables.importers import is_imported

    if only_contents:
        return "--contents was given"
    if table.provenance != "measured":
        return f"the numbers of a {table.provenance} table were not measured one by one"
    if is_imported(table):
        return "an imported table does not say how it was measured"
    if contents.problems:
        return "the contents have problems"
    return ""


def _time_again(table: LatencyTable, device: str | None, entries: int) -> Checked:
    from hwnas.export.timing import spec_of
    from hwnas.profiling.check import check_table
    from hwnas.progress import Progress
    from hwnas.runtimes.device_spec import parse_device

    with Progress() as progress:
        return check_table(table, parse_device(device) if device else spec_of(table), entries, progress)


def _show_contents(table: LatencyTable, contents: Contents) -> None:
    from hwnas.text import printable

    print(f"sha256 {table.sha256} matches; {len(table.entries)} entries")
    if not contents.coverage:
        print("the table names no network; give --space to check whether it is complete for one")
    for covered in contents.coverage:
        if not covered.missing:
            print(f"complete for {covered.network}" + f"; {covered.note}" * bool(covered.note))
            continue
        why = f"{covered.note}: " * bool(covered.note)
        print(f"{covered.network}: {why}{len(covered.missing)} of {covered.needed} are missing:")
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


def _show_timed(path: Path, timed: Checked) -> None:
    print(f"the machine takes {timed.slowdown:.3f} times as long as when the table was made (sentinel)")
    columns = ["entry", "table ms", "now ms", "ratio", "+-"]
    rows = [
        [e.key, f"{e.table_ms:.4f}", f"{e.now_ms:.4f}", f"{e.ratio:.3f}", f"{e.tolerance:.3f}"]
        for e in timed.entries[:SHOWN_ENTRIES]
    ]
    show_table("", columns, rows)
    for problem in timed.problems:
        print(f"not as the table says: {problem}")
    print(
        f"measure it again: `rm {quoted(path)}`, then `hwnas profile --out {quoted(path)}` with its space and device"
        if timed.problems
        else f"the table describes this device: {len(timed.entries)} entries timed again"
    )


def _show_as_json(
    path: Path, table: LatencyTable, contents: Contents, timed: Checked | None, not_timed: str, passed: bool
) -> None:
    show_json(
        {
            "table": str(path),
            "fine": passed,
            "describes": None if timed is None else not timed.problems,
            "not_timed": not_timed or None,
            "provenance": table.provenance,
            "warnings": table.warnings,
            "contents": asdict(contents),
            **(asdict(timed) if timed else {"slowdown": None, "entries": [], "problems": []}),
        }
    )
