"""Import latency tables of other projects, and CSV files.

The user must give what a file does not say about its device and runtime; fields that neither gives are "not known".
The p10_ms and p90_ms of an imported entry are its latency, and its samples are 0: the files have no quantiles.
"""

from hwnas.tables.importers.read import FORMATS, import_table
from hwnas.tables.importers.table import Imported, Stated, is_imported

__all__ = ["FORMATS", "Imported", "Stated", "import_table", "is_imported"]
