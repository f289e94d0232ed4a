"""Format a benchmark's ``summary.json`` for the command line and the method pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FOOTNOTE = "mean ± standard deviation over a method's seeds; of the random cell, over all cells"


def summary_title(summary: Mapping[str, Any]) -> str:
    """Return one line that names space, budget, images and network sizes."""
    within = f"{summary['cells_within_budget']:,} cells"
    if summary["budget"]["limits"]:
        within += f" within {summary['budget']['text']}"
    setting = summary["setting"]
    sizes = f"{setting['channels']} channels, cells a stage: {setting['depth']}"
    return f"{summary['space']}, {within}; searched on {summary['data']} at {sizes}"


def summary_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: one row a method, sorted by regret on the first data set, then the references."""
    data_sets = summary["data_sets"]
    columns = ["method", "seeds", "epochs"]
    for name in data_sets:
        columns += [f"{name} %", "regret"]
    columns += ["wall s", "processor s", "MB", "skip share"]
    rows = []
    for row in [*summary["methods"], *summary["references"]]:
        searched = "method" in row
        shown = [row["method"], str(len(row["seeds"])), str(row["epochs"])] if searched else [row["name"], "-", "-"]
        shown += [_amount(row[what][name], 2) for name in data_sets for what in ("accuracy", "regret")]
        search, collapse = row.get("search", {}), row.get("collapse", {})
        shown += [_amount(search.get(name), 1) for name in ("wall_s", "processor_s")]
        shown.append(_amount(search.get("peak_memory_mb"), 0))
        rows.append([*shown, _amount(collapse.get("skip_connect"), 2)])
    return columns, rows


def _amount(spread: Mapping[str, Any] | None, digits: int) -> str:
    if spread is None:
        return "-"
    error = "" if spread["std"] is None else f" ± {spread['std']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{error}"
