"""Read tables with their warnings; print tables and JSON on standard output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.tables.schema import LatencyTable


def open_table(path: Path) -> LatencyTable:
    """Read a latency table; warn on standard error when its latencies are unreliable."""
    from hwnas.tables.io import read_table

    table = read_table(path)
    warn_of_table(path, table)
    return table


def warn_of_table(path: Path, table: LatencyTable) -> None:
    """Print the warnings of a table on standard error."""
    from hwnas.text import printable

    for warning in table.warnings:
        print(f"hwnas: {path}: {printable(warning)}", file=sys.stderr)


def open_tables(paths: list[Path]) -> dict[str, LatencyTable]:
    """Read the tables of several devices by file name. Raises HwnasError when two files have the same name."""
    from hwnas.tables.io import table_name

    tables = {table_name(path): open_table(path) for path in paths}
    if len(tables) != len(paths):
        raise HwnasError("two tables have the same file name", "give each --table a file name of its own")
    return tables


def show_notes(notes: Iterable[str]) -> None:
    """Print lines on what the results rest on, on standard error."""
    from hwnas.text import printable

    for note in notes:
        print(f"hwnas: {printable(note)}", file=sys.stderr)


def show_json(value: Any) -> None:
    """Print a value as JSON, a Record (hwnas.validation) as in its file. Raises ValueError for NaN and infinities."""
    print(json.dumps(value, indent=2, allow_nan=False, default=lambda record: record.to_json()))


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print aligned columns under a title, and an empty line."""
    from hwnas.text import format_table

    print(format_table(title, columns, rows))


def finite(value: Any) -> Any:
    """Return ``value`` with None in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
