"""Read CSV files, optionally gzipped, with one row for every NAS-Bench-201 cell: ``arch`` and columns of numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from hwnas.cost.model import Array
from hwnas.csv_files import read_csv
from hwnas.errors import HwnasError
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import decode, encode, every_choice
from hwnas.spaces.nasbench201 import NASBENCH201

DECIMAL = re.compile(r"\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class NumberForm:
    """The columns of a file: ``column`` is what each stands for, ``number`` describes the numbers in it.

    ``parse`` returns a number, NaN for one that is not known, and None for a text that is neither.
    """

    column: str
    number: str
    parse: Callable[[str], float | None]

    @property
    def fix(self) -> str:
        return f"give a CSV file with the columns arch and a {self.column} each, one row a cell"


def read_columns(path: Path, form: NumberForm) -> dict[str, Array]:
    """Read the numbers of every column [N], in the order of ``every_choice`` of NAS-Bench-201.

    Raises HwnasError for a file that is unreadable, damaged or too large, a wrong header, missing, unknown or repeated
    cells, and texts that are not of the form.
    """
    file = read_csv(path, form.fix)
    names = file.headings[1:]
    if file.columns[:1] not in (("arch",), ("architecture",)) or not names:
        raise HwnasError(f"{path} does not begin with the columns arch and a {form.column} each", form.fix)
    if strange := next((name for name in names if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,63}", name)), None):
        raise HwnasError(f"{path} has a column {strange[:80]!r}, which is not a valid {form.column} name", form.fix)
    rows = ((row.line, [cell.strip() for cell in row.cells]) for row in file.rows)
    return order_rows(str(path), names, rows, form)


def order_rows(
    source: str, names: Iterable[str], rows: Iterable[tuple[int, Sequence[str]]], form: NumberForm
) -> dict[str, Array]:
    """Return the numbers of every column [N] from (line, row) with rows of a cell and its numbers.

    ``source`` names the file in errors.

    Raises HwnasError unless every cell has one row of numbers of the form.
    """
    index_of, columns = _indices(), list(names)
    values = np.full((len(index_of), len(columns)), np.nan)
    seen = np.zeros(len(index_of), dtype=bool)
    for line, row in rows:
        if len(row) != 1 + len(columns):
            raise HwnasError(f"{source}, line {line}: it has {len(row)} columns, not {1 + len(columns)}", form.fix)
        index = index_of.get("".join(row[0].split()))
        if index is None:
            raise HwnasError(f"{source}, line {line}: {row[0][:120]!r} is not a NAS-Bench-201 cell", form.fix)
        if seen[index]:
            raise HwnasError(f"{source}, line {line}: cell {row[0]} appears twice", form.fix)
        seen[index] = True
        for column, text in enumerate(row[1:]):
            value = form.parse(text)
            if value is None:
                raise HwnasError(f"{source}, line {line}: {text[:40]!r} is not {form.number}", form.fix)
            values[index, column] = value
    if missing := int((~seen).sum()):
        first = list(index_of)[int(np.flatnonzero(~seen)[0])]
        raise HwnasError(f"{source} lacks {missing:,} of {len(index_of):,} cells, such as {first}", form.fix)
    return {name: values[:, column].copy() for column, name in enumerate(columns)}


@cache
def _indices() -> dict[str, int]:
    """Return the index of every cell in ``every_choice`` by its text."""
    cells = (NASBENCH201.format(decode(NASBENCH201, choice)) for choice in every_choice(NASBENCH201))
    return {cell: index for index, cell in enumerate(cells)}


def parse_decimal(text: str) -> float | None:
    """Return a number without a sign, such as ``94.3`` or ``1.5e-3``; None for any other text."""
    return float(text) if DECIMAL.fullmatch(text) else None


def index_of_cell(cell: Architecture) -> int:
    """Return the index of a cell in ``every_choice``."""
    index = 0
    for choice in encode(NASBENCH201, [cell])[0]:
        index = index * len(NASBENCH201.operations) + int(choice)
    return index
