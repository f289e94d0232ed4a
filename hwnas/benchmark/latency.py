"""Read measured latencies of every NAS-Bench-201 cell on some devices, and find the device of each latency table.

The file is CSV, optionally gzipped, with the column ``arch`` and one column a device, in ms. An empty field stands for
a cell that was not measured. A reading under 5 % of its device's median is a broken one (hwnas.calibration.fit): that
cell counts as not measured, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.benchmark.cell_table import NumberForm, parse_decimal, read_columns
from hwnas.calibration.fit import BROKEN
from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.files import sha256_of


@dataclass(frozen=True)
class MeasuredLatencies:
    """Latencies in ms: ``values[column]`` [N], in the order of ``every_choice``; NaN for cells that were not measured.

    ``source`` names the file in errors.
    """

    source: str
    values: Mapping[str, Array]

    @property
    def sha256(self) -> str:
        """Hash of the numbers, independent of the file they came in."""
        known = {name: [None if math.isnan(v) else v for v in column.tolist()] for name, column in self.values.items()}
        return sha256_of(known)

    def columns_of(self, tables: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
        """Return the column of every latency table, by the table's name.

        ``given`` maps tables to columns. The column of another table is the one that its name is or ends with:
        ``published-titanx-1`` has the column ``titanx_1``.

        Raises HwnasError for a table without a column, and for unknown names in ``given``.
        """
        names = list(tables)
        if strange := next((table for table in given if table not in names), None):
            raise HwnasError(f"--latency-column is of an unknown table, {strange}", f"tables: {', '.join(names)}")
        if strange := next((column for column in given.values() if column not in self.values), None):
            raise HwnasError(f"{self.source} has no column {strange}", f"its columns: {', '.join(self.values)}")
        return {table: given.get(table) or self._column_of(table) for table in names}

    def _column_of(self, table: str) -> str:
        name = _plain(table)
        fitting = [column for column in self.values if f"_{name}".endswith(f"_{_plain(column)}")]
        if not fitting:
            raise HwnasError(
                f"no column of {self.source} has the name of table {table}; its columns: {', '.join(self.values)}",
                f"say which with --latency-column {table}=COLUMN",
            )
        return max(fitting, key=len)


def read_latencies(path: Path) -> MeasuredLatencies:
    """Read a file of measured latencies.

    Raises HwnasError for a file that is unreadable, damaged or too large, a wrong header, missing, unknown or repeated
    cells, numbers that are no latencies, and a device on which no cell was measured.
    """
    columns = read_columns(path, LATENCIES)
    if empty := next((name for name, values in columns.items() if np.isnan(values).all()), None):
        raise HwnasError(f"{path} has no latency in column {empty}", "remove the column")
    return MeasuredLatencies(str(path), {name: _without_broken(values) for name, values in columns.items()})


def _without_broken(values: Array) -> Array:
    return np.where(values > BROKEN * np.nanmedian(values), values, np.nan)


def _latency(text: str) -> float | None:
    if not text:
        return math.nan
    value = parse_decimal(text)
    return value if value is not None and math.isfinite(value) else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


LATENCIES = NumberForm("device", "a latency in ms", _latency)
