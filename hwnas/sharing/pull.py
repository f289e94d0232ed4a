"""Pull a latency table from a registry into a file."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hwnas.errors import HwnasError
from hwnas.files import sha256_of_file, unwritable
from hwnas.sharing import transport
from hwnas.sharing.index import read_index, table_path
from hwnas.sharing.records import Index, Record, check_name
from hwnas.sharing.signing import TrustedKey, check_index, check_trust
from hwnas.sharing.table_files import REPORT_DAMAGE, fetch_table, parse_table_file
from hwnas.sharing.transport import TableRegistry, open_registry
from hwnas.tables.schema import LatencyTable
from hwnas.text import printable, quoted

USER_REGISTRY = "HWNAS_SHELF"


@dataclass(frozen=True)
class Pulled:
    """Result of a pull. ``remark`` warns about the origin of the table, ``index_remark`` about that of the index; both
    are empty when a trusted key signed them.
    """

    file: Path
    record: Record
    table: LatencyTable
    state: Literal["pulled", "already there"]
    remark: str
    index_remark: str


def user_registry() -> str:
    """Return the address of the user's own registry: HWNAS_SHELF, or a folder in the user's data folder."""
    from platformdirs import user_data_path

    return os.environ.get(USER_REGISTRY) or str(user_data_path("hwnas") / "tables")


def pull(name: str, address: str, trusted: list[TrustedKey], out: Path | None = None, force: bool = False) -> Pulled:
    """Fetch a table from the registry at ``address`` into a file, by default ``NAME.json`` in the user's own registry.

    Raises HwnasError, and leaves no file, when the registry has no such table, when there are trusted keys and none of
    them signed it, when its bytes differ from the published ones, and when the file exists with other content and
    ``force`` is not set.
    """
    check_name(name)
    registry = open_registry(address)
    index = read_index(registry)
    record = _find(index, registry, name, address)
    remark, index_remark = check_trust(record, trusted), check_index(index, trusted)
    file = _default_file(name) if out is None else out
    existing = _hash_of(file)
    if existing not in (None, record.file_sha256) and not force:
        raise _occupied(file)
    data = fetch_table(registry, record)
    where = registry.name_of(table_path(record))
    table, stated = parse_table_file(data, where, REPORT_DAMAGE)
    if stated != record.table_sha256:
        raise HwnasError(f"{where} is not the table that its record names", REPORT_DAMAGE)
    if existing == record.file_sha256:
        return Pulled(file, record, table, "already there", remark, index_remark)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        written = transport.write_file(file, data, replace=force)
    except OSError as error:
        raise unwritable(file.parent, error) from error
    if not written:
        raise _occupied(file)
    return Pulled(file, record, table, "pulled", remark, index_remark)


def _find(index: Index, registry: TableRegistry, name: str, address: str) -> Record:
    published = {record.name: record for record in index.records}
    if name in published:
        return published[name]
    close = difflib.get_close_matches(name, published, n=5, cutoff=0.5)
    alike = f" (it has {', '.join(close)})" if close else ""
    command = f"`hwnas table list --shelf {quoted(printable(transport.without_password(address)))}`"
    raise HwnasError(f"shelf {registry.shown} has no table named {name}{alike}", f"see all of them with {command}")


def _default_file(name: str) -> Path:
    own = open_registry(user_registry())
    if own.folder is None:
        raise HwnasError(
            f"your own shelf {own.shown} ({USER_REGISTRY}) is not a folder", "say where to with --out FILE"
        )
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
