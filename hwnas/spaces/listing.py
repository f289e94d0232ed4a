"""Read files with several architectures: one on each line, over several lines each, or in a column of a CSV file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hwnas.csv_files import CsvFile, heading_of, parse_csv
from hwnas.errors import HwnasError
from hwnas.files import read_text
from hwnas.literals import open_brackets
from hwnas.spaces.space import Architecture, SearchSpace

COLUMNS = ("architecture", "arch", "genotype")
FIX = "write one architecture on each line"


def architecture_column(columns: tuple[str, ...]) -> str | None:
    """Return the column that holds architectures, or None."""
    return next((column for column in COLUMNS if column in columns), None)


def read_architectures(path: Path, space: SearchSpace) -> list[tuple[str, Architecture]]:
    """Return the architectures of a file in order, each as written, in one line, and parsed.

    An architecture ends with its line, or with the line of its last bracket. Empty lines and lines that begin with
    ``#`` are left out. A CSV file needs one of the columns COLUMNS.

    Raises HwnasError that names the file and the line for anything else, and for a file without architectures.
    """
    found = []
    for line, written in _written(read_text(path, FIX), path):
        try:
            found.append((" ".join(written.split()), space.parse(written)))
        except HwnasError as error:
            raise HwnasError(f"{path}, line {line}: {error.problem}", error.fix) from None
    if not found:
        raise HwnasError(f"{path} holds no architecture", FIX)
    return found


def _written(text: str, path: Path) -> Iterator[tuple[int, str]]:
    """Yield every architecture's text with the number of its first line."""
    if column := architecture_column(heading_of(text)):
        yield from _in_column(parse_csv(text, str(path), FIX), column)
        return
    begun, lines, depth = 0, list[str](), 0
    for number, line in enumerate(text.splitlines(), 1):
        if not lines and (not line.strip() or line.lstrip().startswith("#")):
            continue
        begun = begun if lines else number
        lines.append(line)
        depth += open_brackets(line)
        if depth <= 0:
            yield begun, "\n".join(lines)
            lines, depth = [], 0
    if lines:
        yield begun, "\n".join(lines)


def _in_column(file: CsvFile, column: str) -> Iterator[tuple[int, str]]:
    if column not in file.columns:
        raise HwnasError(f"{file.name} lacks the column {column} (it has {file.describe()})", FIX)
    index = file.columns.index(column)
    for row in file.rows:
        yield row.line, row.cells[index] if index < len(row.cells) else ""
