"""Schema of a table registry: one record for each published name, and the index of all records.

Both are untrusted input: sizes and lengths are bounded, every field is checked, and a name becomes a path only after
``check_name``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)

from hwnas.errors import HwnasError
from hwnas.files import canonical_json, parse_json
from hwnas.tables.io import MAX_BYTES
from hwnas.tables.schema import LatencyTable, Name
from hwnas.text import printable
from hwnas.validation import first_problem

RECORD_FORMAT = "hwnas-shelf-record"
INDEX_FORMAT = "hwnas-shelf"
VERSION = 1
MAX_RECORD_BYTES = 64 << 10
MAX_INDEX_BYTES = 16 << 20
MAX_RECORDS = 10_000
MAX_INDEX_VALUES = 2_000_000
MAX_TABLE_VALUES = 4_000_000
MAX_NETWORKS = 50  # in a record; the table itself may hold more

NAME_RULE = "a name is 1 to 100 letters, digits, '.', '_' and '-', begins with a letter or digit and has no '..'"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def name_is_valid(name: str) -> bool:
    """Return true when ``name`` may name a table, and so a file; ``index`` is reserved for the registry's index."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and name.casefold() != "index"


def check_name(name: str, fix: str = "") -> str:
    """Return ``name`` when it is safe as a file name. Raises HwnasError otherwise."""
    if not name_is_valid(name):
        reason = "'index' is reserved" if name.casefold() == "index" else NAME_RULE
        raise HwnasError(f"{printable(name)[:120]!r} cannot name a table ({reason})", fix)
    return name


def _valid_name(name: str) -> str:
    if not name_is_valid(name):
        raise ValueError("not a name that a table may have")
    return name


TableName = Annotated[str, Field(max_length=100), AfterValidator(_valid_name)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Headline(Checked):
    """Accuracy of a table for one network: mean error in percent, Kendall's tau (None where undefined)."""

    mape: FiniteFloat
    kendall_tau: FiniteFloat | None


class Description(Checked):
    """Summary of one table for lists. ``noisy`` tables were made on a machine too noisy for reliable results."""

    device: Name
    runtime: Name
    runtime_version: Name
    provider: Name
    precision: Name
    threads: int = Field(ge=0)
    batch: int = Field(ge=0)
    networks: list[Name] = Field(max_length=MAX_NETWORKS)
    quality: dict[Name, Headline] = Field(max_length=MAX_NETWORKS)
    noisy: bool
    provenance: Literal["measured", "fitted", "transferred"]
    date: Name
    licence: Name


class Signature(Checked):
    """An Ed25519 signature of the canonical JSON of all other fields; ``key`` is the public key. Both in base64."""

    key: str = Field(max_length=64)
    value: str = Field(max_length=128)


class Record(Checked):
    """A published table. ``file_sha256`` and ``file_bytes`` describe its file, which states ``table_sha256``."""

    format: Literal["hwnas-shelf-record"] = "hwnas-shelf-record"
    version: Literal[1] = 1
    name: TableName
    table_sha256: Hash
    file_sha256: Hash
    file_bytes: int = Field(ge=1, le=MAX_BYTES)
    pushed: Annotated[str, Field(max_length=40)]
    description: Description
    signature: Signature | None = None


class Index(Checked):
    """All records of a registry, sorted by name; signed with the key of the last writer, if any."""

    format: Literal["hwnas-shelf"] = "hwnas-shelf"
    version: Literal[1] = 1
    signature: Signature | None = None
    records: Annotated[list[Record], FailFast()] = Field(max_length=MAX_RECORDS)

    @model_validator(mode="after")
    def _one_record_a_name(self) -> Index:
        if len({record.name for record in self.records}) != len(self.records):
            raise ValueError("a name occurs twice")
        return self


Model = TypeVar("Model", Record, Index)


def parse_record(data: bytes, where: str, fix: str = "") -> Record:
    """Parse a record; ``where`` names it in errors.

    Raises HwnasError when it is too large, invalid, or of a version that this hwnas does not read.
    """
    return _parse(Record, data, RECORD_FORMAT, MAX_RECORD_BYTES, where, fix)


def parse_index(data: bytes, where: str, fix: str = "") -> Index:
    """Parse an index, with the checks of ``parse_record``."""
    return _parse(Index, data, INDEX_FORMAT, MAX_INDEX_BYTES, where, fix)


def _parse(model: type[Model], data: bytes, form: str, limit: int, where: str, fix: str) -> Model:
    if len(data) > limit:
        raise HwnasError(f"{where} is larger than {limit >> 10} KiB", fix)
    check_values(data, MAX_INDEX_VALUES, where, fix)
    content: Any = parse_json(data, where, fix)
    if not isinstance(content, dict) or content.get("format") != form:
        raise HwnasError(f"{where} does not have the format {form}", fix)
    if content.get("version") != VERSION:
        version = printable(str(content.get("version"))[:20])
        raise HwnasError(f"{where} has version {version}, this hwnas reads {VERSION}", "update hwnas")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise HwnasError(f"{where} is not valid: {first_problem(error, 'records')}", fix) from None


def check_values(data: bytes, most: int, where: str, fix: str) -> None:
    """Raise HwnasError for JSON text with more than about ``most`` values: parsing "[],[]," takes 30 times its size."""
    if sum(map(data.count, (b",", b"[", b"{"))) > most:
        raise HwnasError(f"{where} holds more than {most:,} values", fix)


def record_text(record: Record) -> bytes:
    return f"{canonical_json(record.model_dump(mode='json'))}\n".encode()


def index_text(index: Index) -> bytes:
    """Return the index as JSON with one record on each line, for readable diffs."""
    rows = ",\n".join(canonical_json(record.model_dump(mode="json")) for record in index.records)
    head = f'"format":"{INDEX_FORMAT}","version":{VERSION}'
    if index.signature:
        head += f',"signature":{canonical_json(index.signature.model_dump(mode="json"))}'
    return f'{{{head},"records":[\n{rows}\n]}}\n'.encode()


def describe(table: LatencyTable) -> Description:
    """Return the description of ``table`` with its first ``MAX_NETWORKS`` networks by name."""
    additivity, runtime = table.quality.additivity, table.runtime
    networks = sorted({*table.correction, *table.edge_costs, *table.networks, *additivity})[:MAX_NETWORKS]
    return Description(
        device=table.device.name,
        runtime=runtime.name,
        runtime_version=runtime.version,
        provider=runtime.provider,
        precision=runtime.precision,
        threads=runtime.threads,
        batch=runtime.batch,
        networks=networks,
        quality={
            key: Headline(mape=additivity[key].mape, kendall_tau=additivity[key].kendall_tau)
            for key in networks
            if key in additivity
        },
        noisy=bool(table.quality.noise),
        provenance=table.provenance,
        date=table.protocol.date,
        licence=table.licence,
    )
