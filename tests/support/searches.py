"""Small searches on digits, with made-up tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hwnas.budgets.budget import Budget, parse_budget, preview
from hwnas.cost.build import CostFunction, build_metrics
from hwnas.data import ImageData, load_data
from hwnas.data.images import Split
from hwnas.files import sha256_of_file
from hwnas.recipe import Recipe, read_recipe
from hwnas.runs.settle import settle
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import SizedSpace
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.processes import SINGLE_PROCESS, Processes
from support.chains import SHARING, small_chain
from support.few_digits import FEW_DIGITS
from support.lazy import Lazy
from support.spaces import CELL_SPACES, SMALL
from support.tables import make_table

register_builtin()
DATA = load_data("digits?size=16")


SMALL_SEARCH = ("--data", "digits?size=16", "--channels", 4, "--cells", 1, "--recipe", "snas-short")
FEW_SEARCH = ("--data", FEW_DIGITS, *SMALL_SEARCH[2:])


RUN = ("--epochs", 3, "--child-epochs", 2, "--batch-size", 128, "--budget", "mild", "--budget", "aggressive,80%-params")


# Numbers that tests compare are the same on every machine, and gradients need double precision.
PLAIN = {"precision": "float32", "kernels": "torch"}
FEW_STEPS = {"batch_size": 16, "logits_warm_up": 0.0, "penalty.warm_up": 0.0, **PLAIN}


def make_search(
    name: str, recipe: Recipe, budgets: tuple[str, ...] = ("moderate",), data: ImageData | None = None
) -> Search:
    """Build a search on all digits at 4 channels with one target a budget; plain float32 where the recipe says auto."""
    space, sizes = CELL_SPACES[name], SMALL[name]
    costs = build_metrics(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))
    previews = preview(costs)
    objectives = [Objective("table", parse_budget(b, previews), costs) for b in budgets]
    return Search(SizedSpace(space, sizes), objectives, data or DATA, settle(recipe, PLAIN, None))


def fingerprint(folder: Path, *targets: str) -> dict[str, str]:
    """Return the hashes of all files of a search that must not depend on interruptions."""
    names = ["metrics.jsonl"]
    for target in targets or ("mild", "aggressive_80pct-params"):
        names += [
            f"{target}/{n}" for n in ("architecture.json", "weights.safetensors", "network.onnx", "cells/cell.onnx")
        ]
    return {name: sha256_of_file(folder / name) for name in names}


FEW = ImageData(
    DATA.name,
    DATA.labels,
    Split(DATA.train.images[:100], DATA.train.targets[:100]),
    Split(DATA.validation.images[:60], DATA.validation.targets[:60]),
    DATA.load_test,
    DATA.flip,
)


def small_costs(name: str) -> dict[str, CostFunction]:
    sized = SizedSpace(CELL_SPACES[name], SMALL[name])
    return build_metrics(make_table(sized), sized)


COSTS = Lazy(CELL_SPACES, small_costs)


PREVIEWS = Lazy(CELL_SPACES, lambda name: preview(COSTS[name]))


def searching(space: str, recipe: str, *budgets: str | Budget, **changes: object) -> Search:
    """Build a search on few images at 4 channels, or 12 where stages need them."""
    settings = read_recipe(recipe, {**FEW_STEPS, **changes})
    sizes, costs = SMALL[space], COSTS[space]
    if settings.stages and space != "nasbench201":
        sizes = replace(sizes, channels=12)
        costs = build_metrics(make_table(SizedSpace(CELL_SPACES[space], sizes)), SizedSpace(CELL_SPACES[space], sizes))
    previews = PREVIEWS[space] if costs is COSTS[space] else preview(costs)
    asked = [b if isinstance(b, Budget) else parse_budget(b, previews) for b in budgets or ("moderate",)]
    return Search(
        SizedSpace(CELL_SPACES[space], sizes), [Objective("table", budget, costs) for budget in asked], FEW, settings
    )


def chain_searching(
    recipe: str, *budgets: str, text: str = SHARING, processes: Processes = SINGLE_PROCESS, **changes: object
) -> Search:
    """Build a search on few images in a small chain."""
    sized = SizedSpace.named(small_chain(text), "tiny")
    costs = build_metrics(make_table(sized), sized)
    settings = read_recipe(recipe, {**FEW_STEPS, **changes})
    previews = preview(costs)
    objectives = [Objective("table", parse_budget(b, previews), costs) for b in budgets or ("moderate",)]
    return Search(sized, objectives, FEW, settings, processes)


def assert_resumes(fresh: Callable[[], Search], folder: Path) -> Search:
    """Take all steps of a search, and again from a checkpoint in the middle: the states are equal in every bit."""
    search, checkpoint = fresh(), Checkpoint(folder / "search.pt", "digest")
    while not search.over:
        if search.step == search.schedule.total_steps // 2:
            checkpoint.save(search.state())
        search.take_step()
    torch.manual_seed(99)  # numbers from elsewhere do not matter
    again, state = fresh(), checkpoint.load()
    assert state is not None
    again.load_state(state)
    while not again.over:
        again.take_step()
    assert unlike(search.state(), again.state()) == []
    return search


def unlike(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the paths at which two states differ in a bit."""
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [path]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f"{path}: {list(one)} and {list(other)}"]
        return [where for key in one for where in unlike(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple):
        pairs = zip(one, other, strict=True)
        return [where for n, (a, b) in enumerate(pairs) for where in unlike(a, b, f"{path}.{n}")]
    return [] if one == other else [f"{path}: {one} and {other}"]


def plain_recipe(**changes: object) -> Recipe:
    """Return a recipe with SGD of rate 1 on the logits, unclipped: their change in a step is minus the gradient."""
    settings = {
        "logits.name": "sgd",
        "logits.lr": 1.0,
        "logits.lr_end": 1.0,
        "logits.momentum": 0.0,
        "logits.clip_norm": 1e9,
        "penalty.mode": "dual",
        "penalty.warm_up": 0.0,
        "penalty.damping": 0.0,
        "logits_warm_up": 0.0,
        "batch_size": 8,
    }
    return read_recipe("snas-short", {**settings, **changes})
