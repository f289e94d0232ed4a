"""``hwnas table diff`` and ``hwnas table merge``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import command, table_app
from hwnas.cli.options import AsJson
from hwnas.cli.output import finite, open_table, show_json, show_table
from hwnas.errors import HwnasError
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.tables.diff import TableDiff

SHOWN = 20
Table = Annotated[Path, typer.Argument(help="A latency table.")]
OutTable = Annotated[Path, typer.Option(help="The table to write.")]


@command(table_app, "diff", "hwnas table diff before.json after.json")
def table_diff(a: Table, b: Table, as_json: AsJson = False) -> None:
    """Compare two tables: header fields, missing latencies, and latencies that differ by more than their errors.

    Exit code 1 when latencies differ by more than both errors, or one table has latencies that the other lacks. Header
    fields may differ. An unknown error counts as 10 %.
    """
    from hwnas.tables.diff import diff_tables

    found = diff_tables(open_table(a), open_table(b))
    if as_json:
        show_json({"a": str(a), "b": str(b), "differs": found.differs, **finite(asdict(found))})
    else:
        _show_diff(found, str(a), str(b))
    if found.differs:
        raise typer.Exit(1)


def _show_diff(found: TableDiff, a: str, b: str) -> None:
    from hwnas.text import first_few, printable, shorten

    def shown(value: Any) -> str:
        return shorten(printable(str(value)), 60)

    print(f"A {a}\nB {b}\n")
    if found.header:
        rows = [[name, shown(one), shown(other)] for name, (one, other) in found.header.items()]
        show_table("The header fields differ:", ["field", "A", "B"], rows)
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            print(f"{len(only)} only in {name}: {first_few([printable(key) for key in only])}")
    for network in found.unlike:
        print(f"the edge costs of {printable(network)} have different cells or operations")
    ratio = "" if found.median_ratio is None else f", the median of B/A is {found.median_ratio:.4f}"
    print(f"in both: {found.common} latencies{ratio}")
    if found.errors_unknown:
        print(f"{found.errors_unknown} of them have an unknown error, which counts as 10 %")
    if found.differing:
        print(f"{len(found.differing)} differ by more than their errors\n")
        rows = [
            [
                printable(d.name),
                f"{d.a_ms:.4f}",
                f"{d.b_ms:.4f}",
                "" if d.ratio is None else f"{d.ratio:.3f}",
                f"{d.tolerance_ms:.4f}",
                "" if d.errors_known else "10 %",
            ]
            for d in found.differing[:SHOWN]
        ]
        show_table("", ["latency", "A ms", "B ms", "B/A", "errors ms", "assumed"], rows)
        if len(found.differing) > SHOWN:
            print(f"and {len(found.differing) - SHOWN} more; --json lists all")
    if not found.differs:
        print("nothing differs by more than the errors")


@command(table_app, "merge", "hwnas table merge cpu.json cpu-darts.json --out both.json")
def table_merge(
    tables: Annotated[list[Path], typer.Argument(help="Two or more latency tables of one device and runtime.")],
    out: OutTable,
    prefer_newer: Annotated[
        bool,
        typer.Option(
            "--prefer-newer",
            help="From the newest of several tables, take all that they share, not what has the smallest error.",
        ),
    ] = False,
    prefer: Annotated[
        Path | None, typer.Option(help="One of the tables: take from it all that it shares with the others.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Merge tables of one device and runtime. Other tables are refused, with every field in which they differ.

    An entry in several tables is taken from the one with the smallest error. Tables that differ by more than their
    errors and 10 % are refused, with the latencies, unless --prefer or --prefer-newer chooses. All latencies are scaled
    to the machine speed of the first table; corrections and accuracy reports stay with the table they come from.
    """
    from hwnas.tables.io import write_table
    from hwnas.tables.merge import merge_tables

    given = {str(path): open_table(path) for path in tables}
    if len(given) < 2:
        raise HwnasError("there is nothing to merge", "name two or more tables")
    merged = merge_tables(given, prefer_newer, _preferred(prefer, tables, prefer_newer))
    write_table(out, merged.table)
    if as_json:
        quality = merged.table.quality.model_dump(mode="json")
        show_json({"table": str(out), "entries": len(merged.table.entries), "notes": merged.notes, "quality": quality})
        return
    for note in merged.notes:
        print(note)
    held = " and ".join(str(len(table.entries)) for table in given.values())
    print(f"{out}: {len(merged.table.entries)} entries, from {held}")
    print(f"next: hwnas table check {quoted(out)}")


def _preferred(prefer: Path | None, tables: list[Path], newer: bool) -> str | None:
    """Return the preferred table as it is named among ``tables``."""
    if prefer is None:
        return None
    if newer:
        raise HwnasError("--prefer and --prefer-newer are two ways to choose", "give one of them")
    for path in tables:
        if path.resolve() == prefer.resolve():
            return str(path)
    raise HwnasError(f"{prefer} is not one of the tables to merge", "name it among them as well")
