"""Compare search methods: search on images, then look up the cells found in a table of published accuracies.

OUT/METHOD/seedN/manifest.json   settings of the search
OUT/METHOD/seedN/table.json      latency table, if there is a budget
OUT/METHOD/seedN/metrics.jsonl   one line an epoch; checkpoint.pt: state of the search; costs.jsonl: its cost a step
OUT/METHOD/seedN/searched.json   the cell found and the cost of the search
OUT/METHOD/seedN/result.json     the same with settings, and with accuracy and regret of the cell
OUT/summary.json                 one row a method, and references that need no search
OUT/benchmark.png, .svg          the same as a figure

The searches are separate processes (hwnas.benchmark.worker) that never see the accuracy table. Accuracies are looked up
once all searches have finished.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.plan import BenchmarkPlan, BenchmarkRun, PreparedBenchmark, prepare_runs
from hwnas.benchmark.plot import draw_benchmark
from hwnas.benchmark.processes import run_processes
from hwnas.benchmark.worker import WITHOUT_PARAMETERS
from hwnas.files import read_json, write_json
from hwnas.plotting import can_draw
from hwnas.progress import Progress
from hwnas.spaces.builtin_operations import SKIP
from hwnas.spaces.encoding import every_choice
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.schema import today


def search_all(plan: BenchmarkPlan, folder: Path, jobs: int, progress: Progress) -> PreparedBenchmark:
    """Run every search that has not finished yet, ``jobs`` at a time; a repeated call resumes an interrupted one.

    Raises HwnasError for any input that does not fit, and for a folder that holds another search, before any search
    starts.
    """
    prepared = prepare_runs(plan, folder, jobs, progress)
    unfinished = [run for run in prepared.runs if not run.finished]
    if done := len(prepared.runs) - len(unfinished):
        progress.log(f"{done} of {len(prepared.runs)} searches are already finished")
    run_processes(unfinished, jobs, progress)
    return prepared


def evaluate(
    prepared: PreparedBenchmark, accuracies: AccuracyTable, folder: Path, log: Callable[[str], None]
) -> dict[str, Any]:
    """Look up the cells found; write every ``result.json``, the figure and ``summary.json``, and return the latter.

    Without matplotlib, ``log`` gets a line instead of the figure.
    """
    results = [_result(run, prepared, accuracies) for run in prepared.runs]
    for run, result in zip(prepared.runs, results, strict=True):
        write_json(run.folder / "result.json", result)
    summary = summarise(results, accuracies, prepared.within)
    write_json(folder / "summary.json", summary)
    if can_draw(log):
        draw_benchmark(summary, results, [folder / "benchmark.png", folder / "benchmark.svg"])
    return summary


def summarise(
    results: Sequence[Mapping[str, Any]], accuracies: AccuracyTable, within: NDArray[np.bool_]
) -> dict[str, Any]:
    """Return the content of ``summary.json``; ``within`` [N] marks the cells that keep the budget."""
    first = accuracies.data_sets[0]
    methods = dict.fromkeys(result["method"] for result in results)
    rows = [_row(method, [r for r in results if r["method"] == method], accuracies.data_sets) for method in methods]
    settings = results[0]["settings"]
    return {
        "space": NASBENCH201.name,
        "data": settings["data"],
        "setting": settings["setting"],
        "budget": settings["budget"],
        "cells_within_budget": int(within.sum()),
        "data_sets": accuracies.data_sets,
        "methods": sorted(rows, key=lambda row: row["regret"][first]["mean"]),
        "references": references(accuracies, within),
        "accuracy_sha256": accuracies.sha256,
        "finished": today(),
    }


def _result(run: BenchmarkRun, prepared: PreparedBenchmark, accuracies: AccuracyTable) -> dict[str, Any]:
    again = f"remove folder {run.folder} and run again"
    found = read_json(run.folder / "searched.json", again)
    settings = read_json(run.folder / "manifest.json", again)["settings"]
    cell = NASBENCH201.parse(found["architecture"])
    return {
        "method": run.method,
        "seed": run.seed,
        "settings": settings,
        **found,
        "accuracy": {name: accuracies.accuracy(name, cell) for name in accuracies.data_sets},
        "regret": {name: accuracies.regret(name, cell, prepared.within) for name in accuracies.data_sets},
        "accuracy_sha256": accuracies.sha256,
    }


def _row(method: str, results: Sequence[Mapping[str, Any]], data_sets: Sequence[str]) -> dict[str, Any]:
    """Return a method's row of the summary: means and standard deviations over its seeds."""

    def over_seeds(outer: str, inner: str) -> dict[str, Any]:
        return _mean_and_std([result[outer][inner] for result in results])

    return {
        "method": method,
        "seeds": [result["seed"] for result in results],
        "epochs": results[0]["settings"]["recipe"]["epochs"],
        **{field: {name: over_seeds(field, name) for name in data_sets} for field in ("accuracy", "regret")},
        "search": {name: over_seeds("search", name) for name in results[0]["search"]},
        "collapse": {name: over_seeds("collapse", name) for name in results[0]["collapse"]},
        "threads": sorted({result["threads"] for result in results}),
    }


def references(accuracies: AccuracyTable, within: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return rows that need no search: a random cell within the budget, and the best cell for each data set."""
    choices = every_choice(NASBENCH201)[within]
    free = [NASBENCH201.operations.index(op) for op in WITHOUT_PARAMETERS]
    at_random: dict[str, Any] = {"name": "a random cell", "accuracy": {}, "regret": {}}
    best: dict[str, Any] = {"name": "the best cell", "accuracy": {}, "regret": {}}
    for name, values in accuracies.values.items():
        top = accuracies.best(name, within)
        at_random["accuracy"][name] = _mean_and_std(values[within].tolist())
        at_random["regret"][name] = _mean_and_std((top - values[within]).tolist())
        best["accuracy"][name], best["regret"][name] = _mean_and_std([top]), _mean_and_std([0.0])
    skips = choices == NASBENCH201.operations.index(SKIP)
    at_random["collapse"] = {
        "skip_connect": _mean_and_std(skips.mean(axis=1).tolist()),
        "without_parameters": _mean_and_std(np.isin(choices, free).mean(axis=1).tolist()),
    }
    return [at_random, best]


def _mean_and_std(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and sample standard deviation (n - 1; None for a single value)."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
