"""Read a benchmark for the report, and check that its files belong together. Imports no torch.

There are two forms: the folder that ``hwnas benchmark`` writes, with a ``result.json`` for every search and target; and
a recorded one, in which ``results.json`` holds all of these.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hwnas.benchmark.records import MANIFEST, RESULT, SUMMARY, read_manifest, read_summary
from hwnas.benchmark.schema import (
    AT_RANDOM,
    BASELINES,
    BEST,
    AnySummary,
    MethodRow,
    ReferenceRow,
    Result,
    SearchManifest,
    TargetRow,
    TargetsSummary,
)
from hwnas.cost.build import build_metrics
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import Array, CostModel
from hwnas.errors import HwnasError
from hwnas.files import read_json, sha256_of
from hwnas.runs.folder import table_file
from hwnas.runs.sizes import read_sizes
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from hwnas.text import quoted
from hwnas.validation import validate

ALL = "results.json"
ONLY_TABLE = "table"  # the name of a table that the benchmark does not name


@dataclass(frozen=True)
class Asked:
    """A result that the summary names."""

    method: str
    seed: int
    target: TargetRow

    @property
    def key(self) -> tuple[str, int, str]:
        return self.method, self.seed, self.target.target

    def search(self, folder: Path) -> Path:
        """Return the folder of its search in that of the benchmark."""
        return folder / self.method / f"seed{self.seed}"


@dataclass(frozen=True)
class FoundCell:
    """The cell that a search found for a target; ``manifest`` is what is recorded about how the search ran."""

    result: Result
    target: TargetRow
    cell: Architecture
    manifest: Mapping[str, Any]

    @property
    def search(self) -> str:
        return f"{self.result.method}, seed {self.result.seed}"


@dataclass(frozen=True)
class BenchmarkContent:
    """``cells`` are in the order of the summary. ``target`` is the network of the budgets, ``searched`` the supernet's.

    ``table_hashes`` are those of the latency tables by name, ``tables`` the tables, empty where the folder has none.
    """

    name: str
    summary: AnySummary
    target: SizedSpace
    searched: SizedSpace
    cells: tuple[FoundCell, ...]
    table_hashes: Mapping[str, str]
    tables: Mapping[str, LatencyTable]

    @property
    def targets(self) -> list[TargetRow]:
        return self.summary.rows

    @property
    def one(self) -> TargetRow | None:
        """The only target, None where there are several."""
        return self.targets[0] if len(self.targets) == 1 else None

    @property
    def methods(self) -> list[MethodRow]:
        """The methods' rows of the first target; those of the others have the same methods and seeds."""
        return self.targets[0].methods

    @property
    def limited(self) -> bool:
        """True where there is a budget."""
        return any(target.budget.limits for target in self.targets)

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """The recipe of every method, that of its first seed."""
        return {row.method: self.of(row.method)[0].result.settings.recipe for row in self.methods}

    def of(self, method: str) -> list[FoundCell]:
        return [found for found in self.cells if found.result.method == method]

    @cached_property
    def edge_costs(self) -> dict[str, Array]:
        """The cost [E, K] in ms of each operation on each edge in the loss, by table."""
        costs = {}
        for name, table in self.tables.items():
            model = build_metrics(table, self.target)[LATENCY.name]
            assert isinstance(model, CostModel)
            costs[name] = model.linear()[1]["cell"]
        return costs


def is_benchmark(folder: Path) -> bool:
    """Return whether the folder is that of ``hwnas benchmark``. Raises HwnasError when it also holds a run."""
    found = (folder / ALL).is_file() or any(folder.glob(f"*/seed*/{MANIFEST}"))
    if found and (folder / MANIFEST).is_file():
        raise HwnasError(f"{folder} holds both a run and a benchmark", "move one of them into a folder of its own")
    return found


def read_benchmark(folder: Path) -> BenchmarkContent:
    """Read a benchmark. Raises HwnasError when it is not finished, or a file is damaged or of another benchmark."""
    fix = f"make it with `hwnas benchmark nasbench201 --out {quoted(folder)}`"
    summary = _read_summary(folder, fix)
    asked = [Asked(row.method, seed, target) for target in summary.rows for row in target.methods for seed in row.seeds]
    recorded = (folder / ALL).is_file()
    manifests = {} if recorded else {one.key: read_manifest(one.search(folder), fix) for one in asked}
    results = _read_recorded(folder / ALL, fix) if recorded else _read_results(folder, asked, manifests, fix)
    known = {(result.method, result.seed, result.target): result for result in results}
    if len(asked) != len(results) or {one.key for one in asked} != set(known):
        raise HwnasError(f"{folder}: {SUMMARY} and the results are not of the same methods, seeds and targets", fix)
    if what := _differ(summary, results):
        raise HwnasError(f"{folder}: its results are not of one benchmark, they differ in {what}", fix)
    cells = tuple(_found(known[one.key], one.target, manifests.get(one.key), folder, fix) for one in asked)
    settings = cells[0].result.settings
    target, searched = (
        read_sizes(NASBENCH201, sizes, folder, fix)
        for sizes in (settings.target_setting or settings.setting, settings.setting)
    )
    only = {summary.rows[0].device or ONLY_TABLE: settings.table} if settings.table else {}
    hashes = settings.tables or only
    tables = _read_tables(asked[0].search(folder), hashes, fix)
    return BenchmarkContent(folder.resolve().name, summary, target, searched, cells, hashes, tables)


def _read_summary(folder: Path, fix: str) -> AnySummary:
    file = folder / SUMMARY
    if not file.is_file():
        raise HwnasError(f"{folder} holds a benchmark that has not ended: it has no {SUMMARY}", fix)
    summary = read_summary(file, fix)
    if lack := _lack(summary):
        raise HwnasError(f"{file} is incomplete ({lack})", fix)
    return summary


def _lack(summary: AnySummary) -> str:
    """Return what a summary of searches lacks; empty where it is whole."""
    needed = {*BASELINES, BEST} if isinstance(summary, TargetsSummary) else {AT_RANDOM}
    methods = {row.method for row in summary.rows[0].methods}
    if not methods:
        return "methods: there are none"
    for target in summary.rows:
        if {row.method for row in target.methods} != methods:
            return "its targets are not of the same methods"
        if missing := needed - {row.name for row in target.references}:
            return f"{min(missing)} is missing"
        if not target.reference(AT_RANDOM).collapse:
            return f"{AT_RANDOM} has no collapse"
        rows: list[MethodRow | ReferenceRow] = [*target.methods, *target.references]
        if any({*values} != {*summary.data_sets} for row in rows for values in (row.accuracy, row.regret)):
            return "accuracies and regrets are not of the data sets"
    if isinstance(summary, TargetsSummary) and {row.name for row in summary.overall} != {*methods, *BASELINES}:
        return "overall is not of the methods and baselines"
    return ""


def _read_recorded(file: Path, fix: str) -> list[Result]:
    rows = read_json(file, fix)
    if not isinstance(rows, list):
        raise HwnasError(f"{file} is no list of results", fix)
    return [validate(Result, row, f"result {number} of {file}", fix) for number, row in enumerate(rows, start=1)]


def _read_results(
    folder: Path, asked: Sequence[Asked], manifests: Mapping[tuple[str, int, str], SearchManifest], fix: str
) -> list[Result]:
    """Read the ``result.json`` of every method, seed and target, each of the search of its manifest."""
    results = []
    for one in asked:
        file = one.search(folder) / one.target.target / RESULT
        result = validate(Result, read_json(file, fix), file, fix)
        digest = sha256_of(result.settings.to_json())
        if (result.method, result.seed, digest) != (one.method, one.seed, manifests[one.key].digest):
            raise HwnasError(f"{file} is not of the search of its {MANIFEST}", fix)
        results.append(result)
    return results


def _found(result: Result, target: TargetRow, begun: SearchManifest | None, folder: Path, fix: str) -> FoundCell:
    if missing := target.budget.limits.keys() - result.network.keys():
        raise HwnasError(f"{folder}: {result.method}, seed {result.seed} is incomplete (network.{min(missing)})", fix)
    manifest = {
        "method": result.method,
        "seed": result.seed,
        "digest": sha256_of(result.settings.to_json()),
        "torch": result.torch,
        "threads": result.threads,
        "machine": result.machine.model_dump(mode="json"),
        **({"hwnas": begun.hwnas, "started": begun.started} if begun else {}),
    }
    return FoundCell(result, target, NASBENCH201.parse(result.architecture), manifest)


def _differ(summary: AnySummary, results: Sequence[Result]) -> str:
    """Return what the results and the summary do not have in common; empty when they are of one benchmark."""
    first = results[0].settings
    budgets = {target.target: target.budget for target in summary.rows}
    recipes: dict[str, dict[str, Any]] = {}
    for result in results:
        settings = result.settings
        if result.accuracy_sha256 != summary.accuracy_sha256:
            return "the accuracy table"
        if {*result.accuracy} != {*summary.data_sets} or {*result.regret} != {*summary.data_sets}:
            return "the data sets"
        if settings.budgets != budgets or settings.data != summary.data:
            return "data or budget"
        if settings.model_copy(update={"recipe": first.recipe}) != first:
            return "the settings"
        recipe = {**settings.recipe, "seed": None}
        if recipes.setdefault(result.method, recipe) != recipe:
            return f"the recipe of {result.method}"
    for target in summary.rows:
        where = f" on {target.device} within {target.budget.text}" * bool(target.device)
        for row in target.methods:
            own = [one for one in results if (one.method, one.target) == (row.method, target.target)]
            if not all(_agrees(row, [one.regret[name] for one in own], name) for name in summary.data_sets):
                return f"the mean regret of {row.method}{where}"
    return ""


def _agrees(row: MethodRow, values: Sequence[float], data_set: str) -> bool:
    return math.isclose(row.regret[data_set].mean, statistics.fmean(values), rel_tol=1e-9, abs_tol=1e-9)


def _read_tables(search: Path, hashes: Mapping[str, str], fix: str) -> dict[str, LatencyTable]:
    """Return the latency tables of a search by name; recorded benchmarks may have none."""
    files = {name: search / table_file(hashes, name) for name in hashes}
    if not all(file.is_file() for file in files.values()):
        return {}
    tables = {name: read_table(file) for name, file in files.items()}
    if other := next((name for name, table in tables.items() if table.sha256 != hashes[name]), None):
        raise HwnasError(f"{files[other]} is not the latency table that the search was made with", fix)
    return tables
