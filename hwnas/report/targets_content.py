"""Read a benchmark of several targets for the report, and check that its files belong together. Imports no torch.

Like any benchmark it is the folder that ``hwnas benchmark`` writes, or a recorded one with all results in
``results.json`` (hwnas.report.benchmark_content).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.report.benchmark_content import ALL, Collapse, Cost, FileName, Limits, Spread
from hwnas.runs.sizes import read_sizes
from hwnas.spaces import SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import read_table
from hwnas.tables.schema import Device, LatencyTable
from hwnas.text import quoted
from hwnas.validation import Record, validate

TargetId = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][\w.-]{0,199})?$")]


class Kept(Record):
    """Numbers of cells that keep a budget, that break it, and that were not measured."""

    yes: int
    no: int
    not_measured: int


class TargetMethod(Record):
    """A method's row of one target; accuracies are percentages, regrets percentage points, by data set."""

    method: FileName
    seeds: list[int] = Field(min_length=1)
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    share: Spread | None = None
    kept: Kept


class TargetReference(Record):
    """A baseline's row of one target; ``share`` is the share of the budget that its cells use, by data set."""

    name: str
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    share: dict[str, Spread] | None = None


class TargetRow(Record):
    """One budget on a device, and how methods and baselines do within it."""

    target: TargetId
    device: str
    budget: Limits
    cells_within_budget: int
    cells_measured: int
    methods: list[TargetMethod] = Field(min_length=1)
    references: list[TargetReference]


class Overall(Record):
    """The mean regret of a method or baseline over all targets."""

    name: str
    regret: dict[str, FiniteFloat]
    kept: Kept | None = None


class JudgedBy(Record):
    """The file of measured latencies: the hash of its numbers, and the column of every table."""

    sha256: str
    columns: dict[str, str]


class TargetsSummary(Record):
    """``summary.json`` of a benchmark of several targets, or of one that measured latencies judge."""

    space: Literal["nasbench201"]
    data: str
    setting: dict[str, Any]
    target_setting: dict[str, Any] | None = None
    data_sets: list[FileName] = Field(min_length=1)
    targets: list[TargetRow] = Field(min_length=1)
    overall: list[Overall] = Field(min_length=1)
    accuracy_sha256: str
    latency: JudgedBy | None
    finished: str


class TargetSettings(Record):
    """The inputs of a search; tables by their hashes, ``table`` where the search has one budget on one device."""

    data: str
    data_fingerprint: str
    setting: dict[str, Any]
    target_setting: dict[str, Any] | None = None
    tables: dict[str, str] | None = None
    table: str | None = None
    recipe: dict[str, Any]


class TargetFound(Record):
    """``result.json`` of a target: the cell that a search found; ``kept`` and ``share`` are None if not measured."""

    method: FileName
    seed: int
    target: TargetId
    settings: TargetSettings
    architecture: str
    validation_accuracy: FiniteFloat
    search: Cost
    costs: dict[str, FiniteFloat | None]
    limits: dict[str, FiniteFloat]
    kept: bool | None
    share: FiniteFloat | None
    collapse: Collapse
    accuracy: dict[str, FiniteFloat]
    regret: dict[str, FiniteFloat]
    accuracy_sha256: str
    torch: str
    threads: int = Field(ge=1)
    machine: Device


@dataclass(frozen=True)
class TargetsContent:
    """``raw`` is ``summary.json``, whose order ``found`` has. ``tables`` are empty where the folder has none.

    ``target`` is the network that the budgets are about, ``searched`` the supernet's.
    """

    name: str
    summary: TargetsSummary
    raw: dict[str, Any]
    target: SizedSpace
    searched: SizedSpace
    found: tuple[TargetFound, ...]
    tables: Mapping[str, LatencyTable]

    @property
    def table_hashes(self) -> dict[str, str]:
        """The hashes of the latency tables by name."""
        settings = self.found[0].settings
        return settings.tables or ({self.summary.targets[0].device: settings.table} if settings.table else {})

    @property
    def recipes(self) -> dict[str, dict[str, Any]]:
        """The recipe of every method, that of its first seed."""
        recipes: dict[str, dict[str, Any]] = {}
        for found in self.found:
            recipes.setdefault(found.method, found.settings.recipe)
        return recipes


def has_targets(folder: Path) -> bool:
    """Return whether the folder of a benchmark describes its targets one by one."""
    if not (folder / "summary.json").is_file():
        return False
    raw = read_json(folder / "summary.json", "run 'hwnas benchmark nasbench201' again")
    return isinstance(raw, dict) and "targets" in raw


def read_targets(folder: Path) -> TargetsContent:
    """Read a benchmark of targets. Raises HwnasError when a file is missing, damaged or of another benchmark."""
    fix = f"make it with `hwnas benchmark nasbench201 --out {quoted(folder)}`"
    raw = read_json(folder / "summary.json", fix)
    summary = validate(TargetsSummary, raw, folder / "summary.json", fix)
    asked = [(row.method, seed, t.target) for t in summary.targets for row in t.methods for seed in row.seeds]
    if (folder / ALL).is_file():
        rows = read_json(folder / ALL, fix)
        if not isinstance(rows, list):
            raise HwnasError(f"{folder / ALL} is no list of results", fix)
        found = [validate(TargetFound, row, f"result {n} of {folder / ALL}", fix) for n, row in enumerate(rows, 1)]
    else:
        files = [folder / method / f"seed{seed}" / target / "result.json" for method, seed, target in asked]
        found = [validate(TargetFound, read_json(file, fix), file, fix) for file in files]
    known = {(one.method, one.seed, one.target): one for one in found}
    if len(found) != len(asked) or set(known) != set(asked):
        raise HwnasError(f"{folder}: summary.json and the results are not of the same searches and targets", fix)
    ordered = tuple(known[one] for one in asked)
    if what := _differ(summary, ordered):
        raise HwnasError(f"{folder}: its results are not of one benchmark, they differ in {what}", fix)
    searched, target = (
        read_sizes(NASBENCH201, setting, folder / "summary.json", fix)
        for setting in (summary.setting, summary.target_setting or summary.setting)
    )
    tables = _read_tables(folder / ordered[0].method / f"seed{ordered[0].seed}", summary.targets[0].device)
    return TargetsContent(folder.resolve().name, summary, raw, target, searched, ordered, tables)


def _differ(summary: TargetsSummary, found: Sequence[TargetFound]) -> str:
    """Return what the results and the summary do not have in common; empty when they are of one benchmark."""
    names, shared = {*summary.data_sets}, found[0].settings.model_copy(update={"recipe": {}})
    for one in found:
        if one.accuracy_sha256 != summary.accuracy_sha256:
            return "the accuracy table"
        if {*one.accuracy} != names or {*one.regret} != names:
            return "the data sets"
        if one.settings.model_copy(update={"recipe": {}}) != shared or one.settings.data != summary.data:
            return "the settings"
    for target in summary.targets:
        for row in target.methods:
            own = [one for one in found if (one.method, one.target) == (row.method, target.target)]
            for name in names:
                mean = statistics.fmean(one.regret[name] for one in own)
                if not math.isclose(row.regret[name].mean, mean, rel_tol=1e-9, abs_tol=1e-9):
                    return f"the mean regret of {row.method} on {target.device} within {target.budget.text}"
    return ""


def _read_tables(run: Path, device: str) -> dict[str, LatencyTable]:
    """Return the latency tables of a search by name, ``device`` for a single one; recorded benchmarks may have none."""
    if (run / "table.json").is_file():
        return {device: read_table(run / "table.json")}
    return {file.stem: read_table(file) for file in sorted((run / "tables").glob("*.json"))}
