"""Build the content of ``summary.json`` from the results of all searches."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.baselines import Counts, references
from hwnas.benchmark.judged_target import JudgedTarget
from hwnas.benchmark.objectives import describe_budget
from hwnas.benchmark.summary import BASELINES
from hwnas.benchmark.truth import Truth
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.schema import today

Results = Sequence[Mapping[str, Any]]


def summarise(
    results: Sequence[Results], truth: Truth, targets: Sequence[JudgedTarget], counts: Counts
) -> dict[str, Any]:
    """Return the content of ``summary.json``; ``results`` are those of every target.

    A benchmark of one target that no measured latencies judge is described by itself, any other by a row a target.
    """
    settings = results[0][0]["settings"]
    fields = ("data", "setting", "target_setting")
    searched = {name: settings[name] for name in fields if name in settings} | {"finished": today()}
    if len(targets) == 1 and truth.latencies is None:
        (row,) = _target_rows(results, truth, targets, counts)
        row = {name: value for name, value in row.items() if name not in ("target", "device", "cells_measured")}
        return _common(truth) | searched | row
    return _common(truth) | searched | _by_target(results, truth, targets, counts)


def summarise_baselines(truth: Truth, targets: Sequence[JudgedTarget], counts: Counts) -> dict[str, Any]:
    """Return the same content as of a benchmark of several targets, for no method."""
    return _common(truth) | _by_target([[] for _ in targets], truth, targets, counts)


def _common(truth: Truth) -> dict[str, Any]:
    accuracies = truth.accuracies
    return {"space": NASBENCH201.name, "data_sets": accuracies.data_sets, "accuracy_sha256": accuracies.sha256}


def _by_target(
    results: Sequence[Results], truth: Truth, targets: Sequence[JudgedTarget], counts: Counts
) -> dict[str, Any]:
    rows = _target_rows(results, truth, targets, counts)
    return {"latency": truth.latency_file, "targets": rows, "overall": _overall(rows, truth.accuracies.data_sets)}


def _target_rows(
    results: Sequence[Results], truth: Truth, targets: Sequence[JudgedTarget], counts: Counts
) -> list[dict[str, Any]]:
    return [_target_row(own, truth.accuracies, target, counts) for own, target in zip(results, targets, strict=True)]


def _target_row(results: Results, accuracies: AccuracyTable, target: JudgedTarget, counts: Counts) -> dict[str, Any]:
    """Return a target with a row a method, by regret on the first data set, and the rows that need no search."""
    first = accuracies.data_sets[0]
    methods = dict.fromkeys(result["method"] for result in results)
    rows = [_method_row([r for r in results if r["method"] == method], accuracies.data_sets) for method in methods]
    return {
        "target": target.objective.target,
        "device": target.objective.device,
        "budget": describe_budget(target.objective.budget),
        "cells_within_budget": int(target.within.sum()),
        "cells_measured": int(target.measured.sum()),
        "methods": sorted(rows, key=lambda row: row["regret"][first]["mean"]),
        "references": references(accuracies, target, counts),
    }


def _method_row(results: Results, data_sets: Sequence[str]) -> dict[str, Any]:
    """Return a method's row of a target: means and standard deviations over its seeds.

    Where there is a budget, ``share`` is the share of it that the cells use, None where none was measured, and ``kept``
    the numbers of cells that keep it and that do not, and of those that were not measured.
    """

    def over_seeds(outer: str, inner: str) -> dict[str, Any]:
        return mean_and_std([result[outer][inner] for result in results])

    row = {
        "method": results[0]["method"],
        "seeds": [result["seed"] for result in results],
        "epochs": results[0]["settings"]["recipe"]["epochs"],
        **{field: {name: over_seeds(field, name) for name in data_sets} for field in ("accuracy", "regret")},
        "search": {name: over_seeds("search", name) for name in results[0]["search"]},
        "collapse": {name: over_seeds("collapse", name) for name in results[0]["collapse"]},
        "threads": sorted({result["threads"] for result in results}),
    }
    if "kept" not in results[0]:
        return row
    shares = [result["share"] for result in results if result["share"] is not None]
    kept = [result["kept"] for result in results]
    counted = {"yes": kept.count(True), "no": kept.count(False), "not_measured": kept.count(None)}
    return row | {"share": mean_and_std(shares) if shares else None, "kept": counted}


def _overall(targets: Sequence[Mapping[str, Any]], data_sets: Sequence[str]) -> list[dict[str, Any]]:
    """Return the mean regret over all targets of every method and baseline, and how many cells kept their budgets."""
    rows: list[dict[str, Any]] = []
    for name in [row["method"] for row in targets[0]["methods"]]:
        own = [next(row for row in target["methods"] if row["method"] == name) for target in targets]
        rows.append({"name": name, "regret": _means(own, data_sets), "kept": _added([r.get("kept", {}) for r in own])})
    for name in BASELINES:
        own = [next(row for row in target["references"] if row["name"] == name) for target in targets]
        rows.append({"name": name, "regret": _means(own, data_sets)})
    return rows


def _means(rows: Results, data_sets: Sequence[str]) -> dict[str, float]:
    return {name: statistics.fmean(row["regret"][name]["mean"] for row in rows) for name in data_sets}


def _added(counted: Sequence[Mapping[str, int]]) -> dict[str, int]:
    return {name: sum(counts[name] for counts in counted) for name in counted[0]}


def mean_and_std(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and sample standard deviation (n - 1; None for a single value)."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
