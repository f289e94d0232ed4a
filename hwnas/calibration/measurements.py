"""Read measured end-to-end latencies from a CSV file: one architecture and its milliseconds a line."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.model import Array
from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace
from hwnas.spaces.encoding import encode

COLUMNS = ("architecture", "latency_ms")
LEAST = 3  # measurements that a fit needs
MAX_BYTES = 64 << 20
FIX = "write a CSV file with the columns architecture,latency_ms"


def read_measurements(path: Path, space: SearchSpace) -> tuple[NDArray[np.intp], Array]:
    """Read architectures [N, edges of all cells] and their latencies [N] in ms. An architecture may occur repeatedly.

    Raises HwnasError that names the line for anything but architectures of the space and positive numbers.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise HwnasError(f"{path} is larger than {MAX_BYTES >> 20} MiB", FIX)
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                found = ", ".join(reader.fieldnames or ())[:200] or "nothing"
                raise HwnasError(f"{path} lacks the columns {' and '.join(COLUMNS)} (it has {found})", FIX)
            lines = [(reader.line_num, row[COLUMNS[0]], row[COLUMNS[1]]) for row in reader]
    except FileNotFoundError:
        raise HwnasError(f"{path} does not exist", FIX) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise HwnasError(f"{path} is not a CSV file ({error})", FIX) from None
    except OSError as error:
        raise HwnasError(f"cannot read {path}: {error.strerror}", FIX) from error
    architectures, latency_ms = [], []
    for number, written, text in lines:
        try:
            architectures.append(space.parse(written or ""))
            latency_ms.append(_positive(text))
        except HwnasError as error:
            raise HwnasError(f"{path}, line {number}: {error.problem}", error.fix) from None
    if len(lines) < LEAST:
        raise HwnasError(f"{path} holds {len(lines)} measurements, fewer than {LEAST}", "measure more networks")
    return encode(space, architectures), np.array(latency_ms)


def _positive(text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise HwnasError(
            f"{str(text)[:50]!r} is not a latency in milliseconds", "leave out networks that were not measured"
        )
    return value
