"""Import a latency table of another project: detect the format, parse the lines, add what the user states."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hwnas import __version__
from hwnas.errors import HwnasError
from hwnas.tables.importers.blocks import count_layers
from hwnas.tables.importers.fbnet import read_fbnet, read_hw_nas_bench
from hwnas.tables.importers.layers import ofa_key, proxyless_key, read_layers
from hwnas.tables.importers.parsed import ParsedFile, ParsedLine
from hwnas.tables.importers.rows import import_csv
from hwnas.tables.importers.table import (
    CHOOSE_FORMAT,
    Imported,
    Stated,
    check_understood,
    make_table,
    require_facts,
    table_columns,
)
from hwnas.tables.schema import NOT_KNOWN, Entry

FORMATS = ("proxyless", "ofa", "hw-nas-bench", "fbnet", "csv")
UNITS_MS = {"ms": 1.0, "us": 1e-3, "s": 1e3}
# Both projects take their means as milliseconds. Files of the other formats do not give a unit.
IN_MILLISECONDS = ("proxyless", "ofa")
MAX_BYTES = 64 << 20
PICKLES = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth")


def import_table(path: Path, format_name: str | None, stated: Stated) -> Imported:
    """Import a file in one of FORMATS; None detects the format from the content.

    Raises HwnasError when the file cannot be read, is a pickle or of another format, when no line is understood, and
    when a fact about the table is given neither by the file nor by ``stated``, or by both.
    """
    if format_name not in (None, *FORMATS):
        raise HwnasError(f"unknown format {format_name!r}", f"use one of {', '.join(FORMATS)}")
    text = _text(path)
    chosen = _format_of(text, format_name, str(path))
    if stated.unit not in (None, *UNITS_MS):
        raise HwnasError(f"unknown unit {stated.unit!r}", f"use one of {', '.join(UNITS_MS)}")
    if chosen == "csv":
        return import_csv(path, text, stated)
    readers: dict[str, Callable[[], ParsedFile]] = {
        "proxyless": lambda: read_layers(text, str(path), proxyless_key),
        "ofa": lambda: read_layers(text, str(path), ofa_key),
        "hw-nas-bench": lambda: read_hw_nas_bench(text, str(path)),
        "fbnet": lambda: read_fbnet(text, str(path), stated.precision),
    }
    parsed = readers[chosen]()
    unit = stated.unit or ("ms" if chosen in IN_MILLISECONDS else None)
    entries: dict[str, Entry] = {}
    for found in parsed.lines:
        entry = _entry(found, UNITS_MS[unit or "ms"])
        if entry.workload.key in entries:
            parsed.refused[found.line] = f"a second {entry.workload.key}"
        entries.setdefault(entry.workload.key, entry)
    check_understood(path, chosen, list(entries.values()), parsed.refused)
    whole = replace(stated, unit=unit, precision=stated.precision or parsed.precision)
    require_facts(whole, path)
    protocol = {
        "version": 0,
        "statistic": "mean" if chosen in IN_MILLISECONDS else NOT_KNOWN,
        "date": stated.date or NOT_KNOWN,
        "tool_version": __version__,
    }
    table = make_table(table_columns(whole, path, chosen), list(entries.values()), protocol)
    return Imported(table, chosen, parsed.refused, dict(parsed.unused), dict(parsed.unknown))


def _entry(found: ParsedLine, unit_ms: float) -> Entry:
    block = found.block
    counts = count_layers(block.layers, found.height, found.width)
    ms = found.latency * unit_ms
    return Entry(
        op=block.op,
        in_channels=block.in_channels,
        out_channels=block.out_channels,
        height=found.height,
        width=found.width,
        stride=block.stride,
        latency_ms=ms,
        p10_ms=ms,
        p90_ms=ms,
        samples=0,
        macs=counts.macs,
        macs_conv_linear=counts.macs_conv_linear,
        params=counts.params,
    )


def _format_of(text: str, format_name: str | None, name: str) -> str:
    """Return the given format, else the detected one.

    Raises HwnasError when no or several formats are detected, or another than the given one: keys that two formats
    share stand for different layers.
    """
    recognised = recognise(text)
    if format_name is None and len(recognised) != 1:
        raise HwnasError(f"the format of {name} cannot be detected", CHOOSE_FORMAT)
    if format_name and recognised and format_name not in recognised:
        raise HwnasError(f"{name} is of the format {recognised[0]}, not {format_name}", "leave out --format")
    return format_name or recognised[0]


def recognise(text: str) -> list[str]:
    """Return the formats that a text can have."""
    heading = re.split(r"[\r\n]", text, maxsplit=1)[0].strip()[:10_000]
    columns = set(next(csv.reader([heading]), []))
    blocks = re.findall(r"expanded_conv-input:[\dx]+-output:[\dx]+-expand:[^\s\"']*", text)
    gated = [block for block in blocks if "-se:" in block]
    signs = {
        "proxyless": blocks and not gated,
        "ofa": gated,
        "hw-nas-bench": re.search(r"(ConvNorm|ConvBlock|Skip|AvgP)_H\d+_W\d+_Cin\d+_Cout\d+_", text),
        "fbnet": re.search(r"\bop_data_shape\b", text),
        "csv": {"op", "latency_ms"} <= columns,
    }
    return [format_name for format_name, sign in signs.items() if sign]


def _text(path: Path) -> str:
    """Read a text file. Raises HwnasError when it is missing, too large, binary, or a pickle, which can run code."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HwnasError(f"{path} is larger than {MAX_BYTES >> 20} MiB", "import a part of it at a time")
        data = path.read_bytes()
    except FileNotFoundError:
        raise HwnasError(f"{path} does not exist", "name the file to import") from None
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}", "name the file to import") from error
    if path.suffix in PICKLES or data[:1] == b"\x80" or data[1:6] == b"NUMPY":
        raise HwnasError(
            f"{path} is a pickle, or may contain one: reading it can run any code",
            "if you trust it, write its keys and numbers as JSON and import that",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise HwnasError(f"{path} is not a text file", CHOOSE_FORMAT) from None
