"""Tables of other projects, and rows as CSV, as tables of ours.

What a file does not say of its device and runtime the user must say; what neither says stays "not known". p10_ms and
p90_ms of an imported entry are its latency and its samples are 0: such files hold no quantiles of single readings.
"""

from hwnas.tables.importers.read import FORMATS, UNITS_MS, import_table
from hwnas.tables.importers.table import Imported, Stated, is_imported

__all__ = ["FORMATS", "UNITS_MS", "Imported", "Stated", "import_table", "is_imported"]
