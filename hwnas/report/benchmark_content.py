"""What a benchmark's folder says, read back for the report and checked; nothing here imports torch.

Two forms are read: the folder that ``hwnas benchmark`` writes, with METHOD/seedN/result.json; and a recorded one, in
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

from hwnas.budgets.budget import Budget
from hwnas.cost.metrics import build_metrics
from hwnas.cost.model import Array, CostModel
from hwnas.errors import HwnasError
from hwnas.files import read_json, sha256_of
from hwnas.runs.sizes import read_sizes
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import read_table
from hwnas.tables.schema import Device, LatencyTable
from hwnas.validation import Record, validate

ALL = "results.json"
AT_RANDOM = "a random cell"
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")]
Share = Annotated[float, Field(ge=0, le=1)]


class Spread(Record):
    """Over a method's seeds, or over cells; ``std`` is None of a single value."""

    mean: FiniteFloat
    std: FiniteFloat | None


class Collapse(Record):
    """Shares of a cell's edges."""

    skip_connect: Share
    without_parameters: Share


class Cost(Record):
    """Of a search: hwnas.benchmark.cost_meter."""

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
    """What the accuracy table tells without a search; the best cell is another one on every data set."""

    name: str
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    collapse: CollapseSpread | None = None


class Limits(Record):
    text: str
    limits: dict[str, FiniteFloat]


class Summary(Record):
    """``summary.json``: methods are in the order of their regret on the first data set."""

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
        if any({*told} != {*self.data_sets} for row in rows for told in (row.accuracy, row.regret)):
            raise ValueError("accuracies and regrets are not of the data sets")
        if not any(row.name == AT_RANDOM and row.collapse for row in self.references):
            raise ValueError(f"{AT_RANDOM} is missing")
        return self

    def random_regret(self, data_set: str) -> float:
        """The mean over all cells within the budget."""
        return self._at_random.regret[data_set].mean

    @property
    def random_collapse(self) -> CollapseSpread:
        assert self._at_random.collapse
        return self._at_random.collapse

    @property
    def _at_random(self) -> Reference:
        return next(row for row in self.references if row.name == AT_RANDOM)


class Settings(Record):
    """What a search was told; ``table`` is the latency table's hash, None without a budget."""

    setting: dict[str, Any]
    data: str
    data_fingerprint: str
    table: str | None
    budget: Limits
    recipe: dict[str, Any]


class Found(Record):
    """``result.json``: what a search has found, ``network`` is what that costs, by metric."""

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
    """One search. ``raw`` is its ``result.json``, ``manifest`` what is known of how it was made."""

    found: Found
    raw: dict[str, Any]
    cell: Architecture
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.found.method}, seed {self.found.seed}"

    def kept(self, budget: Budget) -> bool:
        """Whether the cell keeps every limit, as the latency table and the counts predict it."""
        return all(self.found.network[metric] <= bound for metric, bound in budget.limits.items())


@dataclass(frozen=True)
class BenchmarkContent:
    """``raw`` is ``summary.json``; ``searches`` are in its order. ``table`` is None where the folder has none."""

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
        """[E, K] what an operation costs on an edge in ms, as the loss counts it; None without a table."""
        if self.table is None:
            return None
        model = build_metrics(self.table, self.sized)["latency_ms"]
        assert isinstance(model, CostModel)
        return model.linear()[1]["cell"]


def is_benchmark(folder: Path) -> bool:
    """Whether ``hwnas benchmark`` has written into the folder, ended or not. Raises HwnasError when a run has, too."""
    found = (folder / ALL).is_file() or any(folder.glob("*/seed*/manifest.json"))
    if found and (folder / "manifest.json").is_file():
        raise HwnasError(f"{folder} holds both a run and a benchmark", "move one of them into a folder of its own")
    return found


def read_benchmark(folder: Path) -> BenchmarkContent:
    """Read a benchmark. Raises HwnasError when it has not ended, or its files are not whole or of one benchmark."""
    again = f"make it with 'hwnas benchmark nasbench201 --out {folder}'"
    if not (folder / "summary.json").is_file():
        raise HwnasError(f"{folder} holds a benchmark that has not ended: it has no summary.json", again)
    raw = read_json(folder / "summary.json", again)
    summary = validate(Summary, raw, folder / "summary.json", again)
    searches = _read_recorded(folder, again) if (folder / ALL).is_file() else _read_folders(folder, summary, again)
    asked = [(row.method, seed) for row in summary.methods for seed in row.seeds]
    known = {(search.found.method, search.found.seed): search for search in searches}
    if len(asked) != len(searches) or set(asked) != set(known):
        raise HwnasError(f"{folder}: summary.json and the results are not of the same methods and seeds", again)
    ordered = tuple(known[one] for one in asked)
    if what := _differ(summary, ordered):
        raise HwnasError(f"{folder}: its results are not of one benchmark, they differ in {what}", again)
    sized = read_sizes(NASBENCH201, ordered[0].found.settings.setting, folder, again)
    table = _read_table(folder, ordered[0].found, again)
    return BenchmarkContent(folder.resolve().name, summary, raw, sized, ordered, table)


def _read_folders(folder: Path, summary: Summary, again: str) -> list[Search]:
    searches = []
    for row in summary.methods:
        for seed in row.seeds:
            place = folder / row.method / f"seed{seed}"
            raw, manifest = (read_json(place / f"{name}.json", again) for name in ("result", "manifest"))
            search = _search(raw, place / "result.json", again)
            known = manifest if isinstance(manifest, dict) else {}
            told = (search.found.method, search.found.seed, search.manifest["digest"])
            if told != (row.method, seed, known.get("digest")):
                raise HwnasError(f"{place / 'result.json'} is not of the search of its manifest.json", again)
            more = {name: known.get(name) for name in ("hwnas", "started")}
            searches.append(Search(search.found, raw, search.cell, {**search.manifest, **more}))
    return searches


def _read_recorded(folder: Path, again: str) -> list[Search]:
    rows = read_json(folder / ALL, again)
    if not isinstance(rows, list):
        raise HwnasError(f"{folder / ALL} is no list of results", again)
    return [_search(row, f"result {number} of {folder / ALL}", again) for number, row in enumerate(rows, start=1)]


def _search(raw: Any, where: Path | str, again: str) -> Search:
    found = validate(Found, raw, where, again)
    if missing := found.settings.budget.limits.keys() - found.network.keys():
        raise HwnasError(f"{where} is incomplete (network.{min(missing)})", again)
    manifest = {"method": found.method, "seed": found.seed, "digest": sha256_of(raw["settings"])}
    manifest |= {name: raw[name] for name in ("threads", "machine", "torch")}
    return Search(found, raw, NASBENCH201.parse(found.architecture), manifest)


def _differ(summary: Summary, searches: Sequence[Search]) -> str:
    """In what the results are of another benchmark than the summary, or than each other; empty where in nothing."""
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


def _read_table(folder: Path, found: Found, again: str) -> LatencyTable | None:
    """The latency table of the searches; recorded benchmarks may not hold it."""
    path = folder / found.method / f"seed{found.seed}" / "table.json"
    if found.settings.table is None or not path.exists():
        return None
    table = read_table(path)
    if table.sha256 != found.settings.table:
        raise HwnasError(f"{path} is not the latency table that the search was made with", again)
    return table
