"""The records and the index of a table registry: read, checked, rebuilt.

A registry holds ``tables/<sha256 of the file>.json``, which never change; ``records/<name>.json``, one for each
published name; and ``index.json``, all records in one file, which readers fetch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hwnas.errors import HwnasError
from hwnas.sharing import records, transport
from hwnas.sharing.records import Index, Record, check_name
from hwnas.sharing.signing import sign, signer
from hwnas.sharing.transport import TableRegistry
from hwnas.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

INDEX = "index.json"


def record_path(name: str) -> str:
    return f"records/{check_name(name)}.json"


def table_path(record: Record) -> str:
    return f"tables/{record.file_sha256}.json"


def parse_named_record(registry: TableRegistry, data: bytes, file: str) -> Record:
    """Parse the record in a file of ``records/``. Raises HwnasError when it is invalid or has another name."""
    where = printable(registry.name_of(f"records/{file}"))
    record = records.parse_record(data, where)
    if f"{record.name}.json" != file:
        raise HwnasError(f"{where} states the name {record.name}")
    return record


def publishes(existing: Record, record: Record) -> bool:
    """Return true when both give the same name to the same file and, if ``record`` is signed, have the same key."""
    signed = record.signature is None or (
        existing.signature is not None and existing.signature.key == record.signature.key
    )
    return signed and (existing.name, existing.file_sha256) == (record.name, record.file_sha256)


def read_index(registry: TableRegistry) -> Index:
    """Return the registry's index. Raises HwnasError when it is missing or invalid, or its signature does not match."""
    data = transport.read(registry, INDEX, records.MAX_INDEX_BYTES)
    if data is None:
        if registry.folder and not registry.folder.is_dir():
            raise HwnasError(f"shelf {registry.shown} does not exist", "check its address")
        raise HwnasError(
            f"{registry.shown} is not a shelf: it has no {INDEX}", "check its address; 'hwnas table push' makes a shelf"
        )
    where = registry.name_of(INDEX)
    index = records.parse_index(data, where, "push a table to the shelf, which rewrites it, or tell its maintainer")
    signer(index)
    return index


def read_records(registry: TableRegistry) -> tuple[list[Record], list[str]]:
    """Return the registry's records, sorted by name, and one line for each file that is not a valid record."""
    found: list[Record] = []
    problems: list[str] = []
    sizes = transport.list_files(registry, "records") or {}
    readable = [file for file, size in sizes.items() if 0 < size <= records.MAX_RECORD_BYTES]
    answers = transport.read_many(registry, [f"records/{file}" for file in readable], records.MAX_RECORD_BYTES)
    data = dict(zip(readable, answers, strict=True))
    for file, size in sizes.items():
        try:
            if file not in data:
                raise HwnasError(f"{printable(registry.name_of(f'records/{file}'))} has {size} bytes")
            if (text := data[file]) is None:
                continue  # removed since it was listed
            found.append(parse_named_record(registry, text, file))
        except HwnasError as error:
            problems.append(f"{error.problem}; left out of the index")
    return sorted(found, key=lambda record: record.name), problems


def rebuild_index(registry: TableRegistry, key: Ed25519PrivateKey | None = None) -> tuple[list[Record], list[str]]:
    """Write the index from the records, signed if a key is given.

    Returns the records, and one line for each file that was left out.

    Several processes may do this at once, without a lock. Each lists the records again after writing and repeats until
    they equal those it wrote. The last writer has therefore listed the records after its write and found nothing
    missing; a process that adds a record later also writes the index later. This needs listings that show all earlier
    writes, as folders and S3 give. An interrupted push may leave its record out; the next push adds it.

    Raises HwnasError when the registry cannot be read or written.
    """
    found, problems = read_records(registry)
    while True:
        index = Index(records=found)
        transport.replace(registry, INDEX, records.index_text(sign(index, key) if key else index))
        again, problems = read_records(registry)
        if again == found:
            return found, problems
        found = again
