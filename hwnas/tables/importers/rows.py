"""Import CSV files with one entry in each row, such as ``hwnas table export`` writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwnas import __version__
from hwnas.csv_files import parse_csv
from hwnas.errors import HwnasError
from hwnas.files import parse_json
from hwnas.tables.export import COLUMNS, ENTRY_FIELDS, TABLE_COLUMNS
from hwnas.tables.importers.parsed import as_latency
from hwnas.tables.importers.table import (
    CHOOSE_FORMAT,
    EntryLines,
    Imported,
    Stated,
    check_understood,
    make_table,
    require_facts,
    table_columns,
)
from hwnas.tables.latency_column import latency_column, require_unit
from hwnas.tables.schema import NOT_KNOWN, Entry
from hwnas.units import MILLISECONDS
from hwnas.validation import first_problem

OPTIONAL = ("error_ms", "p10_ms", "p90_ms", "samples")
ADD_COLUMNS = "add them: a row describes one layer, as in the files of 'hwnas table export'"
REQUIRED = tuple(name for name in ENTRY_FIELDS if name not in OPTIONAL)
# {column: option with the same meaning}
OPTIONS = {
    "device_name": "device_name",
    "device_kind": "device_kind",
    "runtime_name": "runtime",
    "runtime_version": "runtime_version",
    "runtime_provider": "provider",
    "runtime_precision": "precision",
    "runtime_threads": "threads",
    "runtime_batch": "batch",
    "protocol_date": "date",
    "licence": "licence",
}


def import_csv(path: Path, text: str, stated: Stated) -> Imported:
    """Return the table of a CSV text.

    Raises HwnasError when the text is not CSV, lacks a column that entries need, has no entry or entries of several
    tables, and when a fact about the table is given neither by it nor by ``stated``, or by both.
    """
    file = parse_csv(text, str(path), CHOOSE_FORMAT)
    latency = latency_column(file)
    factor = MILLISECONDS[require_unit(file, *latency)] if latency else 1.0
    have = {*file.columns, *(["latency_ms"] if latency else [])}
    if lacking := [name for name in REQUIRED if name not in have]:
        raise HwnasError(f"{path} lacks the columns {', '.join(lacking)} (it has {file.describe()})", ADD_COLUMNS)
    refused: dict[str, str] = {}
    lines, rows = EntryLines(path, refused), []
    for row in file.rows:
        where = f"line {row.line}"
        try:
            record = file.record(row)
            if "table_sha256" in record:  # an export, which quotes text with the spaces that it has
                record = dict(zip(file.columns, row.cells, strict=True))
            rows.append(record)
            lines.add(where, _entry(_in_milliseconds(record, latency[0], factor) if latency else record))
        except ValidationError as error:
            refused[where] = first_problem(error, "entries")
        except ValueError as error:
            refused[where] = str(error)
    check_understood(path, "csv", lines.entries, refused)
    facts = _table_facts(path, rows, file.columns)
    _refuse_facts_given_twice(path, facts, stated)
    columns, protocol = _whole_table(path, facts, stated)
    known = {*COLUMNS, *TABLE_COLUMNS, latency[0] if latency else ""}
    unknown = Counter(name for row in rows for name, value in row.items() if name and name not in known and value)
    return Imported(make_table(columns, lines.entries, protocol), "csv", refused, unknown=dict(unknown))


def _in_milliseconds(record: Mapping[str, str], column: str, factor: float) -> dict[str, Any]:
    """Return a record with its latency in ``latency_ms``; ``column`` has it in a unit of ``factor`` milliseconds."""
    if column == "latency_ms":
        return dict(record)
    return {**record, "latency_ms": as_latency(record[column]) * factor}


def _entry(row: Mapping[str, Any]) -> Entry:
    """Return the entry of a row. Raises ValueError (pydantic's is a subclass) when it is invalid."""
    if row.get("kind") not in (None, "", "entry"):
        raise ValueError("edge costs cannot be imported: the file does not have their covariance")
    given = {name: row[name] for name in ENTRY_FIELDS if name not in OPTIONAL or row.get(name)}
    return Entry.model_validate(
        {"p10_ms": row["latency_ms"], "p90_ms": row["latency_ms"], "samples": 0, **given},
    )


def _table_facts(path: Path, rows: Sequence[Mapping[str, Any]], heading: Sequence[str]) -> dict[str, str]:
    """Return the values of the table columns. Raises HwnasError when rows differ, which are then of several tables."""
    facts = {}
    for name in heading:
        if name not in TABLE_COLUMNS:
            continue
        one, *others = dict.fromkeys(row[name] for row in rows)
        if others:
            raise HwnasError(
                f"{path} holds rows of several tables: {name} is {one[:60]!r} and {others[0][:60]!r}",
                "import one table at a time",
            )
        facts[name] = one
    return facts


def _refuse_facts_given_twice(path: Path, facts: Mapping[str, str], stated: Stated) -> None:
    twice = [option for column, option in OPTIONS.items() if facts.get(column) and getattr(stated, option) is not None]
    twice += ["unit"] if stated.unit else []  # the column names give the unit
    if twice:
        options = ", ".join(f"--{option.replace('_', '-')}" for option in twice)
        raise HwnasError(f"{path} already gives {options}", "leave it out")


def _whole_table(path: Path, facts: Mapping[str, str], stated: Stated) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the table's columns and protocol: from the file, else from the user."""
    whole = {option: facts.get(column) or getattr(stated, option) for column, option in OPTIONS.items()}
    numbers = {name: _whole_number(whole[name]) for name in ("threads", "batch") if whole[name] is not None}
    both: dict[str, Any] = {**whole, **numbers, "unit": "ms"}
    together = replace(stated, **both)
    require_facts(together, path)
    columns = table_columns(together, path, "csv")
    for column in ("device_model", "device_os", "device_fingerprint", "provenance"):
        columns[column] = facts.get(column) or columns[column]
    for column in ("device_cores", "device_memory_bytes"):
        columns[column] = _whole_number(facts.get(column) or 0)
    columns["sentinel_ms"] = _sentinel(facts.get("sentinel_ms"))
    if options := facts.get("runtime_options"):
        columns["runtime_options"] = parse_json(options.encode(), f"{path}, column runtime_options", CHOOSE_FORMAT)
    if origin := facts.get("table_sha256"):
        columns["source"] += f", table {origin[:12]}"
    return columns, {
        "version": _whole_number(facts.get("protocol_version") or 0),
        "statistic": facts.get("protocol_statistic") or NOT_KNOWN,
        "date": together.date or NOT_KNOWN,
        "tool_version": facts.get("protocol_tool_version") or __version__,
    }


def _sentinel(text: str | None) -> float | None:
    try:
        return as_latency(text) if text else None
    except ValueError as error:
        raise HwnasError(f"column sentinel_ms: {error}", CHOOSE_FORMAT) from None


def _whole_number(value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise HwnasError(f"{str(value)[:40]!r} is not a whole number", CHOOSE_FORMAT) from None
