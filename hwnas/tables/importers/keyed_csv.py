"""Read CSV files of other projects' keys and their latencies: ``block_name,latency(ms)``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hwnas.csv_files import CsvFile, heading_of, parse_csv
from hwnas.errors import HwnasError
from hwnas.tables.importers.table import CHOOSE_FORMAT
from hwnas.tables.latency_column import NAME, latency_column, statistic_of


@dataclass(frozen=True)
class KeyedCsv:
    """The rows of a file by their keys: ``latencies`` as written in ``unit``, which is None where the file has none.

    ``others`` are the cells of the other columns by key and column, ``refused`` the lines that are not rows, with the
    reason. ``statistic`` is mean, median or None.
    """

    latencies: dict[str, str]
    others: dict[str, dict[str, str]]
    unit: str | None
    statistic: str | None
    refused: dict[str, str]


def read_keyed_csv(text: str, name: str) -> KeyedCsv | None:
    """Return the rows of a CSV text with a column of latencies, or None for a text of another form.

    The keys are in the first column that holds other things than numbers. Raises HwnasError for a key that occurs
    twice, and when there is no heading or no column of keys.
    """
    heading = heading_of(text)
    if len(heading) > 1 and not heading[0].isdecimal() and re.fullmatch(r"\d+(_\d+)?", heading[1]):
        raise HwnasError(
            f"{name} has no heading", "write block_name,latency_ms (or latency_us, latency_s) above its rows"
        )
    if len(heading) < 2 or not any(NAME.fullmatch(column) for column in heading):
        return None
    file = parse_csv(text, name, CHOOSE_FORMAT)
    found = latency_column(file)
    if found is None:
        return None
    column, unit = found
    keys = _key_column(file, column)
    result = KeyedCsv({}, {}, unit, statistic_of(column), {})
    for row in file.rows:
        try:
            record = file.record(row)
        except ValueError as error:
            result.refused[f"line {row.line}"] = str(error)
            continue
        key = record.pop(keys)
        if key in result.latencies:
            raise HwnasError(f"{name} has the key {key[:100]!r} twice", CHOOSE_FORMAT)
        result.latencies[key] = record.pop(column)
        result.others[key] = {other: cell for other, cell in record.items() if other and cell}
    return result


def _key_column(file: CsvFile, latency: str) -> str:
    for index, column in enumerate(file.columns):
        cells = [row.cells[index] for row in file.rows if index < len(row.cells)]
        if column != latency and any(cell and not cell.replace(".", "").isdecimal() for cell in cells):
            return column
    raise HwnasError(f"{file.name} has no column of keys (it has {file.describe()})", "name the layers in one")
