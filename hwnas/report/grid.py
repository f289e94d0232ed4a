"""A table of texts in a page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grid:
    """Columns and rows of texts, with a note. ``links`` are the ids of the sections that its rows are about."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    note: str
    links: list[str] | None = None
