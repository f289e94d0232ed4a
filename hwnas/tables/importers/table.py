"""Build a table from an imported file and what the user states about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.tables.diff import latency_amount
from hwnas.tables.schema import NOT_KNOWN, Device, Entry, LatencyTable, Protocol, Quality, Runtime
from hwnas.validation import first_problem

IMPORTED = "imported from"
REMOVE_ONE = "remove the wrong one from the file"
REQUIRED_FACTS = ("device_name", "runtime", "threads", "batch", "unit")
KNOWN_LINES = "FORMAT.md, 'Tables of other projects', lists the lines of each format"
CHOOSE_FORMAT = "give its format: --format proxyless, ofa, hw-nas-bench, fbnet or csv"


@dataclass(frozen=True)
class Stated:
    """Facts about a file that the user gives; None where nothing is given. ``unit`` is that of the latencies."""

    device_name: str | None = None
    device_kind: str | None = None
    runtime: str | None = None
    runtime_version: str | None = None
    provider: str | None = None
    precision: str | None = None
    threads: int | None = None
    batch: int | None = None
    unit: str | None = None
    date: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class Imported:
    """An imported table. ``refused`` is {line: reason}.

    ``unused`` counts the lines with a known field that our tables do not have, ``unknown`` those with an unknown field.
    """

    table: LatencyTable
    format: str
    refused: dict[str, str]
    unused: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


@dataclass
class EntryLines:
    """The entries of a file, one for each workload, with the lines they come from. ``refused`` is {line: reason}."""

    path: Path
    refused: dict[str, str]
    first: dict[str, tuple[str, Entry]] = field(default_factory=dict)

    def add(self, line: str, entry: Entry) -> None:
        """Add an entry, or refuse the line when its workload is there already with about the same latency.

        Raises HwnasError when its latency is another: which of the two is right is not known.
        """
        key = entry.workload.key
        before, known = self.first.setdefault(key, (line, entry))
        if known is entry:
            return
        least, most = sorted((latency_amount(e.latency_ms, e.error_ms) for e in (known, entry)), key=lambda a: a.ms)
        if most.ms - least.ms > least.error_ms + most.error_ms:
            factor = f"{most.ms / least.ms:.3g} times apart" if least.ms else "apart"
            lines = f"{before[:100]} and {line[:100]}"
            raise HwnasError(f"{self.path} has two latencies of {key} that are {factor}, in {lines}", REMOVE_ONE)
        self.refused[line] = f"a second {key}: within the errors of {before[:100]}"

    @property
    def entries(self) -> list[Entry]:
        return [entry for _, entry in self.first.values()]


def is_imported(table: LatencyTable) -> bool:
    """Return true for an imported table, whose entries hwnas cannot time again."""
    return table.source.startswith(IMPORTED) or table.protocol.version == 0


def require_facts(stated: Stated, path: Path) -> None:
    """Raise HwnasError that names every missing option."""
    facts = asdict(stated)
    lacking = [f"--{name.replace('_', '-')}" for name in REQUIRED_FACTS if facts[name] is None]
    if lacking:
        raise HwnasError(f"{path} does not describe its device and runtime", f"give {', '.join(lacking)}")


def check_understood(path: Path, format_name: str, entries: Sequence[Entry], refused: Mapping[str, str]) -> None:
    """Raise HwnasError, with the reason for the first line, when there are no entries."""
    if not entries:
        line, why = next(iter(refused.items()), ("it", "it is empty"))
        raise HwnasError(f"nothing in {path} is understood as {format_name}: {line[:120]}: {why}", KNOWN_LINES)


def table_columns(stated: Stated, path: Path, format_name: str) -> dict[str, Any]:
    """Return the columns of export.TABLE_COLUMNS that ``stated`` gives."""
    kind = stated.device_kind or "unknown"
    return {
        "device_name": stated.device_name,
        "device_kind": kind,
        "device_model": NOT_KNOWN,
        "device_cores": 0,
        "device_memory_bytes": 0,
        "device_os": NOT_KNOWN,
        "device_fingerprint": sha256_of([IMPORTED, stated.device_name, kind])[:16],
        "runtime_name": stated.runtime,
        "runtime_version": stated.runtime_version or NOT_KNOWN,
        "runtime_provider": stated.provider or NOT_KNOWN,
        "runtime_precision": stated.precision or NOT_KNOWN,
        "runtime_threads": stated.threads,
        "runtime_batch": stated.batch,
        "runtime_options": {},
        "sentinel_ms": None,
        "provenance": "measured",
        "source": f"{IMPORTED} {path.name[:100]} ({format_name})",
        "licence": stated.licence or "",
    }


def make_table(columns: Mapping[str, Any], entries: list[Entry], protocol: Mapping[str, Any]) -> LatencyTable:
    """Return the table. Raises HwnasError when a value is invalid."""

    def part(prefix: str) -> dict[str, Any]:
        return {key.removeprefix(prefix): value for key, value in columns.items() if key.startswith(prefix)}

    try:
        return LatencyTable(
            device=Device(**part("device_")),
            runtime=Runtime(**part("runtime_")),
            protocol=Protocol(rounds=0, visit_ms=0, **protocol),
            quality=Quality(sentinel_ms=columns["sentinel_ms"]),
            provenance=columns["provenance"],
            source=columns["source"],
            licence=columns["licence"],
            entries=entries,
        )
    except ValidationError as error:
        problem = f"the imported table is not valid: {first_problem(error, 'entries')}"
        raise HwnasError(problem, "FORMAT.md lists the values of each field") from None
