"""Reading and writing latency tables: checked on the way in, whole on the way out."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.files import canonical_json, read_json, sha256_of, write_text
from hwnas.tables.schema import FORMAT, VERSION, LatencyTable

REMEASURE = "measure one with 'hwnas profile --device cpu --space nasbench201 --out {}'"


def read_table(path: Path) -> LatencyTable:
    """Read and check a table.

    Raises HwnasError, naming the file and the field, when it is missing, not a table of a version that this hwnas
    reads, incomplete, holds NaN or negative latencies, or was changed after it was written.
    """
    mend = REMEASURE.format(path)
    content = read_json(path, mend)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise HwnasError(f"{path} is not a latency table", mend)
    if content.get("version") != VERSION:
        raise HwnasError(
            f"{path} has table format version {str(content.get('version'))[:20]}, this hwnas reads {VERSION}",
            "update hwnas",
        )
    stated = content.pop("sha256", None)
    try:
        table = LatencyTable.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "entries"
        raise HwnasError(f"{path} is not a valid latency table: {where}: {first['msg']}", mend) from None
    if stated != sha256_of(content):
        raise HwnasError(f"{path} was changed after it was written: its sha256 does not match", mend)
    return table


def write_table(path: Path, table: LatencyTable) -> None:
    """Write atomically, keys sorted and one entry a line, so that differences read well."""
    content = table.content()
    entries = content.pop("entries")
    lines = [f"{json.dumps(key)}: {canonical_json(value)}," for key, value in sorted(content.items())]
    rows = ",\n".join(f" {canonical_json(entry)}" for entry in sorted(entries, key=canonical_json))
    content["entries"] = sorted(entries, key=canonical_json)
    write_text(
        path, "{\n" + "\n".join(lines) + f'\n"entries": [\n{rows}\n],\n"sha256": "{sha256_of(content)}"\n' + "}\n"
    )
