"""Find the tables that ask for a network file in half precision."""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.export.timing import spec_of
from hwnas.runtimes.float16 import FLOAT16
from hwnas.tables.schema import LatencyTable


def ships_in_float16(table: LatencyTable) -> bool:
    """Return whether the networks of a table are float16 files, and not converted from float32 by its runtime.

    False for a table that hwnas has no profiler for: it is not known which files its runtime reads.
    """
    try:
        return spec_of(table).file_precision == FLOAT16
    except HwnasError:
        return False
