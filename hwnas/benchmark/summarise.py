"""Build the content of ``summary.json`` from the results of all searches."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.baselines import Counts, references
from hwnas.benchmark.judged_target import JudgedTarget
from hwnas.benchmark.objectives import describe_budget
from hwnas.benchmark.schema import (
    BASELINES,
    AnySummary,
    CollapseSpread,
    CostSpread,
    Kept,
    MethodRow,
    Overall,
    ReferenceRow,
    Result,
    Spread,
    Summary,
    TargetRow,
    TargetsSummary,
)
from hwnas.benchmark.truth import Truth
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.schema import today

Results = Sequence[Result]


def summarise(results: Sequence[Results], truth: Truth, targets: Sequence[JudgedTarget], counts: Counts) -> AnySummary:
    """Return the summary of the ``results`` of every target.

    A benchmark of one target that no measured latencies judge is described by itself, any other by a row a target.
    """
    settings = results[0][0].settings.to_json()
    fields = ("data", "setting", "target_setting")
    head = _head(truth) | {name: settings[name] for name in fields if name in settings} | {"finished": today()}
    rows = _target_rows(results, truth, targets, counts)
    if len(rows) > 1 or truth.latencies is not None:
        return _of_targets(head, rows, truth)
    (row,) = rows
    own = ("budget", "cells_within_budget", "methods", "references")
    return Summary(**head, **{name: getattr(row, name) for name in own})


def summarise_baselines(truth: Truth, targets: Sequence[JudgedTarget], counts: Counts) -> TargetsSummary:
    """Return the same as of a benchmark of several targets, for no method."""
    return _of_targets(_head(truth), _target_rows([[] for _ in targets], truth, targets, counts), truth)


def _head(truth: Truth) -> dict[str, Any]:
    accuracies = truth.accuracies
    return {"space": NASBENCH201.name, "data_sets": accuracies.data_sets, "accuracy_sha256": accuracies.sha256}


def _of_targets(head: dict[str, Any], rows: list[TargetRow], truth: Truth) -> TargetsSummary:
    overall = _overall(rows, truth.accuracies.data_sets)
    return TargetsSummary(**head, latency=truth.latency_file, targets=rows, overall=overall)


def _target_rows(
    results: Sequence[Results], truth: Truth, targets: Sequence[JudgedTarget], counts: Counts
) -> list[TargetRow]:
    return [_target_row(own, truth.accuracies, target, counts) for own, target in zip(results, targets, strict=True)]


def _target_row(results: Results, accuracies: AccuracyTable, target: JudgedTarget, counts: Counts) -> TargetRow:
    """Return a target with a row a method, by regret on the first data set, and the rows that need no search."""
    first = accuracies.data_sets[0]
    methods = dict.fromkeys(result.method for result in results)
    rows = [_method_row([r for r in results if r.method == method], accuracies.data_sets) for method in methods]
    return TargetRow(
        target=target.objective.target,
        device=target.objective.device,
        budget=describe_budget(target.objective.budget),
        cells_within_budget=int(target.within.sum()),
        cells_measured=int(target.measured.sum()),
        methods=sorted(rows, key=lambda row: row.regret[first].mean),
        references=references(accuracies, target, counts),
    )


def _method_row(results: Results, data_sets: Sequence[str]) -> MethodRow:
    """Return a method's row of a target: means and standard deviations over its seeds."""
    first = results[0]
    searches, cells = [result.search for result in results], [result.collapse for result in results]
    costs, shares = CostSpread.model_fields, CollapseSpread.model_fields
    judged: dict[str, Any] = {}
    if first.bounds:
        known = [result.share for result in results if result.share is not None]
        judged["share"] = Spread.of(known) if known else None
        judged["kept"] = Kept.of([result.kept for result in results])
    return MethodRow(
        method=first.method,
        seeds=[result.seed for result in results],
        epochs=first.settings.recipe["epochs"],
        accuracy={name: Spread.of([result.accuracy[name] for result in results]) for name in data_sets},
        regret={name: Spread.of([result.regret[name] for result in results]) for name in data_sets},
        search=CostSpread(**{name: Spread.of([getattr(one, name) for one in searches]) for name in costs}),
        collapse=CollapseSpread(**{name: Spread.of([getattr(one, name) for one in cells]) for name in shares}),
        threads=sorted({result.threads for result in results}),
        **judged,
    )


def _overall(targets: Sequence[TargetRow], data_sets: Sequence[str]) -> list[Overall]:
    """Return the mean regret over all targets of every method and baseline, and how many cells kept their budgets."""
    rows = []
    for name in [row.method for row in targets[0].methods]:
        own = [next(row for row in target.methods if row.method == name) for target in targets]
        rows.append(Overall(name=name, regret=_means(own, data_sets), kept=_added([row.kept for row in own])))
    for name in BASELINES:
        references = [target.reference(name) for target in targets]
        rows.append(Overall(name=name, regret=_means(references, data_sets)))
    return rows


def _means(rows: Sequence[MethodRow | ReferenceRow], data_sets: Sequence[str]) -> dict[str, float]:
    return {name: statistics.fmean(row.regret[name].mean for row in rows) for name in data_sets}


def _added(counted: Sequence[Kept | None]) -> Kept:
    return Kept(**{name: sum(getattr(one, name) for one in counted if one) for name in Kept.model_fields})
