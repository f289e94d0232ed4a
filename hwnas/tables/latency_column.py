"""Find the latencies of a CSV file by the column's name, which also gives their unit."""

from __future__ import annotations

import re

from hwnas.csv_files import CsvFile
from hwnas.errors import HwnasError
from hwnas.units import MILLISECONDS

STATISTICS = ("mean", "median")
_UNITS = "|".join(MILLISECONDS)
NAME = re.compile(
    rf"(?:(mean|median)_)?(?:latency|time)(?:_(mean|median))?(?:_({_UNITS}))?|(mean|median)(?:_({_UNITS}))?"
)


def latency_column(file: CsvFile) -> tuple[str, str | None] | None:
    """Return the column of latencies and its unit, None where its name has no unit; or None without such a column.

    ``latency_ms`` goes before all others. Raises HwnasError when several of the others are there.
    """
    found = [(column, match) for column in file.columns if (match := NAME.fullmatch(column))]
    chosen = [pair for pair in found if pair[0] == "latency_ms"] or found
    if len(chosen) > 1:
        raise HwnasError(
            f"{file.name} has several columns of latencies: {', '.join(column for column, _ in chosen)}",
            "name the one to use latency_ms",
        )
    return next(((column, match[3] or match[5]) for column, match in chosen), None)


def statistic_of(column: str) -> str | None:
    """Return which statistic of the readings a column's name says that it holds."""
    return next((statistic for statistic in STATISTICS if statistic in column.split("_")), None)


def require_unit(file: CsvFile, column: str, unit: str | None) -> str:
    """Return the unit. Raises HwnasError when the column's name gives none."""
    if unit is None:
        heading = file.headings[file.columns.index(column)]
        names = ", ".join(f"{column}_{known}" for known in MILLISECONDS)
        raise HwnasError(f"{file.name} does not give the unit of its column {heading!r}", f"name it {names}")
    return unit
