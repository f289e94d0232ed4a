"""The record of a session: one line of JSON a step, written at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hwnas.files import write_text

FILE = "results.jsonl"
LOG = "log.txt"  # the output of all steps
SET_UP = "set-up"  # the step of the record of a session that failed before its first one


def write(out: Path, record: Mapping[str, Any]) -> None:
    """Append a record, so that it is on the disk when the call returns."""
    with (out / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def rewrite(out: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace the records in a folder."""
    write_text(out / FILE, "".join(json.dumps(record) + "\n" for record in records))


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the records in a folder, none where it has no file of them; a torn last line is left out."""
    file = folder / FILE
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def finished(records: list[dict[str, Any]]) -> set[str]:
    """Return the steps that some session has finished and whose folders it has returned."""
    return {record["step"] for record in records if record.get("state") == "ok" and "not_returned" not in record}
