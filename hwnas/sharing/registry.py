"""Pushing tables to a shelf, pulling them from it, listing what is on it.

A shelf holds ``tables/<sha256 of the file>.json``, which never change; ``records/<name>.json``, one a published name;
and ``index.json``, all records in one file, which is what readers fetch.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwnas.errors import HwnasError
from hwnas.files import parse_json, sha256_of_file, unwritable
from hwnas.sharing import records, transport
from hwnas.sharing.records import Description, Index, Record, check_name, printable
from hwnas.sharing.signing import TrustedKey, check_index, check_trust, sign, signer
from hwnas.sharing.transport import TableRegistry, open_shelf
from hwnas.tables.io import MAX_BYTES, REMEASURE, check_table_content
from hwnas.tables.schema import LatencyTable, today

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

INDEX = "index.json"
USER_SHELF = "HWNAS_SHELF"
_REMOVE = "remove it from the shelf, or fix it"
_TELL = "do not use it, and tell whoever keeps the shelf"


@dataclass(frozen=True)
class Pushed:
    """What a push did; ``warnings`` tell of records that the index had to leave out."""

    shelf: str
    record: Record
    state: Literal["pushed", "replaced", "already there"]
    warnings: list[str]


@dataclass(frozen=True)
class Pulled:
    """What a pull did; ``remark`` is what the user must know of the table's origin, ``index_remark`` of the index's,
    both empty where they trust it.
    """

    file: Path
    record: Record
    table: LatencyTable
    state: Literal["pulled", "already there"]
    remark: str
    index_remark: str


@dataclass(frozen=True)
class Listed:
    """A table on a shelf. ``record`` is None for a file in a plain folder, ``description`` for one that is broken."""

    name: str
    description: Description | None
    record: Record | None = None
    error: str = ""


def user_shelf() -> str:
    """The user's own shelf: HWNAS_SHELF, or a folder among their data."""
    from platformdirs import user_data_path

    return os.environ.get(USER_SHELF) or str(user_data_path("hwnas") / "tables")


def push(
    file: Path, address: str, name: str | None = None, replace: bool = False, key: Ed25519PrivateKey | None = None
) -> Pushed:
    """Publish a table on the shelf at ``address``, by default under the file's stem, signed where there is a key.

    Raises HwnasError when the table is not whole, when the name is taken by another one and ``replace`` is not set,
    and when the shelf cannot be written.
    """
    data = _read_file(file)
    record = make_record(data, check_name(file.stem if name is None else name, "give another --name"), str(file))
    record = sign(record, key) if key else record
    if len(records.record_text(record)) > records.MAX_RECORD_BYTES:
        raise HwnasError(f"what {file} says of itself is too long for a shelf", "shorten its names")
    shelf = open_shelf(address)
    transport.check_writable(shelf)
    state: Literal["pushed", "replaced", "already there"] = "pushed"
    there = transport.read(shelf, _record_path(record.name), records.MAX_RECORD_BYTES)
    if there is None:
        _check_room(shelf, record)
    elif existing := _same(shelf, there, record):
        record, state = existing, "already there"
    elif replace:
        state = "replaced"
    else:
        raise _taken(shelf, there, record)
    # The table before its record: a record never names a table that is not there yet. (The other way round a table may
    # stay without a record when a push is interrupted; it harms nobody, and the next push of it finds it there.)
    _put_table(shelf, record, data)
    if state == "replaced":
        transport.replace(shelf, _record_path(record.name), records.record_text(record))
    elif state == "pushed" and not transport.create(shelf, _record_path(record.name), records.record_text(record)):
        # Another push took the name in the meantime.
        there = transport.read(shelf, _record_path(record.name), records.MAX_RECORD_BYTES) or b""
        existing = _same(shelf, there, record)
        if existing is None:
            raise _taken(shelf, there, record)
        record, state = existing, "already there"
    if state == "already there" and key is None and _is_indexed(shelf, record):
        return Pushed(shelf.shown, record, state, [])
    try:
        published, warnings = rebuild_index(shelf, key)
    except HwnasError as error:
        problem = f"{record.name} is on the shelf, but not in its index: {error.problem}"
        raise HwnasError(problem, "run the same command again, which fixes it") from error
    # Where a backend cannot give a name to one writer only, the last one has it: whoever lost it is told here.
    if not any(_publishes(found, record) for found in published):
        raise HwnasError(
            f"another push gave the name {record.name} on {shelf.shown} to another table at the same time",
            "look at it with 'hwnas table list --shelf …', then give --replace or another --name",
        )
    return Pushed(shelf.shown, record, state, warnings)


def _read_file(file: Path) -> bytes:
    fix = REMEASURE.format(file)
    try:
        with file.open("rb") as opened:
            return transport.read_at_most(opened, MAX_BYTES + 1)
    except FileNotFoundError:
        raise HwnasError(f"{file} does not exist", fix) from None
    except OSError as error:
        raise HwnasError(f"cannot read {file}: {error.strerror}", fix) from error


def make_record(data: bytes, name: str, where: str) -> Record:
    """The record of the table that ``data`` is the text of. Raises HwnasError when it is not a whole table."""
    table, stated = _parse(data, where, REMEASURE.format(where))
    return Record(
        name=name,
        table_sha256=stated,
        file_sha256=hashlib.sha256(data).hexdigest(),
        file_bytes=len(data),
        pushed=today(),
        description=records.describe(table),
    )


def _parse(data: bytes, where: str, fix: str) -> tuple[LatencyTable, str]:
    """The table that ``data`` is the text of, and the sha256 that it states: of a table that is older than a field, the
    latter is not that of what is read.
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


def _record_path(name: str) -> str:
    return f"records/{check_name(name)}.json"


def _table_path(record: Record) -> str:
    return f"tables/{record.file_sha256}.json"


def _named(shelf: TableRegistry, data: bytes, file: str) -> Record:
    """The record in a file of ``records/``. Raises HwnasError when it is none, or one of another name."""
    where = printable(shelf.name_of(f"records/{file}"))
    record = records.parse_record(data, where)
    if f"{record.name}.json" != file:
        raise HwnasError(f"{where} calls itself {record.name}")
    return record


def _same(shelf: TableRegistry, there: bytes, record: Record) -> Record | None:
    """The record that is there, if it already publishes what ``record`` would."""
    try:
        existing = _named(shelf, there, f"{record.name}.json")
        signer(existing)
    except HwnasError:
        return None
    return existing if _publishes(existing, record) else None


def _publishes(existing: Record, record: Record) -> bool:
    """Whether both give the same name to the same file and, where ``record`` is signed, are signed by one key."""
    signed = record.signature is None or (
        existing.signature is not None and existing.signature.key == record.signature.key
    )
    return signed and (existing.name, existing.file_sha256) == (record.name, record.file_sha256)


def _taken(shelf: TableRegistry, there: bytes, record: Record) -> HwnasError:
    fix = "give --replace to put this one in its place, or another --name"
    try:
        existing = _named(shelf, there, f"{record.name}.json")
        signer(existing)
    except HwnasError as error:
        return HwnasError(error.problem, fix)
    if existing.file_sha256 == record.file_sha256:
        return HwnasError(f"{shelf.shown} has {record.name}, the same table, but not signed with this key", fix)
    what = existing.description
    known = printable(f"{what.device}, {what.runtime} {what.runtime_version}, pushed {existing.pushed}")
    problem = f"{shelf.shown} has another table named {record.name} ({known}, sha256 {existing.table_sha256[:12]})"
    return HwnasError(problem, fix)


def _check_room(shelf: TableRegistry, record: Record) -> None:
    """A shelf whose index readers would refuse takes no more."""
    size = len(records.record_text(record))
    sizes = (transport.list_files(shelf, "records") or {}).values()
    taken = [taken for taken in sizes if taken <= records.MAX_RECORD_BYTES]
    if len(taken) >= records.MAX_RECORDS or sum(taken) + size > records.MAX_INDEX_BYTES - records.MAX_RECORD_BYTES:
        raise HwnasError(f"shelf {shelf.shown} is full ({len(taken)} tables)", "push to another one")


def _put_table(shelf: TableRegistry, record: Record, data: bytes) -> None:
    path = _table_path(record)
    there = transport.read(shelf, path, len(data))
    if there is None:
        transport.create(shelf, path, data)  # False: another push wrote the same bytes
    elif there != data:  # damaged: its name is its hash
        transport.replace(shelf, path, data)


def _is_indexed(shelf: TableRegistry, record: Record) -> bool:
    data = transport.read(shelf, INDEX, records.MAX_INDEX_BYTES)
    try:
        return data is not None and record in records.parse_index(data, INDEX).records
    except HwnasError:
        return False


def rebuild_index(shelf: TableRegistry, key: Ed25519PrivateKey | None = None) -> tuple[list[Record], list[str]]:
    """Write the index from the records, signed where there is a key; returns them, and a line on each that had to be
    left out.

    Several may do this at once, without a lock. Each lists again after writing, and writes again unless it finds the
    records that it wrote. So whoever writes last has, after that, found nothing that the index lacks; and whoever adds
    a record later than that writes the index after it, and would be the last. (Listings must show what was written
    before; folders and S3 do.) An interrupted push may leave its record out, which the next push puts in.

    Raises HwnasError when the shelf cannot be read or written.
    """
    found, problems = read_records(shelf)
    while True:
        index = Index(records=found)
        transport.replace(shelf, INDEX, records.index_text(sign(index, key) if key else index))
        again, problems = read_records(shelf)
        if again == found:
            return found, problems
        found = again


def read_records(shelf: TableRegistry) -> tuple[list[Record], list[str]]:
    """The records of a shelf, sorted by name, and a line on each file among them that is none."""
    found: list[Record] = []
    problems: list[str] = []
    sizes = transport.list_files(shelf, "records") or {}
    readable = [file for file, size in sizes.items() if 0 < size <= records.MAX_RECORD_BYTES]
    answers = transport.read_many(shelf, [f"records/{file}" for file in readable], records.MAX_RECORD_BYTES)
    data = dict(zip(readable, answers, strict=True))
    for file, size in sizes.items():
        try:
            if file not in data:
                raise HwnasError(f"{printable(shelf.name_of(f'records/{file}'))} has {size} bytes")
            if (text := data[file]) is None:
                continue  # removed since it was listed
            found.append(_named(shelf, text, file))
        except HwnasError as error:
            problems.append(f"{error.problem}; left out of the index")
    return sorted(found, key=lambda record: record.name), problems


def pull(name: str, address: str, trusted: list[TrustedKey], out: Path | None = None, force: bool = False) -> Pulled:
    """Fetch a table from the shelf at ``address`` into a file, by default ``NAME.json`` on the user's own shelf.

    Raises HwnasError, and leaves no file, when the shelf does not have it, when no trusted key signed it though there
    are trusted keys, when a byte of it is not as published, and when another file is there and ``force`` is not set.
    """
    check_name(name)
    shelf = open_shelf(address)
    index = read_index(shelf)
    record = _find(index, shelf, name, address)
    remark, index_remark = check_trust(record, trusted), check_index(index, trusted)
    file = _default_file(name) if out is None else out
    existing = _hash_of(file)
    if existing not in (None, record.file_sha256) and not force:
        raise _occupied(file)
    data = _fetch(shelf, record)
    where = shelf.name_of(_table_path(record))
    table, stated = _parse(data, where, _TELL)
    if stated != record.table_sha256:
        raise HwnasError(f"{where} is not the table that its record names", _TELL)
    if existing == record.file_sha256:
        return Pulled(file, record, table, "already there", remark, index_remark)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        placed = transport.place(file, data, replace=force)
    except OSError as error:
        raise unwritable(file.parent, error) from error
    if not placed:
        raise _occupied(file)
    return Pulled(file, record, table, "pulled", remark, index_remark)


def _find(index: Index, shelf: TableRegistry, name: str, address: str) -> Record:
    published = {record.name: record for record in index.records}
    if name in published:
        return published[name]
    close = difflib.get_close_matches(name, published, n=5, cutoff=0.5)
    alike = f" (it has {', '.join(close)})" if close else ""
    command = f"'hwnas table list --shelf {printable(transport.without_password(address))}'"
    raise HwnasError(f"shelf {shelf.shown} has no table named {name}{alike}", f"see all of them with {command}")


def read_index(shelf: TableRegistry) -> Index:
    """A shelf's index. Raises HwnasError when there is none, it is not one, or its signature does not belong to it."""
    data = transport.read(shelf, INDEX, records.MAX_INDEX_BYTES)
    if data is None:
        if shelf.folder and not shelf.folder.is_dir():
            raise HwnasError(f"shelf {shelf.shown} does not exist", "check its address")
        raise HwnasError(
            f"{shelf.shown} is not a shelf: it has no {INDEX}", "check its address; 'hwnas table push' makes a shelf"
        )
    where = shelf.name_of(INDEX)
    index = records.parse_index(data, where, "push a table to the shelf, which writes it anew, or tell its keeper")
    signer(index)
    return index


def _default_file(name: str) -> Path:
    own = open_shelf(user_shelf())
    if own.folder is None:
        raise HwnasError(f"your own shelf {own.shown} ({USER_SHELF}) is not a folder", "say where to with --out FILE")
    return own.folder / f"{name}.json"


def _hash_of(file: Path) -> str | None:
    try:
        return sha256_of_file(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HwnasError(f"cannot write {file}: {error.strerror}", "give another --out FILE") from error


def _occupied(file: Path) -> HwnasError:
    return HwnasError(f"{file} is another file", "give --force to overwrite it, or another --out FILE")


def _fetch(shelf: TableRegistry, record: Record) -> bytes:
    """The bytes of a table, of which no more than its record states are read."""
    where, size = shelf.name_of(_table_path(record)), record.file_bytes
    data = transport.read(shelf, _table_path(record), size)
    if data is None:
        raise HwnasError(f"{where} is missing", "tell whoever keeps the shelf, or push the table again")
    if len(data) != size:
        problem = f"breaks off after {len(data)} of" if len(data) < size else "goes on after"
        raise HwnasError(f"{where} {problem} the {size} bytes that its record states", "try again, or tell its keeper")
    if hashlib.sha256(data).hexdigest() != record.file_sha256:
        raise HwnasError(f"{where} was changed: its sha256 is not that of its record", _TELL)
    return data


def list_shelf(address: str) -> list[Listed]:
    """What is on a shelf, by its index. Table files in a plain folder are read one by one, and a broken one is listed
    with what is wrong with it; so are those that lie in a folder on this machine beside an index.

    Raises HwnasError when the shelf cannot be read.
    """
    shelf = open_shelf(address)
    files = transport.list_files(shelf, "") if shelf.can_list else {INDEX: 0}
    if files is None:
        raise HwnasError(f"shelf {shelf.shown} does not exist", "check its address")
    listed: list[Listed] = []
    if INDEX in files:
        listed = [Listed(record.name, record.description, record) for record in read_index(shelf).records]
        files = {file: size for file, size in files.items() if file != INDEX} if shelf.folder else {}
    return listed + [_list_file(shelf, file) for file in files]


def read_shelf(address: str, trusted: list[TrustedKey]) -> dict[str, LatencyTable]:
    """Every table of a shelf by its name, checked as ``pull`` does; of a plain folder, its table files.

    Raises HwnasError when the shelf cannot be read, or any table of it.
    """
    shelf = open_shelf(address)
    files = transport.list_files(shelf, "") if shelf.can_list else {INDEX: 0}
    if files is None:
        raise HwnasError(f"shelf {shelf.shown} does not exist", "check its address")
    found: dict[str, LatencyTable] = {}
    if INDEX in files:
        for record in read_index(shelf).records:
            check_trust(record, trusted)
            found[record.name] = _parse(_fetch(shelf, record), shelf.name_of(_table_path(record)), _TELL)[0]
    if INDEX not in files or shelf.folder:
        for file in files.keys() - {INDEX}:
            data = transport.read(shelf, file, MAX_BYTES)
            if data is not None:
                found.setdefault(file.removesuffix(".json"), _parse(data, shelf.name_of(file), _REMOVE)[0])
    return dict(sorted(found.items()))


def _list_file(shelf: TableRegistry, file: str) -> Listed:
    name = file.removesuffix(".json")
    try:
        data = transport.read(shelf, file, MAX_BYTES)
        if data is None:
            raise HwnasError("removed since it was listed")
        return Listed(name, records.describe(_parse(data, file, "")[0]))
    except HwnasError as error:
        return Listed(name, None, error=printable(error.problem))
