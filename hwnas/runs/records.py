"""Read the manifest, the summary and the epochs of a run back from its folder. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.finalists.record import FINALISTS_FILE, FinalistsFile
from hwnas.runs.folder import MANIFEST, SUMMARY
from hwnas.runs.manifest_schema import Manifest
from hwnas.runs.schema import Summary
from hwnas.search.epoch_row import METRICS, EpochRow
from hwnas.validation import validate


def read_manifest(run: Path, fix: str) -> Manifest:
    """Read ``manifest.json``. Raises HwnasError, which names ``fix``, when it is missing or incomplete."""
    file = run / MANIFEST
    return validate(Manifest, read_json(file, fix), file, fix)


def read_summary(run: Path, fix: str) -> Summary:
    """Read ``summary.json``. Raises HwnasError, which names ``fix``, when it is missing or incomplete."""
    file = run / SUMMARY
    return validate(Summary, read_json(file, fix), file, fix)


def read_finalists(run: Path, fix: str) -> FinalistsFile | None:
    """Read ``finalists.json``; None where the run has none.

    Raises HwnasError, which names ``fix``, when it is damaged.
    """
    file = run / FINALISTS_FILE
    return validate(FinalistsFile, read_json(file, fix), file, fix) if file.exists() else None


def read_epochs(run: Path, fix: str) -> list[EpochRow]:
    """Read ``metrics.jsonl``: one row for each epoch and target.

    NaN and infinities, which a diverged search writes, become None. Raises HwnasError, which names the line and
    ``fix``, when the file is missing or a line is incomplete.
    """
    path = run / METRICS
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        raise HwnasError(f"{path} does not exist", fix) from None
    return [_read_epoch(line, f"line {number} of {path}", fix) for number, line in enumerate(lines, start=1)]


def _read_epoch(line: bytes, source: str, fix: str) -> EpochRow:
    try:
        content: Any = json.loads(line, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as error:
        raise HwnasError(f"{source} is cut off or no JSON ({error})", fix) from None
    return validate(EpochRow, content, source, fix)
