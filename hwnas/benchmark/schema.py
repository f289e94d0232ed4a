"""Schema of a benchmark's folder: one model for every JSON file in it (hwnas.benchmark.benchmark). Imports no torch.

Writers set the fields that they know; ``to_json`` writes these and no others. Readers accept folders of older versions,
in which fields may be missing, and keep fields of newer ones.

A benchmark of one target that no measured latencies judge has the summary ``Summary``, whose only target is the summary
itself; any other has a ``TargetsSummary``. Likewise the settings of a search have ``table`` and ``budget``, or
``tables`` and ``targets``. Both forms of either have the same properties.

Accuracies are percentages and regrets percentage points, both by data set.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from hwnas.benchmark.cost_meter import Cost
from hwnas.finalists.record import FinalistsFile
from hwnas.runs.schema import Limits
from hwnas.tables.schema import Device
from hwnas.validation import Record

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")]
TargetId = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][\w.-]{0,199})?$")]
Share = Annotated[float, Field(ge=0, le=1)]

# The names of the rows that need no search.
AT_RANDOM, BEST_OF_TEN = "a random cell", "the best of ten random cells"
MOST_MACS, MOST_PARAMS = "the cell of most MACs", "the cell of most parameters"
BEST = "the best cell"
BASELINES = (AT_RANDOM, BEST_OF_TEN, MOST_MACS, MOST_PARAMS)


class Spread(Record):
    """Mean and sample standard deviation (n - 1) over a method's seeds or over cells; ``std`` is None for one value."""

    mean: FiniteFloat
    std: FiniteFloat | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else None)


# manifest.json of a search


class SearchTarget(Record):
    """A budget on a device; its ``target`` is the id that names its folder."""

    target: TargetId
    device: str
    budget: Limits


class SearchSettings(Record):
    """Everything that decides what a search computes; ``SearchManifest.digest`` is the hash of this.

    ``setting`` are the sizes of the search network, ``target_setting`` those of the target network where they differ.
    Tables are named by their hashes; ``table`` is None without a budget.
    """

    space: str = "nasbench201"
    setting: dict[str, Any]
    target_setting: dict[str, Any] | None = None
    data: str
    data_fingerprint: str
    table: str | None = None
    budget: Limits | None = None
    tables: dict[str, str] | None = None
    targets: list[SearchTarget] | None = None
    recipe: dict[str, Any]

    @model_validator(mode="after")
    def _check_budget(self) -> SearchSettings:
        if (self.budget is None) == (self.targets is None):
            raise ValueError("it has neither budget nor targets, or both")
        return self

    @property
    def budgets(self) -> dict[str, Limits]:
        """The budget of every target by its id."""
        return {"": self.budget} if self.budget else {row.target: row.budget for row in self.targets or ()}


class SearchManifest(Record):
    """``manifest.json`` of a search: its inputs, its processor threads, the machine and the version that began it."""

    settings: SearchSettings
    digest: str
    threads: int = Field(ge=1)
    machine: Device
    hwnas: str = ""
    started: str = ""


# searched.json and result.json of a target


class Collapse(Record):
    """Shares of a cell's edges (hwnas.benchmark.collapse)."""

    skip_connect: Share
    without_parameters: Share


class Searched(Record):
    """``searched.json``: the cell that a search found, before its accuracy is known.

    ``network`` are the predicted costs of the target network by metric, ``search`` is the cost of the search.
    ``finalists`` describe the trainings by which the cell was chosen, if it was. ``choices`` are the cells that parts
    of the evidence alone would have chosen (hwnas.benchmark.ablation).
    """

    architecture: str
    validation_accuracy: FiniteFloat
    network: dict[str, FiniteFloat]
    collapse: Collapse
    search: Cost
    torch: str
    threads: int = Field(ge=1)
    machine: Device
    finalists: FinalistsFile | None = None
    choices: dict[str, str] = Field(default_factory=dict)


class Account(Record):
    """Account of a cell and its budget, by the costs that decide: measured latencies, or what the tables predict.

    ``share`` is cost over bound of the limit that it comes closest to. ``kept`` and ``share`` are None for a cell that
    was not measured.
    """

    target: TargetId = ""
    costs: dict[str, FiniteFloat | None] = Field(default_factory=dict)
    limits: dict[str, FiniteFloat] = Field(default_factory=dict)
    kept: bool | None = None
    share: FiniteFloat | None = None


class Result(Searched, Account):
    """``result.json``: the cell with its accuracy and regret; without a budget it has no account."""

    method: FileName
    seed: int
    settings: SearchSettings
    accuracy: dict[str, FiniteFloat]
    regret: dict[str, FiniteFloat]
    accuracy_sha256: str

    @property
    def bounds(self) -> dict[str, float]:
        """The limits of the budget; results of older versions have them in the settings alone."""
        return self.limits or (self.settings.budget.limits if self.settings.budget else {})

    @property
    def keeps(self) -> bool | None:
        """True where the cell keeps its budget; in older results as tables predict; None if it was not measured."""
        if "kept" in self.model_fields_set:
            return self.kept
        return all(self.network[metric] <= bound for metric, bound in self.bounds.items())


# summary.json, and what `hwnas benchmark baselines --out` writes


class CostSpread(Record):
    """The cost of a method's searches."""

    wall_s: Spread
    processor_s: Spread
    peak_memory_mb: Spread


class CollapseSpread(Record):
    skip_connect: Spread
    without_parameters: Spread


class Kept(Record):
    """Numbers of cells that keep a budget, that break it, and that were not measured."""

    yes: int
    no: int
    not_measured: int

    @classmethod
    def of(cls, cells: Sequence[bool | None]) -> Kept:
        return cls(yes=cells.count(True), no=cells.count(False), not_measured=cells.count(None))


class MethodRow(Record):
    """A method's cells for one target; ``share`` is that of ``Account``, None where no cell was measured.

    Without a budget there are neither ``share`` nor ``kept``.
    """

    method: FileName
    seeds: list[int] = Field(min_length=1)
    epochs: int | None = None
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    search: CostSpread
    collapse: CollapseSpread
    threads: list[int] = Field(default_factory=list)
    share: Spread | None = None
    kept: Kept | None = None


class ReferenceRow(Record):
    """Cells that need no search: a baseline, or the best cell, which differs between data sets."""

    name: str
    accuracy: dict[str, Spread]
    regret: dict[str, Spread]
    share: dict[str, Spread] | None = None
    collapse: CollapseSpread | None = None


class TargetRow(Record):
    """A budget on a device, and how methods and baselines do within it. Methods are in the order of their regret.

    The only target of a search has no id, and a summary of that target alone no device.
    """

    target: TargetId = ""
    device: str = ""
    budget: Limits
    cells_within_budget: int
    cells_measured: int | None = None
    methods: list[MethodRow]
    references: list[ReferenceRow]

    def reference(self, name: str) -> ReferenceRow:
        return next(row for row in self.references if row.name == name)


class JudgedBy(Record):
    """The file of measured latencies: the hash of its numbers, and the column of every table."""

    sha256: str
    columns: dict[str, str]


class Overall(Record):
    """The mean regret of a method or baseline over all targets."""

    name: str
    regret: dict[str, FiniteFloat]
    kept: Kept | None = None


class SummaryHead(Record):
    """Fields of both forms of a summary; one of baselines alone has no field about searches, such as ``data``."""

    space: Literal["nasbench201"]
    data: str = ""
    setting: dict[str, Any] | None = None
    target_setting: dict[str, Any] | None = None
    data_sets: list[FileName] = Field(min_length=1)
    accuracy_sha256: str
    finished: str = ""


class Summary(SummaryHead, TargetRow):
    """``summary.json`` of one target that its table judges, or that has no budget."""

    @property
    def rows(self) -> list[TargetRow]:
        return [self]

    @property
    def latency(self) -> JudgedBy | None:
        return None


class TargetsSummary(SummaryHead):
    """``summary.json`` of several targets, or of one that measured latencies judge."""

    latency: JudgedBy | None
    targets: list[TargetRow] = Field(min_length=1)
    overall: list[Overall] = Field(min_length=1)

    @property
    def rows(self) -> list[TargetRow]:
        return self.targets


AnySummary = Summary | TargetsSummary
