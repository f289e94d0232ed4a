"""The table files of a registry: parsed, described in a record, fetched and checked against it."""

from __future__ import annotations

import hashlib

from hwnas.errors import HwnasError
from hwnas.files import parse_json
from hwnas.sharing import records, transport
from hwnas.sharing.index import table_path
from hwnas.sharing.records import Record
from hwnas.sharing.transport import TableRegistry
from hwnas.tables.io import MAX_BYTES, check_table_content, measure_one
from hwnas.tables.schema import LatencyTable, today
from hwnas.text import printable

REPORT_DAMAGE = "do not use it, and tell the maintainer of the shelf"


def make_record(data: bytes, name: str, where: str) -> Record:
    """Return the record of the table in ``data``. Raises HwnasError when the table is invalid or incomplete."""
    table, stated = parse_table_file(data, where, measure_one(where))
    return Record(
        name=name,
        table_sha256=stated,
        file_sha256=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        pushed=today(),
        description=records.describe(table),
    )


def parse_table_file(data: bytes, where: str, fix: str) -> tuple[LatencyTable, str]:
    """Return the table in ``data`` and the sha256 stated in it.

    The stated sha256 differs from ``table.sha256`` when the file was written before a field was added to the format.
    """
    if len(data) > MAX_BYTES:
        raise HwnasError(f"{where} is larger than {MAX_BYTES >> 20} MiB", fix)
    records.check_values(data, records.MAX_TABLE_VALUES, where, fix)
    try:
        content = parse_json(data, where, fix)
        stated = content.get("sha256") if isinstance(content, dict) else None
        return check_table_content(content, where, fix), str(stated)
    except HwnasError as error:
        raise HwnasError(printable(error.problem), error.fix) from None


def fetch_table(registry: TableRegistry, record: Record) -> bytes:
    """Return the bytes of a table file after checking size and sha256; reads no more bytes than the record states."""
    where, size = registry.name_of(table_path(record)), record.file_bytes
    data = transport.read(registry, table_path(record), size)
    if data is None:
        raise HwnasError(f"{where} is missing", "tell the maintainer of the shelf, or push the table again")
    if len(data) != size:
        problem = f"breaks off after {len(data)} of" if len(data) < size else "is longer than"
        raise HwnasError(
            f"{where} {problem} the {size} bytes that its record states",
            "try again, or tell the maintainer of the shelf",
        )
    if hashlib.sha256(data).hexdigest() != record.file_sha256:
        raise HwnasError(f"{where} was changed: its sha256 is not that of its record", REPORT_DAMAGE)
    return data
