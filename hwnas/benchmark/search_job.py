"""One search of a benchmark as a job of an executor (hwnas.jobs): data in, data out.

A search has the images, the latency tables if there are budgets, and its settings. It has no access to accuracies or
to latencies of cells, and no folder: after every step it returns what is to be written, and at its end what it found.

The cost of a search includes its steps, validation after every epoch, checkpoints and derivation. It excludes starting
Python, sending the images and building the supernet, and what is computed for the ablation of the choice
(hwnas.benchmark.ablation).
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from hwnas.benchmark.ablation import choices
from hwnas.benchmark.collapse import collapse
from hwnas.benchmark.cost_meter import Cost, CostMeter
from hwnas.benchmark.objectives import read_objectives
from hwnas.benchmark.schema import Searched, SearchSettings
from hwnas.data import ImageData
from hwnas.finalists.baselines import BaselinePlan, plan_baselines
from hwnas.finalists.evidence import Advance, Evidence
from hwnas.finalists.judgement import Judgement
from hwnas.finalists.of_search import judge_of, propose
from hwnas.jobs.choose import choose_executor
from hwnas.profiling.session import ask
from hwnas.recipe import Finalists, recorded_recipe
from hwnas.runtimes.device_spec import parse_device
from hwnas.search.epoch_row import EpochRow
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.resume import remaining_steps
from hwnas.search.search import Search
from hwnas.spaces import Setting, SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.schema import Device, LatencyTable
from hwnas.training.checkpoint import SavingPace, pack, unpack


@dataclass(frozen=True)
class SearchInputs:
    """Inputs that all searches of a benchmark share: images without those for testing, and latency tables by name.

    ``machine`` describes the machine named ``host``, which runs the benchmark.
    """

    data: ImageData
    tables: Mapping[str, LatencyTable]
    machine: Device
    host: str = field(default_factory=platform.node)


@dataclass(frozen=True)
class SearchItem:
    """One search: settings, digest and threads of its manifest, content of its checkpoint, and its cost until then.

    ``trainings`` are the contents of the files of finalists that have been trained, by name.
    """

    settings: SearchSettings
    digest: str
    threads: int
    checkpoint: bytes | None
    cost: Cost
    trainings: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchUpdate:
    """A search after ``step`` of ``total`` steps, and its cost so far.

    ``rows`` are those of the epoch that ends with the step. ``checkpoint`` is the content of a checkpoint, where one is
    due. ``finalists`` is an advance of the finalists' trainings after the last step. ``searched`` has, at the end of
    the search, what was found for every target.
    """

    step: int
    total: int
    cost: Cost
    rows: list[EpochRow] = field(default_factory=list)
    checkpoint: bytes | None = None
    finalists: Advance | None = None
    searched: Mapping[str, Searched] = field(default_factory=dict)


def search_cells(inputs: SearchInputs, item: SearchItem) -> Iterator[SearchUpdate]:
    """Take the remaining steps of a search and select its cells; the last update has the cells."""
    settings, recipe = item.settings, recorded_recipe(item.settings.recipe)
    torch.set_num_threads(item.threads)
    sized = SizedSpace(NASBENCH201, Setting(**settings.setting))
    target_network = SizedSpace(NASBENCH201, Setting(**(settings.target_setting or settings.setting)))
    objectives = read_objectives(settings, inputs.tables, target_network)
    torch.manual_seed(recipe.seed)
    register_builtin()
    search = Search(sized, objectives, inputs.data, recipe)
    cost_meter, pace = CostMeter(item.cost), SavingPace()
    if item.checkpoint:
        search.load_state(unpack(item.checkpoint))
    total = search.schedule.total_steps
    for rows in remaining_steps(search):
        content = None
        if pace.due() or search.over:
            with pace.saving():
                content = pack(item.digest, search.state())
        yield SearchUpdate(search.step, total, cost_meter.total(), rows, content)
    judgement = None
    if isinstance(recipe.finalists, Finalists):
        evidence = Evidence(choose_executor("local", item.threads), item.digest, item.trainings)
        plan = plan_baselines(search) if recipe.finalists.baselines else BaselinePlan([], [])
        judge = judge_of(search, evidence, target_network, baselines=plan.baselines)
        for advance in judge.advances():
            yield SearchUpdate(search.step, total, cost_meter.total(), finalists=advance)
        judgement = judge.judgement()
    found = _select_cells(search, objectives, judgement)
    cost, machine = cost_meter.total(), _machine(inputs)
    made: dict[str, Any] = {"search": cost, "torch": torch.__version__, "threads": item.threads, "machine": machine}
    if judgement:
        for target in search.targets:
            alone = choices(search, target, judgement)
            found[target.objective.target]["choices"] = {name: search.space.format(a) for name, a in alone.items()}
    searched = {target: Searched(**fields, **made) for target, fields in found.items()}
    yield SearchUpdate(search.step, total, cost, searched=searched)


def _select_cells(
    search: Search, objectives: list[Objective], judgement: Judgement | None
) -> dict[str, dict[str, Any]]:
    """Return the cell of every target, with its validation accuracy and the costs of its network."""
    evidence = {"finalists": judgement.summary()} if judgement else {}
    chosen = []
    for target in search.targets:
        found = propose(search, target, target.limits, judgement)
        assert found is not None  # an impossible budget was refused before the search
        chosen.append(found[0])
    return {
        objective.target: {
            "architecture": search.space.format(architecture),
            "validation_accuracy": search.evaluator.validate(architecture),
            "network": {metric: model.predict(architecture) for metric, model in objective.costs.items()},
            "collapse": collapse(architecture),
            **evidence,
        }
        for objective, architecture in zip(objectives, chosen, strict=True)
    }


def _machine(inputs: SearchInputs) -> Device:
    """Return the description of the machine that runs the search."""
    if platform.node() == inputs.host:
        return inputs.machine
    return ask(parse_device("cpu")).device
