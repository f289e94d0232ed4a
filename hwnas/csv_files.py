"""Read CSV files as spreadsheets and programs write them.

The columns are separated by commas, semicolons or tabs, whichever gives the heading most columns; Excel's first line
``sep=;`` is understood. Empty rows and empty columns at the right are ignored. In a column with decimal commas these
become points; a quoted ``1,234`` stays as it is where it may as well be a thousand.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.files import decode_text, read_bytes
from hwnas.units import without_micro_signs

DELIMITERS = (",", ";", "\t")
MAX_BYTES = 64 << 20
COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+(?:[eE][+-]?\d+)?")
POINT_NUMBER = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?")
PERHAPS_A_THOUSAND = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


@dataclass(frozen=True)
class CsvRow:
    """The cells of a row, with their spaces; ``line`` is the line of the file on which it begins."""

    line: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class CsvFile:
    """The headings and rows of a CSV file. A row can have more or fewer cells than there are headings."""

    name: str
    headings: tuple[str, ...]
    rows: tuple[CsvRow, ...]

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The headings in plain letters: ``latency_ms`` for ``Latency (ms)`` and ``latency[ms]``."""
        return tuple(map(plain_heading, self.headings))

    def record(self, row: CsvRow) -> dict[str, str]:
        """Return {column: cell without surrounding spaces} of a row.

        Raises ValueError when it has more or fewer cells than the heading.
        """
        if len(row.cells) != len(self.headings):
            raise ValueError(f"it has {len(row.cells)} columns, the heading {len(self.headings)}{_decimal_comma(row)}")
        return dict(zip(self.columns, map(str.strip, row.cells), strict=True))

    def describe(self) -> str:
        """Return the headings for an error message."""
        if len(self.headings) == 1 and re.search(r"\s", self.headings[0]):
            return f"one column, {self.headings[0][:100]!r}: separate columns with commas"
        return ", ".join(self.headings)[:200] or "nothing"


def read_csv(path: Path, fix: str) -> CsvFile:
    """Read a CSV file of at most 64 MiB, gzipped if its name ends in ``.gz``.

    Raises HwnasError, with ``fix`` as the advice, when the file is missing, too large, not text or not CSV.
    """
    data = _gunzipped(path, fix) if path.suffix == ".gz" else read_bytes(path, fix, MAX_BYTES)
    return parse_csv(decode_text(data, str(path), fix), str(path), fix)


def _gunzipped(path: Path, fix: str) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(MAX_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise HwnasError(f"{path} is truncated or not a gzip file ({error})", fix) from None
    except FileNotFoundError:
        raise HwnasError(f"{path} does not exist", fix) from None
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}", fix) from None
    if len(data) > MAX_BYTES:
        raise HwnasError(f"{path} holds more than {MAX_BYTES >> 20} MiB", fix)
    return data


def parse_csv(text: str, name: str, fix: str) -> CsvFile:
    """Parse CSV text; ``name`` names it in errors.

    Raises HwnasError for unbalanced quotes and for a column that occurs twice.
    """
    lines = text.splitlines(keepends=True)
    stated = re.fullmatch(r"sep=([,;\t])\s*", lines[0]) if lines else None
    skipped = 1 if stated else 0
    delimiter = stated[1] if stated else _delimiter(next((line for line in lines if line.strip()), ""))
    reader = csv.reader(
        io.StringIO("".join(lines[skipped:]), newline=""), delimiter=delimiter, strict=True, skipinitialspace=True
    )
    rows, line = [], 1
    try:
        for cells in reader:
            if _without_empty_end(cells, 0):
                rows.append((line + skipped, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise HwnasError(f"{name} is not valid CSV ({error}, line {line + skipped})", fix) from None
    headings = tuple(map(str.strip, _without_empty_end(rows[0][1], 0))) if rows else ()
    body = [CsvRow(line, _without_empty_end(cells, len(headings))) for line, cells in rows[1:]]
    file = CsvFile(name, headings, tuple(_with_points(body, delimiter)))
    named = [column for column in file.columns if column]
    if twice := next((column for column in named if named.count(column) > 1), None):
        raise HwnasError(f"{name} has the column {twice} twice", "leave one of them out")
    return file


def heading_of(text: str) -> tuple[str, ...]:
    """Return the plain headings of a text if it is CSV."""
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("sep=")), "")[:10_000]
    try:
        return tuple(map(plain_heading, next(csv.reader([first], delimiter=_delimiter(first)), [])))
    except csv.Error:
        return ()


def plain_heading(heading: str) -> str:
    """Return a heading in small letters and digits, joined by underscores."""
    return re.sub(r"[^0-9a-z]+", "_", without_micro_signs(heading).lower()).strip("_")


def _delimiter(heading: str) -> str:
    return max(DELIMITERS, key=heading.count)


def _without_empty_end(cells: Sequence[str], least: int) -> tuple[str, ...]:
    """Return the cells without empty ones at the end beyond ``least``."""
    end = len(cells)
    while end > least and not cells[end - 1].strip():
        end -= 1
    return tuple(cells[:end])


def _with_points(rows: Sequence[CsvRow], delimiter: str) -> list[CsvRow]:
    """Return the rows with points for the commas of columns that have decimal commas."""
    width = max((len(row.cells) for row in rows), default=0)
    converted = {
        index
        for index in range(width)
        if _has_decimal_commas([row.cells[index].strip() for row in rows if index < len(row.cells)], delimiter)
    }
    if not converted:
        return list(rows)
    return [
        CsvRow(
            row.line,
            tuple(
                cell.replace(",", ".") if index in converted and COMMA_NUMBER.fullmatch(cell.strip()) else cell
                for index, cell in enumerate(row.cells)
            ),
        )
        for row in rows
    ]


def _has_decimal_commas(cells: Sequence[str], delimiter: str) -> bool:
    """Return whether the commas in the numbers of a column are decimal ones.

    Semicolons separate columns where commas are decimal. Elsewhere a number is needed that cannot be a thousand.
    """
    numbers = [cell for cell in cells if COMMA_NUMBER.fullmatch(cell)]
    if not numbers or any(POINT_NUMBER.fullmatch(cell) for cell in cells):
        return False
    return delimiter == ";" or any(not PERHAPS_A_THOUSAND.fullmatch(number) for number in numbers)


def _decimal_comma(row: CsvRow) -> str:
    """Return a remark on a row that may have a decimal comma between two of its cells."""
    for whole, fraction in pairwise(row.cells):
        if whole.strip().isdecimal() and fraction.isdecimal():
            return f"; if {whole},{fraction} has a decimal comma, write {whole}.{fraction}"
    return ""
