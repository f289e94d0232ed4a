"""``hwnas table schema``, ``diff``, ``merge``, ``export`` and ``import``"""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.common import AsJson, command, open_table, show_json, show_table, table_app
from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.tables.diff import TableDiff
    from hwnas.tables.importers import Imported

SHOWN = 20
Table = Annotated[Path, typer.Argument(help="A latency table.")]
OutTable = Annotated[Path, typer.Option(help="The table to write.")]


@command(table_app, "schema", "hwnas table schema > latency-table.schema.json")
def table_schema() -> None:
    """Print the JSON Schema of latency tables."""
    from hwnas.tables.schema import SCHEMA_FILE

    sys.stdout.write(SCHEMA_FILE.read_text(encoding="utf-8"))


@command(table_app, "diff", "hwnas table diff before.json after.json")
def table_diff(a: Table, b: Table, as_json: AsJson = False) -> None:
    """Compare two tables: what they describe, what one of them lacks, what differs beyond the errors, worst first.

    Exit code 1 when latencies differ beyond both errors, or one table holds some that the other does not. (Dates and
    the like may differ.) An error that a table does not know counts as 10 %.
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
    from hwnas.text import printable, shorten

    def shown(value: Any) -> str:
        return shorten(printable(str(value)), 60)

    print(f"A {a}\nB {b}\n")
    if found.header:
        rows = [[name, shown(one), shown(other)] for name, (one, other) in found.header.items()]
        show_table("They describe themselves differently:", ["field", "A", "B"], rows)
    for name, only in (("A", found.only_a), ("B", found.only_b)):
        if only:
            print(f"only {name} holds {len(only)}: {_some([printable(key) for key in only])}")
    for network in found.unlike:
        print(f"the edge costs of {printable(network)} are of unlike cells or operations")
    ratio = "" if found.median_ratio is None else f", B in the median {found.median_ratio:.4f} times A"
    print(f"both hold {found.common} latencies{ratio}")
    if found.errors_unknown:
        print(f"of {found.errors_unknown} an error is not known: it counts as 10 %")
    if found.differing:
        print(f"{len(found.differing)} differ beyond their errors\n")
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
        print("nothing differs beyond the errors")


@command(table_app, "merge", "hwnas table merge cpu.json cpu-darts.json --out both.json")
def table_merge(
    tables: Annotated[list[Path], typer.Argument(help="Latency tables of one device and runtime, two or more.")],
    out: OutTable,
    prefer_newer: Annotated[
        bool, typer.Option("--prefer-newer", help="Of what several hold, take the latest, not the smallest error.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put tables of one device and runtime together. Unlike ones are refused, with every field in which they differ.

    What several hold is taken from the one whose error is smaller. All latencies are brought to the machine's speed of
    the first table; corrections and reports on accuracy are of the table that they come from.
    """
    from hwnas.tables.io import write_table
    from hwnas.tables.merge import merge_tables

    given = {str(path): open_table(path) for path in tables}
    if len(given) < 2:
        raise HwnasError("there is nothing to merge", "name two tables or more")
    merged = merge_tables(given, prefer_newer)
    write_table(out, merged.table)
    if as_json:
        quality = merged.table.quality.model_dump(mode="json")
        show_json({"table": str(out), "entries": len(merged.table.entries), "notes": merged.notes, "quality": quality})
        return
    for note in merged.notes:
        print(note)
    held = " and ".join(str(len(table.entries)) for table in given.values())
    print(f"{out}: {len(merged.table.entries)} entries, from {held}")
    print(f"next: hwnas table check {out}")


@command(table_app, "export", "hwnas table export cpu.json --out cpu.parquet")
def table_export(
    table: Table,
    out: Annotated[Path, typer.Option(help="A file whose name ends in .csv or .parquet.")],
    as_json: AsJson = False,
) -> None:
    """Write a table for spreadsheets and data frames: one row an entry, one an edge and operation of its edge costs."""
    from hwnas.tables.export import export_table

    rows = export_table(open_table(table), out)
    if as_json:
        show_json({"file": str(out), "rows": rows})
        return
    print(f"{out}: {rows} rows")


@command(
    table_app,
    "import",
    "hwnas table import lut.yaml --device-name 'Pixel 1' --runtime tflite --threads 1 --batch 1 --out pixel.json",
)
def table_import(
    file: Annotated[Path, typer.Argument(help="A table of another project, or rows as CSV.")],
    out: OutTable,
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="proxyless, ofa, hw-nas-bench, fbnet or csv; by default what it looks like."),
    ] = None,
    device_name: Annotated[str | None, typer.Option(help="What was measured on.")] = None,
    device_kind: Annotated[str | None, typer.Option(help="cpu, gpu, mobile, embedded, browser or accelerator.")] = None,
    runtime: Annotated[str | None, typer.Option(help="What ran the models.")] = None,
    runtime_version: Annotated[str | None, typer.Option(help="Its version.")] = None,
    provider: Annotated[str | None, typer.Option(help="Its provider or delegate.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, float16, int8, …")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="0: not known.")] = None,
    batch: Annotated[int | None, typer.Option(min=0, help="0: not known.")] = None,
    unit: Annotated[str | None, typer.Option(help="That of the file's latencies: ms, us or s.")] = None,
    date: Annotated[str | None, typer.Option(help="When it was measured.")] = None,
    licence: Annotated[str | None, typer.Option(help="That of the file.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file of which anything is not understood.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a latency table of another project's. Nothing is guessed: what is not understood is listed with the reason.

    What the file does not say must be said: device, runtime, threads, batch size, and the unit of its latencies.
    """
    from hwnas.tables.importers import Stated, import_table
    from hwnas.tables.io import write_table

    stated = Stated(
        device_name, device_kind, runtime, runtime_version, provider, precision, threads, batch, unit, date, licence
    )
    imported = import_table(file, format_name, stated)
    if strict and (imported.refused or imported.unknown):
        line, why = next(iter(imported.refused.items()), ("", ""))
        first = f"; the first: {line[:100]}: {why}" if line else ""
        fields = f" (fields: {_some(list(imported.unknown))})" if imported.unknown else ""
        raise HwnasError(
            f"{file}: {_lines(len(imported.refused))} and {len(imported.unknown)} fields are not understood"
            f"{fields}{first}",
            "without --strict they are left out",
        )
    write_table(out, imported.table)
    if as_json:
        listed = {"refused": imported.refused, "unused": imported.unused, "unknown": imported.unknown}
        show_json(
            {"table": str(out), "format": imported.format, "entries": len(imported.table.entries), **listed},
        )
        return
    _show_import(imported, str(out))


def _show_import(imported: Imported, out: str) -> None:
    from hwnas.text import printable

    for line, why in imported.refused.items():
        print(printable(f"left out: {line[:150]}: {why}"))
    for field, lines in imported.unknown.items():
        print(printable(f"not understood: field {field[:100]}, in {_lines(lines)}"))
    for field, lines in imported.unused.items():
        print(printable(f"not kept: field {field[:100]}, in {_lines(lines)}: it says nothing of the error"))
    if imported.refused:
        print(f"left out: {_lines(len(imported.refused))}")
    print(f"{out}: {len(imported.table.entries)} entries, read as {imported.format}")
    print(f"next: hwnas table check {out} --contents")


def _lines(count: int) -> str:
    return f"{count} line{'s' * (count != 1)}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def finite(value: Any) -> Any:
    """``value`` with None for what JSON has no number for: a ratio of an error that is zero."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
