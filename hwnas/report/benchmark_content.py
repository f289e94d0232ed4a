"""Read a benchmark for the report, and check that its files belong together. Imports no torch.

There are two forms: the folder that ``hwnas benchmark`` writes, with METHOD/seedN/result.json; and a recorded one, in
which ``results.json`` holds all of these.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from hwnas.benchmark.summary import AT_RANDOM
from hwnas.budgets.budget import Budget
from hwnas.cost.build import build_metrics
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import Array, CostModel
from hwnas.errors import HwnasError
from hwnas.files import read_json, sha256_of
from hwnas.runs.sizes import read_sizes
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import read_table
from hwnas.tables.schema import Device, LatencyTable
from hwnas.text import quoted
from hwnas.validation import Record, validate

ALL = "results.json"
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Spread(Record):
    """Mean and standard deviation over a method's seeds or over cells; ``std`` is None for a single value."""

    mean: FiniteFloat
    std: FiniteFloat | None


class Collapse(Record):
    """Shares of a cell's edges."""

    skip_connect: Share
    without_parameters: Share


class Cost(Record):
    """The cost of a search (hwnas.benchmark.cost_meter)."""

    wall_s: FiniteFloat
    processor_s: FiniteFloat
    peak_memory_mb: FiniteFloat


class CostSpread(Record):
    wall_s: Spread
    processor_s: Spread
    peak_memory_mb: Spread


class CollapseSpread(Record):
    skip_connect: Spread
    without_parameters: Spread


class Method(Record):
    """A row of ``summary.json``; accuracies are percentages, regrets percentage points, by data set."""

    method: FileName
    seeds: list[int] = Field(min_length=1)
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    search: CostSpread
    collapse: CollapseSpread


class Reference(Record):
    """A row that needs no search, such as the best cell, which differs between data sets."""

    name: str
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    collapse: CollapseSpread | None = None


class Limits(Record):
    text: str
    limits: dict[str, FiniteFloat]


class Summary(Record):
    """``summary.json``; methods are in the order of their regret on the first data set."""

    space: Literal["nasbench201"]
    data: str
    budget: Limits
    cells_within_budget: int
    data_sets: list[FileName] = Field(min_length=1)
    methods: list[Method] = Field(min_length=1)
    references: list[Reference]
    accuracy_sha256: str
    finished: str

    @model_validator(mode="after")
    def _whole(self) -> Summary:
        rows: list[Method | Reference] = [*self.methods, *self.references]
        if any({*values} != {*self.data_sets} for row in rows for values in (row.accuracy, row.regret)):
            raise ValueError("accuracies and regrets are not of the data sets")
        if not any(row.name == AT_RANDOM and row.collapse for row in self.references):
            raise ValueError(f"{AT_RANDOM} is missing")
        return self

    def random_regret(self, data_set: str) -> float:
        """Return the mean over all cells within the budget."""
        return self._at_random.regret[data_set].mean

    @property
    def random_collapse(self) -> CollapseSpread:
        assert self._at_random.collapse
        return self._at_random.collapse

    @property
    def _at_random(self) -> Reference:
        return next(row for row in self.references if row.name == AT_RANDOM)


class Settings(Record):
    """The inputs of a search; ``table`` is the hash of the latency table, None without a budget."""

    setting: dict[str, Any]
    data: str
    data_fingerprint: str
    table: str | None
    budget: Limits
    recipe: dict[str, Any]


class Found(Record):
    """``result.json``: the cell that a search found; ``network`` are its costs by metric."""

    method: str
    seed: int
    settings: Settings
    architecture: str
    validation_accuracy: FiniteFloat
    search: Cost
    network: dict[str, FiniteFloat]
    collapse: Collapse
    accuracy: dict[str, FiniteFloat]
    regret: dict[str, FiniteFloat]
    accuracy_sha256: str
    torch: str
    threads: int = Field(ge=1)
    machine: Device


@dataclass(frozen=True)
class Search:
    """One search. ``raw`` is its ``result.json``, ``manifest`` what is recorded about how it ran."""

    found: Found
    raw: dict[str, Any]
    cell: Architecture
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.found.method}, seed {self.found.seed}"

    def kept(self, budget: Budget) -> bool:
        """Return whether the predicted costs of the cell are within every limit."""
        return all(self.found.network[metric] <= bound for metric, bound in budget.limits.items())


@dataclass(frozen=True)
class BenchmarkContent:
    """``raw`` is ``summary.json``, whose order ``searches`` have. ``table`` is None where the folder has none."""

    name: str
    summary: Summary
    raw: dict[str, Any]
    sized: SizedSpace
    searches: tuple[Search, ...]
    table: LatencyTable | None

    @property
    def budget(self) -> Budget:
        return Budget(self.summary.budget.text, self.summary.budget.limits)

    def of(self, method: str) -> list[Search]:
        return [search for search in self.searches if search.found.method == method]

    @cached_property
    def edge_costs(self) -> Array | None:
        """The cost [E, K] in ms of each operation on each edge in the loss; None without a table."""
        if self.table is None:
            return None
        model = build_metrics(self.table, self.sized)[LATENCY.name]
        assert isinstance(model, CostModel)
        return model.linear()[1]["cell"]


def is_benchmark(folder: Path) -> bool:
    """Return whether the folder is that of ``hwnas benchmark``. Raises HwnasError when it also holds a run."""
    found = (folder / ALL).is_file() or any(folder.glob("*/seed*/manifest.json"))
    if found and (folder / "manifest.json").is_file():
        raise HwnasError(f"{folder} holds both a run and a benchmark", "move one of them into a folder of its own")
    return found


def read_benchmark(folder: Path) -> BenchmarkContent:
    """Read a benchmark. Raises HwnasError when it is not finished, or a file is damaged or of another benchmark."""
    fix = f"make it with `hwnas benchmark nasbench201 --out {quoted(folder)}`"
    if not (folder / "summary.json").is_file():
        raise HwnasError(f"{folder} holds a benchmark that has not ended: it has no summary.json", fix)
    raw = read_json(folder / "summary.json", fix)
    summary = validate(Summary, raw, folder / "summary.json", fix)
    searches = _read_recorded(folder, fix) if (folder / ALL).is_file() else _read_folders(folder, summary, fix)
    asked = [(row.method, seed) for row in summary.methods for seed in row.seeds]
    known = {(search.found.method, search.found.seed): search for search in searches}
    if len(asked) != len(searches) or set(asked) != set(known):
        raise HwnasError(f"{folder}: summary.json and the results are not of the same methods and seeds", fix)
    ordered = tuple(known[one] for one in asked)
    if what := _differ(summary, ordered):
        raise HwnasError(f"{folder}: its results are not of one benchmark, they differ in {what}", fix)
    sized = read_sizes(NASBENCH201, ordered[0].found.settings.setting, folder, fix)
    table = _read_table(folder, ordered[0].found, fix)
    return BenchmarkContent(folder.resolve().name, summary, raw, sized, ordered, table)


def _read_folders(folder: Path, summary: Summary, fix: str) -> list[Search]:
    searches = []
    for row in summary.methods:
        for seed in row.seeds:
            search_folder = folder / row.method / f"seed{seed}"
            raw, manifest = (read_json(search_folder / f"{name}.json", fix) for name in ("result", "manifest"))
            search = _search(raw, search_folder / "result.json", fix)
            known = manifest if isinstance(manifest, dict) else {}
            recorded = (search.found.method, search.found.seed, search.manifest["digest"])
            if recorded != (row.method, seed, known.get("digest")):
                raise HwnasError(f"{search_folder / 'result.json'} is not of the search of its manifest.json", fix)
            more = {name: known.get(name) for name in ("hwnas", "started")}
            searches.append(Search(search.found, raw, search.cell, {**search.manifest, **more}))
    return searches


def _read_recorded(folder: Path, fix: str) -> list[Search]:
    rows = read_json(folder / ALL, fix)
    if not isinstance(rows, list):
        raise HwnasError(f"{folder / ALL} is no list of results", fix)
    return [_search(row, f"result {number} of {folder / ALL}", fix) for number, row in enumerate(rows, start=1)]


def _search(raw: Any, where: Path | str, fix: str) -> Search:
    found = validate(Found, raw, where, fix)
    if missing := found.settings.budget.limits.keys() - found.network.keys():
        raise HwnasError(f"{where} is incomplete (network.{min(missing)})", fix)
    manifest = {"method": found.method, "seed": found.seed, "digest": sha256_of(raw["settings"])}
    manifest |= {name: raw[name] for name in ("threads", "machine", "torch")}
    return Search(found, raw, NASBENCH201.parse(found.architecture), manifest)


def _differ(summary: Summary, searches: Sequence[Search]) -> str:
    """Return what the results and the summary do not have in common; empty when they are of one benchmark."""
    first = searches[0].found.settings
    recipes: dict[str, dict[str, Any]] = {}
    for found in (search.found for search in searches):
        settings = found.settings
        if found.accuracy_sha256 != summary.accuracy_sha256:
            return "the accuracy table"
        if {*found.accuracy} != {*summary.data_sets} or {*found.regret} != {*summary.data_sets}:
            return "the data sets"
        if settings.budget != summary.budget or settings.data != summary.data:
            return "data or budget"
        if settings.model_copy(update={"recipe": first.recipe}) != first:
            return "the settings"
        recipe = {**settings.recipe, "seed": None}
        if recipes.setdefault(found.method, recipe) != recipe:
            return f"the recipe of {found.method}"
    for row in summary.methods:
        own = [search.found for search in searches if search.found.method == row.method]
        if not all(_agrees(row, [found.regret[name] for found in own], name) for name in summary.data_sets):
            return f"the mean regret of {row.method}"
    return ""


def _agrees(row: Method, values: Sequence[float], data_set: str) -> bool:
    return math.isclose(row.regret[data_set].mean, statistics.fmean(values), rel_tol=1e-9, abs_tol=1e-9)


def _read_table(folder: Path, found: Found, fix: str) -> LatencyTable | None:
    """Return the latency table of the searches; recorded benchmarks may have none."""
    path = folder / found.method / f"seed{found.seed}" / "table.json"
    if found.settings.table is None or not path.exists():
        return None
    table = read_table(path)
    if table.sha256 != found.settings.table:
        raise HwnasError(f"{path} is not the latency table that the search was made with", fix)
    return table
