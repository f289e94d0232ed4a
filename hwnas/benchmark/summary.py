"""Format a benchmark's ``summary.json`` for the command line, reports and the method pages. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.benchmark.schema import (
    AT_RANDOM,
    BASELINES,
    BEST,
    BEST_OF_TEN,
    MOST_MACS,
    MOST_PARAMS,
    Kept,
    MethodRow,
    ReferenceRow,
    Spread,
    Summary,
    SummaryHead,
    TargetRow,
    TargetsSummary,
)
from hwnas.budgets.budget import format_amount

FOOTNOTE = "mean ± standard deviation over a method's seeds; of the baselines, over the cells that each may choose"

SHORT = {AT_RANDOM: "random", BEST_OF_TEN: "best of 10", MOST_MACS: "most MACs", MOST_PARAMS: "most params"}


def summary_title(summary: Summary) -> str:
    """Return one line that names space, budget, images and network sizes."""
    within = f"{summary.cells_within_budget:,} cells"
    if summary.budget.limits:
        within += f" within {summary.budget.text}"
    return f"{summary.space}, {within}{_searched(summary)}"


def target_title(summary: SummaryHead, data_set: str) -> str:
    """Return one line that says what the table of targets shows."""
    return f"{summary.space}, regret on {data_set} in percentage points{_searched(summary)}"


def _searched(summary: SummaryHead) -> str:
    if summary.setting is None:
        return ""
    sizes = f"{summary.setting['channels']} channels, cells a stage: {summary.setting['depth']}"
    return f"; searched on {summary.data} at {sizes}"


def method_table(target: TargetRow, data_sets: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: one row a method, sorted by regret on the first data set, then the references."""
    columns = ["method", "seeds", "epochs"]
    for name in data_sets:
        columns += [f"{name} %", "regret"]
    used = any(row.share for row in target.methods)
    columns += ["used"] * used + ["wall s", "processor s", "MB", "skip share"]
    rows = []
    for method in target.methods:
        search = method.search
        row = [method.method, str(len(method.seeds)), str(method.epochs), *_accuracies(method, data_sets)]
        row += [_percent(method.share)] * used
        row += [_amount(search.wall_s, 1), _amount(search.processor_s, 1), _amount(search.peak_memory_mb, 0)]
        rows.append([*row, _amount(method.collapse.skip_connect, 2)])
    for reference in target.references:
        row = [reference.name, "-", "-", *_accuracies(reference, data_sets)]
        row += [_percent(reference.share[data_sets[0]] if reference.share else None)] * used
        skips = reference.collapse.skip_connect if reference.collapse else None
        rows.append([*row, "-", "-", "-", _amount(skips, 2)])
    return columns, rows


def _accuracies(row: MethodRow | ReferenceRow, data_sets: Sequence[str]) -> list[str]:
    return [_amount(values[name], 2) for name in data_sets for values in (row.accuracy, row.regret)]


def target_table(summary: TargetsSummary, data_set: str) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: one row a target, and their mean, where there are several.

    Each method has its regret, the share of the budget that its cells use, and how many keep it; each baseline its
    regret with the share.
    """
    overall = {row.name: row for row in summary.overall}
    methods = [name for name in overall if name not in BASELINES]
    columns = ["device", "budget", "limit", "cells", "best %"]
    for method in methods:
        columns += [method, "used", "kept"]
    columns += [SHORT[name] for name in BASELINES]
    rows = [_target_row(target, methods, data_set) for target in summary.targets]
    if len(rows) > 1:
        row = ["mean", "", "", "", ""]
        for method in methods:
            row += [f"{overall[method].regret[data_set]:.2f}", "", _kept(overall[method].kept)]
        rows.append(row + [f"{overall[name].regret[data_set]:.2f}" for name in BASELINES])
    return columns, rows


def target_footnote(summary: TargetsSummary) -> str:
    """Return what decides whether a cell keeps a budget, and what the columns mean."""
    by = "measured latencies" if summary.latency else "the latency tables"
    return (
        f"cells: those that keep the limit, as {by} decide; best %: the best of them; regret: how far a cell is below "
        "that,\nnegative where a better cell breaks the limit; used, and in brackets: cost over limit; random to most "
        "params:\nexpected values of cells that keep the limit and need no search"
    )


def _target_row(target: TargetRow, methods: Sequence[str], data_set: str) -> list[str]:
    found = {row.method: row for row in target.methods}
    row = [target.device, target.budget.text, _limits(target), f"{target.cells_within_budget:,}"]
    row.append(f"{target.reference(BEST).accuracy[data_set].mean:.2f}")
    for method in methods:
        own = found[method]
        row += [_amount(own.regret[data_set], 2), _percent(own.share), _kept(own.kept)]
    for name in BASELINES:
        reference = target.reference(name)
        used = f" ({_percent(reference.share[data_set])})" if reference.share else ""
        row.append(f"{reference.regret[data_set].mean:.2f}{used}")
    return row


def _limits(target: TargetRow) -> str:
    return ", ".join(format_amount(metric, bound) for metric, bound in target.budget.limits.items()) or "none"


def _percent(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.mean:.0%}"


def _kept(counted: Kept | None) -> str:
    if counted is None:
        return "-"
    unknown = f", {counted.not_measured} not measured" if counted.not_measured else ""
    return f"{counted.yes} of {counted.yes + counted.no}{unknown}"


def _amount(spread: Spread | None, digits: int) -> str:
    if spread is None:
        return "-"
    error = "" if spread.std is None else f" ± {spread.std:.{digits}f}"
    return f"{spread.mean:.{digits}f}{error}"
