"""List and read all tables of a registry, or of a plain folder of table files."""

from __future__ import annotations

from dataclasses import dataclass

from hwnas.errors import HwnasError
from hwnas.sharing import records, transport
from hwnas.sharing.index import INDEX, read_index, table_path
from hwnas.sharing.records import Description, Record
from hwnas.sharing.signing import TrustedKey, check_trust
from hwnas.sharing.table_files import REPORT_DAMAGE, fetch_table, parse_table_file
from hwnas.sharing.transport import TableRegistry, open_registry
from hwnas.tables.io import MAX_BYTES
from hwnas.tables.schema import LatencyTable
from hwnas.text import printable

REMOVE_OR_FIX = "remove it from the shelf, or fix it"


@dataclass(frozen=True)
class Listed:
    """One table of a registry. ``record`` is None for a file in a plain folder, ``description`` for an invalid file."""

    name: str
    description: Description | None
    record: Record | None = None
    error: str = ""


def list_tables(address: str) -> list[Listed]:
    """Return the tables in a registry's index.

    The table files of a plain folder, and those next to the index of a local registry, are read one by one; an invalid
    file is listed with its error. Raises HwnasError when the registry cannot be read.
    """
    registry, files = _open_and_list(address)
    listed: list[Listed] = []
    if INDEX in files:
        listed = [Listed(record.name, record.description, record) for record in read_index(registry).records]
        files = {file: size for file, size in files.items() if file != INDEX} if registry.folder else {}
    return listed + [_listed_file(registry, file) for file in files]


def read_tables(address: str, trusted: list[TrustedKey]) -> dict[str, LatencyTable]:
    """Return every table of a registry, or of a plain folder, by name, with the checks of ``pull``.

    Raises HwnasError when the registry or any of its tables cannot be read.
    """
    registry, files = _open_and_list(address)
    found: dict[str, LatencyTable] = {}
    if INDEX in files:
        for record in read_index(registry).records:
            check_trust(record, trusted)
            found[record.name] = parse_table_file(
                fetch_table(registry, record), registry.name_of(table_path(record)), REPORT_DAMAGE
            )[0]
    if INDEX not in files or registry.folder:
        for file in files.keys() - {INDEX}:
            data = transport.read(registry, file, MAX_BYTES)
            if data is not None:
                found.setdefault(
                    file.removesuffix(".json"), parse_table_file(data, registry.name_of(file), REMOVE_OR_FIX)[0]
                )
    return dict(sorted(found.items()))


def _open_and_list(address: str) -> tuple[TableRegistry, dict[str, int]]:
    """Open a registry and list its files with their sizes; only the index where the backend cannot list.

    Raises HwnasError when it does not exist or cannot be reached.
    """
    registry = open_registry(address)
    files = transport.list_files(registry, "") if registry.can_list else {INDEX: 0}
    if files is None:
        raise HwnasError(f"shelf {registry.shown} does not exist", "check its address")
    return registry, files


def _listed_file(registry: TableRegistry, file: str) -> Listed:
    name = file.removesuffix(".json")
    try:
        data = transport.read(registry, file, MAX_BYTES)
        if data is None:
            raise HwnasError("removed since it was listed")
        return Listed(name, records.describe(parse_table_file(data, file, "")[0]))
    except HwnasError as error:
        return Listed(name, None, error=printable(error.problem))
