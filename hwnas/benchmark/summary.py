"""Format a benchmark's ``summary.json`` for the command line, reports and the method pages. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.budgets.budget import Budget, format_amount

FOOTNOTE = "mean ± standard deviation over a method's seeds; of the baselines, over the cells that each may choose"

# The names of the rows that need no search.
AT_RANDOM, BEST_OF_TEN = "a random cell", "the best of ten random cells"
MOST_MACS, MOST_PARAMS = "the cell of most MACs", "the cell of most parameters"
BEST = "the best cell"
BASELINES = (AT_RANDOM, BEST_OF_TEN, MOST_MACS, MOST_PARAMS)
SHORT = {AT_RANDOM: "random", BEST_OF_TEN: "best of 10", MOST_MACS: "most MACs", MOST_PARAMS: "most params"}


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
    used = any(row.get("share") for row in summary["methods"])
    columns += ["used"] * used + ["wall s", "processor s", "MB", "skip share"]
    rows = []
    for row in [*summary["methods"], *summary["references"]]:
        searched = "method" in row
        shown = [row["method"], str(len(row["seeds"])), str(row["epochs"])] if searched else [row["name"], "-", "-"]
        shown += [_amount(row[what][name], 2) for name in data_sets for what in ("accuracy", "regret")]
        if used:
            share = row.get("share")
            shown.append(_percent(share if searched else (share or {}).get(data_sets[0])))
        search, collapse = row.get("search", {}), row.get("collapse", {})
        shown += [_amount(search.get(name), 1) for name in ("wall_s", "processor_s")]
        shown.append(_amount(search.get("peak_memory_mb"), 0))
        rows.append([*shown, _amount(collapse.get("skip_connect"), 2)])
    return columns, rows


def target_title(summary: Mapping[str, Any], data_set: str) -> str:
    """Return one line that says what the table of targets shows."""
    title = f"{summary['space']}, regret on {data_set} in percentage points"
    if "setting" in summary:
        setting = summary["setting"]
        sizes = f"{setting['channels']} channels, cells a stage: {setting['depth']}"
        title += f"; searched on {summary['data']} at {sizes}"
    return title


def target_table(summary: Mapping[str, Any], data_set: str) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: one row a target, and their mean, where there are several.

    Each method has its regret, the share of the budget that its cells use, and how many keep it; each baseline its
    regret with the share.
    """
    targets = summary["targets"]
    methods = [row["name"] for row in summary["overall"] if row["name"] not in BASELINES]
    columns = ["device", "budget", "limit", "cells", "best %"]
    for method in methods:
        columns += [method, "used", "kept"]
    columns += [SHORT[name] for name in BASELINES]
    rows = [_target_row(target, methods, data_set) for target in targets]
    if len(targets) > 1:
        overall = {row["name"]: row for row in summary["overall"]}
        row = ["mean", "", "", "", ""]
        for method in methods:
            row += [f"{overall[method]['regret'][data_set]:.2f}", "", _kept(overall[method]["kept"])]
        rows.append(row + [f"{overall[name]['regret'][data_set]:.2f}" for name in BASELINES])
    return columns, rows


def target_footnote(summary: Mapping[str, Any]) -> str:
    """Return what decides whether a cell keeps a budget, and what the columns mean."""
    by = "measured latencies" if summary["latency"] else "the latency tables"
    return (
        f"cells: those that keep the limit, as {by} decide; best %: the best of them; regret: how far a cell is below "
        "that,\nnegative where a better cell breaks the limit; used, and in brackets: cost over limit; random to most "
        "params:\nexpected values of cells that keep the limit and need no search"
    )


def _target_row(target: Mapping[str, Any], methods: Sequence[str], data_set: str) -> list[str]:
    by_name = {row["name"]: row for row in target["references"]} | {row["method"]: row for row in target["methods"]}
    budget = Budget(target["budget"]["text"], target["budget"]["limits"])
    row = [target["device"], budget.text, _limits(budget), f"{target['cells_within_budget']:,}"]
    row.append(f"{by_name[BEST]['accuracy'][data_set]['mean']:.2f}")
    for method in methods:
        found = by_name[method]
        row += [_amount(found["regret"][data_set], 2), _percent(found.get("share")), _kept(found.get("kept", {}))]
    for name in BASELINES:
        share = by_name[name].get("share", {}).get(data_set)
        used = f" ({_percent(share)})" if share else ""
        row.append(f"{by_name[name]['regret'][data_set]['mean']:.2f}{used}")
    return row


def _limits(budget: Budget) -> str:
    return ", ".join(format_amount(metric, bound) for metric, bound in budget.limits.items()) or "none"


def _percent(spread: Mapping[str, Any] | None) -> str:
    return "-" if spread is None else f"{spread['mean']:.0%}"


def _kept(counted: Mapping[str, int]) -> str:
    if not counted:
        return "-"
    unknown = f", {counted['not_measured']} not measured" if counted["not_measured"] else ""
    return f"{counted['yes']} of {counted['yes'] + counted['no']}{unknown}"


def _amount(spread: Mapping[str, Any] | None, digits: int) -> str:
    if spread is None:
        return "-"
    error = "" if spread["std"] is None else f" ± {spread['std']:.{digits}f}"
    return f"{spread['mean']:.{digits}f}{error}"
