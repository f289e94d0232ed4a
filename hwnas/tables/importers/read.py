"""Import a latency table of another project: detect the format, parse the lines, add what the user states."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hwnas import __version__
from hwnas.csv_files import heading_of
from hwnas.errors import HwnasError
from hwnas.files import decode_text, read_bytes
from hwnas.spaces.listing import COLUMNS as ARCHITECTURE_COLUMNS
from hwnas.tables.importers.blocks import count_layers
from hwnas.tables.importers.fbnet import read_fbnet, read_hw_nas_bench
from hwnas.tables.importers.layers import ofa_key, proxyless_key, read_layers
from hwnas.tables.importers.parsed import ParsedFile, ParsedLine
from hwnas.tables.importers.rows import REQUIRED as ENTRY_COLUMNS
from hwnas.tables.importers.rows import import_csv
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
from hwnas.tables.latency_column import NAME
from hwnas.tables.schema import NOT_KNOWN, Entry
from hwnas.text import shorten
from hwnas.units import MILLISECONDS, time_unit

FORMATS = ("proxyless", "ofa", "hw-nas-bench", "fbnet", "csv")
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
    if stated.unit is not None:
        stated = replace(stated, unit=_unit(stated.unit))
    if chosen == "csv":
        return import_csv(path, text, stated)
    readers: dict[str, Callable[[], ParsedFile]] = {
        "proxyless": lambda: read_layers(text, str(path), proxyless_key),
        "ofa": lambda: read_layers(text, str(path), ofa_key),
        "hw-nas-bench": lambda: read_hw_nas_bench(text, str(path)),
        "fbnet": lambda: read_fbnet(text, str(path), stated.precision),
    }
    parsed = readers[chosen]()
    if parsed.unit and stated.unit:
        raise HwnasError(f"{path} already gives --unit", "leave it out")
    unit = parsed.unit or stated.unit or parsed.usual_unit
    lines = EntryLines(path, parsed.refused)
    for found in parsed.lines:
        lines.add(found.line, _entry(found, MILLISECONDS[unit or "ms"]))
    check_understood(path, chosen, lines.entries, parsed.refused)
    whole = replace(stated, unit=unit, precision=stated.precision or parsed.precision)
    require_facts(whole, path)
    protocol = {
        "version": 0,
        "statistic": parsed.statistic,
        "date": stated.date or NOT_KNOWN,
        "tool_version": __version__,
    }
    table = make_table(table_columns(whole, path, chosen), lines.entries, protocol)
    return Imported(table, chosen, parsed.refused, dict(parsed.unused), dict(parsed.unknown))


def _unit(text: str) -> str:
    unit = time_unit(text)
    if unit is None:
        raise HwnasError(f"unknown unit {text!r}", f"use one of {', '.join(MILLISECONDS)}")
    return unit


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
        if not recognised and len(columns := heading_of(text)) > 1:
            raise _unknown_columns(name, columns)
        raise HwnasError(f"the format of {name} cannot be detected", CHOOSE_FORMAT)
    if format_name and recognised and format_name not in recognised:
        raise HwnasError(f"{name} is of the format {recognised[0]}, not {format_name}", "leave out --format")
    return format_name or recognised[0]


def _unknown_columns(name: str, columns: tuple[str, ...]) -> HwnasError:
    """Return the error for a text in columns that is of no known project."""
    shown = shorten(", ".join(columns), 200)
    if set(columns) & set(ARCHITECTURE_COLUMNS):
        return HwnasError(
            f"{name} has the columns {shown}: latencies of whole networks, not of layers",
            "use 'hwnas table fit --measurements FILE'",
        )
    return HwnasError(
        f"the format of {name} cannot be detected: it has the columns {shown}, and no keys of a known project",
        f"write the columns {', '.join(ENTRY_COLUMNS)}, or keys of ProxylessNAS, once-for-all or HW-NAS-Bench with a "
        "column latency_ms",
    )


def recognise(text: str) -> list[str]:
    """Return the formats that a text can have."""
    columns = set(heading_of(text))
    blocks = re.findall(r"expanded_conv-input:[\dx]+-output:[\dx]+-expand:[^\s\"']*", text)
    gated = [block for block in blocks if "-se:" in block]
    signs = {
        "proxyless": blocks and not gated,
        "ofa": gated,
        "hw-nas-bench": re.search(r"(ConvNorm|ConvBlock|Skip|AvgP)_H\d+_W\d+_Cin\d+_Cout\d+_", text),
        "fbnet": re.search(r"\bop_data_shape\b", text),
    }
    found = [format_name for format_name, sign in signs.items() if sign]
    return found or ["csv"] * ("op" in columns and any(map(NAME.fullmatch, columns)))


def _text(path: Path) -> str:
    """Read a text file. Raises HwnasError when it is missing, too large, binary, or a pickle, which can run code."""
    data = read_bytes(path, "name the file to import, or a part of it")
    if path.suffix in PICKLES or data[:1] == b"\x80" or data[1:6] == b"NUMPY":
        raise HwnasError(
            f"{path} is a pickle, or may contain one: reading it can run any code",
            "if you trust it, write its keys and numbers as JSON and import that",
        )
    return decode_text(data, str(path), CHOOSE_FORMAT)
