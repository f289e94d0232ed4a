"""Searches on images, one a method and seed, judged by an accuracy table that no search has seen.

OUT/METHOD/seedN/manifest.json   what is searched, and with what
OUT/METHOD/seedN/table.json      the latency table, under a budget
OUT/METHOD/seedN/metrics.jsonl   a line an epoch; checkpoint.pt the search's state; costs.jsonl its cost, a line a step
OUT/METHOD/seedN/searched.json   what the search has found, and its cost
OUT/METHOD/seedN/result.json     the same with settings, and with accuracy and regret of the cell
OUT/summary.json                 a row a method, and what a table of accuracies tells without a search
OUT/benchmark.png, .svg          the picture of it

Every search is a process of its own (hwnas.benchmark.worker). Accuracies are looked up when all of them have ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.plot import draw_benchmark
from hwnas.benchmark.worker import WITHOUT_PARAMETERS
from hwnas.budgets.budget import Budget, parse_budget, preview
from hwnas.cost.metrics import build_metrics
from hwnas.cost.model import every_choice
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.files import read_json, sha256_of, unwritable, write_json
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.recipe import Recipe, read_recipe
from hwnas.runs.finished import fit_setting
from hwnas.runs.search import epoch_line
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import Setting
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable, today

PLACEHOLDER = "{method}"


@dataclass(frozen=True)
class BenchmarkPlan:
    """What is asked: methods and seeds, on which images, at which sizes, and within which budget on a device, if any.

    ``recipe`` is a recipe's name or file, in which ``{method}`` stands for the method; ``changes`` are those of
    ``read_recipe``.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    data_spec: str
    setting: Setting
    recipe: str
    changes: Mapping[str, Any]
    table: LatencyTable | None = None
    budget: str = ""


@dataclass(frozen=True)
class Run:
    """One search: its folder, and how many processor threads it takes."""

    method: str
    seed: int
    place: Path
    threads: int

    @property
    def name(self) -> str:
        return f"{self.method}, seed {self.seed}"


@dataclass(frozen=True)
class Searched:
    """All searches, ended, and which cells [N], in the order of ``every_choice``, keep the budget."""

    runs: list[Run]
    budget: Budget
    within: NDArray[np.bool_]


def search_all(contest: BenchmarkPlan, folder: Path, jobs: int, progress: Progress) -> Searched:
    """Run every search that has not ended yet, ``jobs`` at a time; an interrupted call goes on when it is made again.

    Raises HwnasError for any input that does not fit, and for a folder that holds another search, before any search
    begins.
    """
    recipes = read_recipes(contest)
    data = load_data(contest.data_spec, progress)
    setting = fit_setting(contest.setting, data)
    budget, within = Budget("none", {}), np.ones(NASBENCH201.num_architectures, dtype=bool)
    if contest.table:
        previews = preview(build_metrics(contest.table, NASBENCH201, setting))
        budget = parse_budget(contest.budget, previews)
        within = np.logical_and.reduce([previews[metric].costs <= bound for metric, bound in budget.limits.items()])
    machine = ask(parse_device("cpu")).device.model_dump(mode="json")
    runs = []
    for (method, seed), recipe in recipes.items():
        asked = {
            "space": NASBENCH201.name,
            "setting": asdict(setting),
            "data": contest.data_spec,
            "data_fingerprint": data.fingerprint,
            "table": contest.table.sha256 if contest.table else None,
            "budget": {"text": budget.text, "limits": dict(budget.limits)},
            "recipe": recipe.model_dump(mode="json"),
        }
        place = folder / method / f"seed{seed}"
        threads = _prepare(place, asked, contest.table, max(1, cores() // jobs), machine)
        runs.append(Run(method, seed, place, threads))
    left = [run for run in runs if not (run.place / "searched.json").exists()]
    if kept := len(runs) - len(left):
        progress.log(f"{kept} of {len(runs)} searches have ended before")
    run_processes(left, jobs, progress)
    return Searched(runs, budget, within)


def read_recipes(contest: BenchmarkPlan) -> dict[tuple[str, int], Recipe]:
    """The recipe of every method and seed. Raises HwnasError where methods, seeds and recipes do not fit."""
    methods, seeds = contest.methods, contest.seeds
    if strange := next((m for m in methods if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", m)), None):
        raise HwnasError(f"{strange!r} is no method's name", "give names such as snas with --method")
    if len(set(methods)) < len(methods) or len(set(seeds)) < len(seeds):
        raise HwnasError("a method or a seed is given twice", "give each once")
    if len(methods) > 1 and PLACEHOLDER not in contest.recipe:
        raise HwnasError(
            f"one recipe, {contest.recipe}, for {len(methods)} methods", f"let --recipe hold {PLACEHOLDER}"
        )
    recipes = {}
    for method in methods:
        for seed in seeds:
            recipe = read_recipe(contest.recipe.replace(PLACEHOLDER, method), {**contest.changes, "seed": seed})
            if PLACEHOLDER not in contest.recipe and recipe.method != method:
                raise HwnasError(f"recipe {contest.recipe} is of method {recipe.method}, not {method}")
            recipes[method, seed] = recipe
    return recipes


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare(
    place: Path, asked: dict[str, Any], table: LatencyTable | None, threads: int, machine: dict[str, Any]
) -> int:
    """Write a search's manifest and table, or check that its folder holds this very search; returns its threads,
    which stay as they were when it began.
    """
    digest, manifest = sha256_of(asked), place / "manifest.json"
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(place, error) from error
    if manifest.exists():
        begun = read_json(manifest, f"remove folder {place}")
        if begun.get("digest") != digest:
            raise HwnasError(
                f"{place} holds a search with other settings, data, table or budget", "give another folder with --out"
            )
        return int(begun["threads"])
    if table:
        write_table(place / "table.json", table)
    content = {"settings": asked, "digest": digest, "threads": threads, "machine": machine}
    write_json(manifest, {**content, "hwnas": __version__, "started": today()})
    return threads


def run_processes(runs: Sequence[Run], jobs: int, progress: Progress) -> None:
    """Run the searches, ``jobs`` at a time; when one fails, all end. Raises its HwnasError."""
    try:
        asyncio.run(_run_all(runs, jobs, progress))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _run_all(runs: Sequence[Run], jobs: int, progress: Progress) -> None:
    slots = asyncio.Semaphore(jobs)
    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(_run(run, slots, progress))


async def _run(run: Run, slots: asyncio.Semaphore, progress: Progress) -> None:
    async with slots:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hwnas.benchmark.worker", str(run.place)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(run.threads)},
            limit=1 << 24,
        )
        try:
            assert process.stdout
            async for line in process.stdout:
                _hear(run, json.loads(line), progress)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if code:
        raise HwnasError(
            f"the process of {run.name} ended with exit code {code}",
            "the same command goes on from its checkpoint; where memory is short, give fewer --jobs",
        )


def _hear(run: Run, message: dict[str, Any], progress: Progress) -> None:
    """Show what a search says."""
    if "problem" in message:
        raise HwnasError(f"{run.name}: {message['problem']}", message["fix"])
    if "epoch" in message:
        progress.log(f"{run.name}: {epoch_line(message['epoch'])}")
    else:
        progress(run.name, message["done"], message["total"])


def judge(searched: Searched, accuracies: AccuracyTable, folder: Path) -> dict[str, Any]:
    """Look up what the searches have found, write every ``result.json``, ``summary.json`` (which is
    returned) and the picture."""
    results = [_result(run, searched, accuracies) for run in searched.runs]
    for run, result in zip(searched.runs, results, strict=True):
        write_json(run.place / "result.json", result)
    summary = summarise(results, accuracies, searched.within)
    write_json(folder / "summary.json", summary)
    draw_benchmark(summary, results, [folder / "benchmark.png", folder / "benchmark.svg"])
    return summary


def summarise(
    results: Sequence[Mapping[str, Any]], accuracies: AccuracyTable, within: NDArray[np.bool_]
) -> dict[str, Any]:
    """What ``summary.json`` holds, of every ``result.json``; ``within`` [N] are the cells that keep the budget."""
    first = accuracies.data_sets[0]
    methods = dict.fromkeys(result["method"] for result in results)
    rows = [_row(method, [r for r in results if r["method"] == method], accuracies.data_sets) for method in methods]
    asked = results[0]["settings"]
    return {
        "space": NASBENCH201.name,
        "data": asked["data"],
        "setting": asked["setting"],
        "budget": asked["budget"],
        "cells_within_budget": int(within.sum()),
        "data_sets": accuracies.data_sets,
        "methods": sorted(rows, key=lambda row: row["regret"][first]["mean"]),
        "references": references(accuracies, within),
        "accuracy_sha256": accuracies.sha256,
        "finished": today(),
    }


def _result(run: Run, searched: Searched, accuracies: AccuracyTable) -> dict[str, Any]:
    again = f"remove folder {run.place} and run again"
    found = read_json(run.place / "searched.json", again)
    settings = read_json(run.place / "manifest.json", again)["settings"]
    cell = NASBENCH201.parse(found["architecture"])
    return {
        "method": run.method,
        "seed": run.seed,
        "settings": settings,
        **found,
        "accuracy": {name: accuracies.accuracy(name, cell) for name in accuracies.data_sets},
        "regret": {name: accuracies.regret(name, cell, searched.within) for name in accuracies.data_sets},
        "accuracy_sha256": accuracies.sha256,
    }


def _row(method: str, results: Sequence[Mapping[str, Any]], data_sets: Sequence[str]) -> dict[str, Any]:
    """A method's row of the summary: means and standard deviations over its seeds."""

    def over_seeds(outer: str, inner: str) -> dict[str, Any]:
        return _spread([result[outer][inner] for result in results])

    return {
        "method": method,
        "seeds": [result["seed"] for result in results],
        "epochs": results[0]["settings"]["recipe"]["epochs"],
        **{what: {name: over_seeds(what, name) for name in data_sets} for what in ("accuracy", "regret")},
        "search": {name: over_seeds("search", name) for name in results[0]["search"]},
        "collapse": {name: over_seeds("collapse", name) for name in results[0]["collapse"]},
        "threads": sorted({result["threads"] for result in results}),
    }


def references(accuracies: AccuracyTable, within: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """What the table tells of the cells within the budget without a search: one at random, and each data set's best."""
    used = every_choice(NASBENCH201)[within]
    free = [NASBENCH201.operations.index(op) for op in WITHOUT_PARAMETERS]
    at_random: dict[str, Any] = {"name": "a random cell", "accuracy": {}, "regret": {}}
    best: dict[str, Any] = {"name": "the best cell", "accuracy": {}, "regret": {}}
    for name, values in accuracies.values.items():
        top = accuracies.best(name, within)
        at_random["accuracy"][name] = _spread(values[within].tolist())
        at_random["regret"][name] = _spread((top - values[within]).tolist())
        best["accuracy"][name], best["regret"][name] = _spread([top]), _spread([0.0])
    skips = used == NASBENCH201.operations.index("skip_connect")
    at_random["collapse"] = {
        "skip_connect": _spread(skips.mean(axis=1).tolist()),
        "without_parameters": _spread(np.isin(used, free).mean(axis=1).tolist()),
    }
    return [at_random, best]


def _spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample: n - 1; none of a single value)."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else None}
