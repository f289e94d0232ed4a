"""Read measured end-to-end latencies from a CSV file: one architecture and its latency a line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.model import Array
from hwnas.csv_files import COMMA_NUMBER, read_csv
from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace
from hwnas.spaces.encoding import encode
from hwnas.spaces.listing import architecture_column
from hwnas.tables.latency_column import latency_column, require_unit
from hwnas.units import MILLISECONDS

LEAST = 3  # measurements that a fit needs
FIX = "write a CSV file with the columns architecture,latency_ms"


def read_measurements(path: Path, space: SearchSpace) -> tuple[NDArray[np.intp], Array]:
    """Read architectures [N, edges of all cells] and their latencies [N] in ms. An architecture may occur repeatedly.

    The columns are ``architecture`` and ``latency_ms``, or ``latency_us``, ``latency_s``.

    Raises HwnasError that names the line for anything but architectures of the space and positive numbers.
    """
    file = read_csv(path, FIX)
    written, latencies = architecture_column(file.columns), latency_column(file)
    if not (written and latencies):
        lacking = " and ".join([*([] if written else ["architecture"]), *([] if latencies else ["latency_ms"])])
        advice = "" if written else ", or import a table of layers with 'hwnas table import'"
        raise HwnasError(f"{path} lacks the columns {lacking} (it has {file.describe()})", f"{FIX}{advice}")
    factor = MILLISECONDS[require_unit(file, *latencies)]
    architectures, latency_ms = [], []
    for row in file.rows:
        try:
            record = file.record(row)
            architectures.append(space.parse(record[written]))
            latency_ms.append(_positive(record[latencies[0]]) * factor)
        except HwnasError as error:
            raise HwnasError(f"{path}, line {row.line}: {error.problem}", error.fix) from None
        except ValueError as error:
            raise HwnasError(f"{path}, line {row.line}: {error}", FIX) from None
    if len(file.rows) < LEAST:
        raise HwnasError(f"{path} holds {len(file.rows)} measurements, fewer than {LEAST}", "measure more networks")
    return encode(space, architectures), np.array(latency_ms)


def _positive(text: str) -> float:
    if COMMA_NUMBER.fullmatch(text):
        raise HwnasError(f"{text!r} has a comma", "write a point for a decimal comma, and nothing between thousands")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise HwnasError(f"{text[:50]!r} is not a latency", "leave out networks that were not measured")
    return value
