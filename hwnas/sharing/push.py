"""Push a latency table to a registry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwnas.errors import HwnasError
from hwnas.sharing import records, transport
from hwnas.sharing.index import (
    INDEX,
    parse_named_record,
    publishes,
    rebuild_index,
    record_path,
    table_path,
)
from hwnas.sharing.records import Record, check_name
from hwnas.sharing.signing import sign, signer
from hwnas.sharing.table_files import make_record
from hwnas.sharing.transport import TableRegistry, open_registry
from hwnas.tables.io import MAX_BYTES, measure_one
from hwnas.text import printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

State = Literal["pushed", "replaced", "already there"]


@dataclass(frozen=True)
class Pushed:
    """Result of a push. ``registry`` is its address; ``warnings`` name the records that the index leaves out."""

    registry: str
    record: Record
    state: State
    warnings: list[str]


def push(
    file: Path, address: str, name: str | None = None, replace: bool = False, key: Ed25519PrivateKey | None = None
) -> Pushed:
    """Publish a table in the registry at ``address``, by default under the file's stem, signed if a key is given.

    Raises HwnasError when the table is invalid, when another table has the name and ``replace`` is not set, and when
    the registry cannot be written.
    """
    data = _read_file(file)
    record = make_record(data, check_name(file.stem if name is None else name, "give another --name"), str(file))
    record = sign(record, key) if key else record
    if len(records.record_text(record)) > records.MAX_RECORD_BYTES:
        raise HwnasError(f"the description of {file} is too long for a shelf", "shorten its names")
    registry = open_registry(address)
    transport.check_writable(registry)
    state: State = "pushed"
    there = transport.read(registry, record_path(record.name), records.MAX_RECORD_BYTES)
    if there is None:
        _require_room(registry, record)
    elif existing := _existing_record(registry, there, record):
        record, state = existing, "already there"
    elif replace:
        state = "replaced"
    else:
        raise _name_taken(registry, there, record)
    # Write the table before its record, so that every record names an existing table. An interrupted push leaves a
    # table without a record, which does no harm; the next push of that table finds it.
    _put_table(registry, record, data)
    if state == "replaced":
        transport.replace(registry, record_path(record.name), records.record_text(record))
    elif state == "pushed" and not transport.create(registry, record_path(record.name), records.record_text(record)):
        # Another push took the name in the meantime.
        there = transport.read(registry, record_path(record.name), records.MAX_RECORD_BYTES) or b""
        existing = _existing_record(registry, there, record)
        if existing is None:
            raise _name_taken(registry, there, record)
        record, state = existing, "already there"
    if state == "already there" and key is None and _is_indexed(registry, record):
        return Pushed(registry.shown, record, state, [])
    try:
        published, warnings = rebuild_index(registry, key)
    except HwnasError as error:
        problem = f"{record.name} is on the shelf, but not in its index: {error.problem}"
        raise HwnasError(problem, "run the same command again, which fixes it") from error
    # Some backends let two writers take the same name, and the last one wins; report that to the other.
    if not any(publishes(found, record) for found in published):
        raise HwnasError(
            f"another push gave the name {record.name} on {registry.shown} to another table at the same time",
            "look at it with 'hwnas table list --shelf …', then give --replace or another --name",
        )
    return Pushed(registry.shown, record, state, warnings)


def _read_file(file: Path) -> bytes:
    fix = measure_one(file)
    try:
        with file.open("rb") as opened:
            return transport.read_at_most(opened, MAX_BYTES + 1)
    except FileNotFoundError:
        raise HwnasError(f"{file} does not exist", fix) from None
    except OSError as error:
        raise HwnasError(f"cannot read {file}: {error.strerror}", fix) from error


def _existing_record(registry: TableRegistry, there: bytes, record: Record) -> Record | None:
    """Return the record that is already there if it publishes the same as ``record``."""
    try:
        existing = parse_named_record(registry, there, f"{record.name}.json")
        signer(existing)
    except HwnasError:
        return None
    return existing if publishes(existing, record) else None


def _name_taken(registry: TableRegistry, there: bytes, record: Record) -> HwnasError:
    fix = "give --replace to put this one in its place, or another --name"
    try:
        existing = parse_named_record(registry, there, f"{record.name}.json")
        signer(existing)
    except HwnasError as error:
        return HwnasError(error.problem, fix)
    if existing.file_sha256 == record.file_sha256:
        return HwnasError(f"{registry.shown} has {record.name}, the same table, but not signed with this key", fix)
    what = existing.description
    known = printable(f"{what.device}, {what.runtime} {what.runtime_version}, pushed {existing.pushed}")
    problem = f"{registry.shown} has another table named {record.name} ({known}, sha256 {existing.table_sha256[:12]})"
    return HwnasError(problem, fix)


def _require_room(registry: TableRegistry, record: Record) -> None:
    """Raise HwnasError when the index would become larger than readers accept."""
    size = len(records.record_text(record))
    sizes = (transport.list_files(registry, "records") or {}).values()
    taken = [taken for taken in sizes if taken <= records.MAX_RECORD_BYTES]
    if len(taken) >= records.MAX_RECORDS or sum(taken) + size > records.MAX_INDEX_BYTES - records.MAX_RECORD_BYTES:
        raise HwnasError(f"shelf {registry.shown} is full ({len(taken)} tables)", "push to another one")


def _put_table(registry: TableRegistry, record: Record, data: bytes) -> None:
    path = table_path(record)
    there = transport.read(registry, path, len(data))
    if there is None:
        transport.create(registry, path, data)  # False: another push wrote the same bytes
    elif there != data:  # damaged, because the name is the hash of the content
        transport.replace(registry, path, data)


def _is_indexed(registry: TableRegistry, record: Record) -> bool:
    data = transport.read(registry, INDEX, records.MAX_INDEX_BYTES)
    try:
        return data is not None and record in records.parse_index(data, INDEX).records
    except HwnasError:
        return False
