"""Read the JSON files of a benchmark back from its folder. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hwnas.benchmark.schema import AnySummary, Searched, SearchManifest, Summary, TargetsSummary
from hwnas.files import read_json
from hwnas.validation import validate

MANIFEST, SEARCHED, RESULT, SUMMARY = "manifest.json", "searched.json", "result.json", "summary.json"


def read_manifest(search: Path, fix: str) -> SearchManifest:
    """Read ``manifest.json`` of a search. Raises HwnasError, which names ``fix``, when it is missing or incomplete."""
    file = search / MANIFEST
    return validate(SearchManifest, read_json(file, fix), file, fix)


def read_searched(folder: Path, fix: str) -> Searched:
    """Read ``searched.json`` of a target. Raises HwnasError, which names ``fix``, when it is missing or incomplete."""
    file = folder / SEARCHED
    return validate(Searched, read_json(file, fix), file, fix)


def read_summary(file: Path, fix: str) -> AnySummary:
    """Read a summary of either form. Raises HwnasError, which names ``fix``, when it is missing or incomplete."""
    content: Any = read_json(file, fix)
    several = isinstance(content, dict) and "targets" in content
    return validate(TargetsSummary, content, file, fix) if several else validate(Summary, content, file, fix)
