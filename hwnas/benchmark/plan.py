"""Plan a benchmark: one search for every method and seed, each with a folder, a manifest and a number of threads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.budgets.budget import Budget, parse_budget, preview
from hwnas.compute.device import available_cores
from hwnas.cost.build import build_metrics
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.files import read_json, sha256_of, unwritable, write_json
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.recipe import Recipe, read_recipe
from hwnas.runs.read import fit_to_data
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable, today

PLACEHOLDER = "{method}"


@dataclass(frozen=True)
class BenchmarkPlan:
    """Methods and seeds to compare, the images and network sizes to search with, and an optional budget on a device.

    ``recipe`` is the name or file of a recipe, in which ``{method}`` stands for the method. ``changes`` are passed to
    ``read_recipe``.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    data_spec: str
    sized: SizedSpace
    recipe: str
    changes: Mapping[str, Any]
    table: LatencyTable | None = None
    budget: str = ""


@dataclass(frozen=True)
class BenchmarkRun:
    """One search of a benchmark: method, seed, folder and number of processor threads."""

    method: str
    seed: int
    folder: Path
    threads: int

    @property
    def name(self) -> str:
        return f"{self.method}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return (self.folder / "searched.json").exists()


@dataclass(frozen=True)
class PreparedBenchmark:
    """All runs of a benchmark, and a mask [N] of the cells within the budget in the order of ``every_choice``."""

    runs: list[BenchmarkRun]
    budget: Budget
    within: NDArray[np.bool_]


def prepare_runs(plan: BenchmarkPlan, folder: Path, jobs: int, progress: Progress) -> PreparedBenchmark:
    """Write the manifest of every search, or check that it matches the one already in its folder.

    Raises HwnasError for any input that does not fit, and for a folder that holds a different search.
    """
    recipes = read_recipes(plan)
    data = load_data(plan.data_spec, progress)
    sized = fit_to_data(plan.sized, data)
    budget, within = cells_within_budget(plan, sized)
    machine = ask(parse_device("cpu")).device.model_dump(mode="json")
    runs = []
    for (method, seed), recipe in recipes.items():
        settings = {
            "space": sized.space.name,
            "setting": asdict(sized.setting),
            "data": plan.data_spec,
            "data_fingerprint": data.fingerprint,
            "table": plan.table.sha256 if plan.table else None,
            "budget": {"text": budget.text, "limits": dict(budget.limits)},
            "recipe": recipe.model_dump(mode="json"),
        }
        run_folder = folder / method / f"seed{seed}"
        threads = _write_manifest(run_folder, settings, plan.table, max(1, available_cores() // jobs), machine)
        runs.append(BenchmarkRun(method, seed, run_folder, threads))
    return PreparedBenchmark(runs, budget, within)


def cells_within_budget(plan: BenchmarkPlan, sized: SizedSpace) -> tuple[Budget, NDArray[np.bool_]]:
    """Return the plan's budget and a mask [N] of the cells within it; without a budget all cells are."""
    if not plan.table:
        return Budget("none", {}), np.ones(NASBENCH201.num_architectures, dtype=bool)
    previews = preview(build_metrics(plan.table, sized))
    budget = parse_budget(plan.budget, previews)
    return budget, np.logical_and.reduce([previews[metric].costs <= bound for metric, bound in budget.limits.items()])


def read_recipes(plan: BenchmarkPlan) -> dict[tuple[str, int], Recipe]:
    """Read the recipe of every method and seed.

    Raises HwnasError for an invalid or repeated method or seed, and for a recipe of another method.
    """
    methods, seeds = plan.methods, plan.seeds
    if invalid := next((m for m in methods if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", m)), None):
        raise HwnasError(f"{invalid!r} is not the name of a method", "give names such as snas with --method")
    if len(set(methods)) < len(methods) or len(set(seeds)) < len(seeds):
        raise HwnasError("a method or a seed is given twice", "give each once")
    if len(methods) > 1 and PLACEHOLDER not in plan.recipe:
        raise HwnasError(f"one recipe, {plan.recipe}, for {len(methods)} methods", f"write {PLACEHOLDER} in --recipe")
    recipes = {}
    for method in methods:
        for seed in seeds:
            recipe = read_recipe(plan.recipe.replace(PLACEHOLDER, method), {**plan.changes, "seed": seed})
            if PLACEHOLDER not in plan.recipe and recipe.method != method:
                raise HwnasError(f"recipe {plan.recipe} is of method {recipe.method}, not {method}")
            recipes[method, seed] = recipe
    return recipes


def _write_manifest(
    folder: Path, settings: dict[str, Any], table: LatencyTable | None, threads: int, machine: dict[str, Any]
) -> int:
    """Write a search's manifest and table, or check an existing manifest.

    Returns the number of threads, which a resumed search keeps.
    """
    digest, manifest = sha256_of(settings), folder / "manifest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if manifest.exists():
        started = read_json(manifest, f"remove folder {folder}")
        if started.get("digest") != digest:
            raise HwnasError(
                f"{folder} holds a search with other settings, data, table or budget", "give another folder with --out"
            )
        return int(started["threads"])
    if table:
        write_table(folder / "table.json", table)
    content = {"settings": settings, "digest": digest, "threads": threads, "machine": machine}
    write_json(manifest, {**content, "hwnas": __version__, "started": today()})
    return threads
