"""``hwnas table export``, ``import`` and ``schema``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import command, table_app
from hwnas.cli.options import AsJson
from hwnas.cli.output import open_table, show_json
from hwnas.errors import HwnasError
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.tables.importers import Imported

Table = Annotated[Path, typer.Argument(help="A latency table.")]
OutTable = Annotated[Path, typer.Option(help="The table to write.")]


@command(table_app, "export", "hwnas table export cpu.json --out cpu.parquet")
def table_export(
    table: Table,
    out: Annotated[Path, typer.Option(help="A file whose name ends in .csv or .parquet.")],
    as_json: AsJson = False,
) -> None:
    """Write a table as CSV or Parquet: one row for each entry, or for each edge and operation of its edge costs."""
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
    file: Annotated[Path, typer.Argument(help="A table of another project, or a CSV file.")],
    out: OutTable,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format", help="proxyless, ofa, hw-nas-bench, fbnet or csv; default: detected from the content."
        ),
    ] = None,
    device_name: Annotated[str | None, typer.Option(help="The measured device.")] = None,
    device_kind: Annotated[str | None, typer.Option(help="cpu, gpu, mobile, embedded, browser or accelerator.")] = None,
    runtime: Annotated[str | None, typer.Option(help="The runtime that ran the models.")] = None,
    runtime_version: Annotated[str | None, typer.Option(help="Its version.")] = None,
    provider: Annotated[str | None, typer.Option(help="Its provider or delegate.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, float16, int8, …")] = None,
    threads: Annotated[int | None, typer.Option(min=0, help="0 means unknown.")] = None,
    batch: Annotated[int | None, typer.Option(min=0, help="0 means unknown.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the file's latencies: ms, us or s.")] = None,
    date: Annotated[str | None, typer.Option(help="Date of the measurement.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the file.")] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse a file with anything that is not understood.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Convert a latency table of another project. Nothing is guessed: lines that are not understood are listed.

    Options must give what the file does not: device, runtime, threads, batch size, and the unit of its latencies.
    """
    from hwnas.tables.importers import Stated, import_table
    from hwnas.tables.io import write_table
    from hwnas.text import first_few, plural

    stated = Stated(
        device_name, device_kind, runtime, runtime_version, provider, precision, threads, batch, unit, date, licence
    )
    imported = import_table(file, format_name, stated)
    if strict and (imported.refused or imported.unknown):
        line, why = next(iter(imported.refused.items()), ("", ""))
        first = f"; the first: {line[:100]}: {why}" if line else ""
        fields = f" (fields: {first_few(list(imported.unknown))})" if imported.unknown else ""
        raise HwnasError(
            f"{file}: {plural(len(imported.refused), 'line')} and {len(imported.unknown)} fields are not understood"
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
    from hwnas.text import plural, printable

    for line, why in imported.refused.items():
        print(printable(f"left out: {line[:150]}: {why}"))
    for field, lines in imported.unknown.items():
        print(printable(f"not understood: field {field[:100]}, in {plural(lines, 'line')}"))
    for field, lines in imported.unused.items():
        print(printable(f"not kept: field {field[:100]}, in {plural(lines, 'line')}: it does not describe the error"))
    if imported.refused:
        print(f"left out: {plural(len(imported.refused), 'line')}")
    print(f"{out}: {len(imported.table.entries)} entries, read as {imported.format}")
    print(f"next: hwnas table check {quoted(out)} --contents")


@command(table_app, "schema", "hwnas table schema > latency-table.schema.json")
def table_schema() -> None:
    """Print the JSON Schema of latency tables."""
    from hwnas.tables.schema import SCHEMA_FILE

    sys.stdout.write(SCHEMA_FILE.read_text(encoding="utf-8"))
