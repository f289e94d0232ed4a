"""Read and check latency tables; write them atomically."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import canonical_json, parse_json, read_json, sha256_of, shipped, write_text
from hwnas.tables.schema import FORMAT, VERSIONS, LatencyTable
from hwnas.text import quoted
from hwnas.validation import first_problem

SHIPPED = "shipped:"  # before the name of a table that comes with hwnas
MAX_BYTES = 64 << 20


def measure_one(out: object) -> str:
    """Return advice with the command that writes a table to ``out``."""
    return f"measure one with `hwnas profile --device cpu --space nasbench201 --out {quoted(out)}`"


def table_file(path: Path) -> Path:
    """Return the file of a table; ``shipped:NAME`` names one that comes with hwnas.

    Raises HwnasError where none of that name does.
    """
    if not str(path).startswith(SHIPPED):
        return path
    name, folder = str(path).removeprefix(SHIPPED), shipped("latency_tables")
    names = sorted(file.stem for file in folder.glob("*.json"))
    if name not in names:
        alike = difflib.get_close_matches(name, names)
        close = f" (there are {', '.join(alike)})" if alike else ""
        raise HwnasError(f"no table called {name!r} comes with hwnas{close}", "see all with 'hwnas table list'")
    return folder / f"{name}.json"


def table_name(path: Path) -> str:
    """Return the name that a table gives its device: that of its file without the suffix."""
    return str(path).removeprefix(SHIPPED) if str(path).startswith(SHIPPED) else path.stem


def read_table(path: Path) -> LatencyTable:
    """Read and check a table: a file, or ``shipped:NAME``.

    Raises HwnasError, naming the file and the field, when it is missing, invalid (NaN and negative latencies included),
    of a version that this hwnas does not read, or was changed after it was written.
    """
    file, fix = table_file(path), measure_one(path)
    return check_table_content(read_json(file, fix, MAX_BYTES), str(path), fix)


def parse_table(data: bytes, name: str, fix: str) -> LatencyTable:
    """Parse a table with the checks of ``read_table``; ``name`` names it in errors."""
    if len(data) > MAX_BYTES:
        raise HwnasError(f"{name} is larger than {MAX_BYTES >> 20} MiB", fix)
    return check_table_content(parse_json(data, name, fix), name, fix)


def check_table_content(content: Any, name: str, fix: str) -> LatencyTable:
    """Return the table in parsed JSON. Raises HwnasError as ``read_table`` does."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise HwnasError(f"{name} is not a latency table", fix)
    if content.get("version") not in VERSIONS:
        raise HwnasError(
            f"{name} has table format version {str(content.get('version'))[:20]}, "
            f"this hwnas reads {' and '.join(map(str, VERSIONS))}",
            "update hwnas",
        )
    stated = content.pop("sha256", None)
    try:
        table = LatencyTable.model_validate(content)
    except ValidationError as error:
        raise HwnasError(f"{name} is not a valid latency table: {first_problem(error, 'entries')}", fix) from None
    if stated != sha256_of(content):
        raise HwnasError(f"{name} was changed after it was written: its sha256 does not match", fix)
    return table


def write_table(path: Path, table: LatencyTable) -> None:
    """Write a table atomically. Raises HwnasError when the folder cannot be written."""
    write_text(path, table_text(table))


def table_text(table: LatencyTable) -> str:
    """Return the text of a table's file: sorted keys and one entry on each line, for readable diffs."""
    content = table.content()
    entries = content.pop("entries")
    lines = [f"{json.dumps(key)}: {canonical_json(value)}," for key, value in sorted(content.items())]
    rows = ",\n".join(f" {canonical_json(entry)}" for entry in sorted(entries, key=canonical_json))
    content["entries"] = sorted(entries, key=canonical_json)
    return "{\n" + "\n".join(lines) + f'\n"entries": [\n{rows}\n],\n"sha256": "{sha256_of(content)}"\n' + "}\n"
