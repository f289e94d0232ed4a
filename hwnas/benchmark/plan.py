"""Plan a benchmark: one search for every method and seed, each with a folder, a manifest and a number of threads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.benchmark.objectives import describe_targets, plan_objectives
from hwnas.benchmark.records import MANIFEST, SEARCHED, read_manifest
from hwnas.benchmark.schema import SearchManifest, SearchSettings
from hwnas.benchmark.search_job import SearchInputs
from hwnas.cost.carried_head import head_notes
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.files import sha256_of, unwritable, write_json
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.recipe import Recipe, read_recipe
from hwnas.runs.folder import table_file
from hwnas.runs.manifest_schema import SearchRecipe
from hwnas.runs.request import SearchRequest, SearchSizes
from hwnas.runs.settle import AUTO, settle
from hwnas.runs.two_networks import choose_networks
from hwnas.runtimes.device_spec import parse_device
from hwnas.search.objective import Objective
from hwnas.spaces import SizedSpace
from hwnas.tables.io import write_table
from hwnas.tables.schema import Device, LatencyTable, today
from hwnas.validation import validate

PLACEHOLDER = "{method}"
# What `auto` means in a benchmark: results are compared with those of other machines.
EVERYWHERE = {"precision": "float32", "kernels": "torch"}


@dataclass(frozen=True)
class BenchmarkPlan:
    """Methods and seeds to compare, the images to search with, and the budgets on devices, all in every search.

    ``target`` is the network that tables and budgets describe, ``search_sizes`` those of the search network that the
    user asked for. ``recipe`` is the name or file of a recipe, in which ``{method}`` stands for the method. ``changes``
    are passed to ``read_recipe``.
    """

    methods: Sequence[str]
    seeds: Sequence[int]
    data_spec: str
    target: SizedSpace
    recipe: str
    changes: Mapping[str, Any]
    tables: Mapping[str, LatencyTable] = field(default_factory=dict)
    budgets: Sequence[str] = ()
    search_sizes: SearchSizes = field(default_factory=SearchSizes)


@dataclass(frozen=True)
class BenchmarkRun:
    """One search of a benchmark: method, seed and folder.

    ``targets`` are the ids of its targets, which are also the names of their folders in ``folder``; empty for the only
    target of a search.
    """

    method: str
    seed: int
    folder: Path
    targets: tuple[str, ...] = ("",)

    @property
    def name(self) -> str:
        return f"{self.method}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        return all((self.folder / target / SEARCHED).exists() for target in self.targets)


@dataclass(frozen=True)
class PreparedBenchmark:
    """All runs of a benchmark, their inputs and objectives, and the network that the budgets are about."""

    runs: list[BenchmarkRun]
    inputs: SearchInputs
    objectives: list[Objective]
    target: SizedSpace


def prepare_runs(plan: BenchmarkPlan, folder: Path, threads: int, progress: Progress) -> PreparedBenchmark:
    """Write the manifest of every search, or check that it matches the one already in its folder.

    ``threads`` are the processor threads of a search that has not begun; one that resumes keeps its own.

    Raises HwnasError for any input that does not fit, and for a folder that holds a different search.
    """
    recipes = read_recipes(plan)
    data = load_data(plan.data_spec, progress)
    searched, target = _networks(plan, next(iter(recipes.values())), data)
    objectives, lines = plan_objectives(plan.tables, plan.budgets, target)
    for line in [*head_notes(plan.tables, target), *(lines if len(objectives) > 1 else ())]:
        progress.log(line)
    machine = ask(parse_device("cpu")).device
    about_targets = describe_targets(objectives, plan.tables)
    if target.setting != searched.setting:
        about_targets["target_setting"] = asdict(target.setting)
    runs = []
    for (method, seed), recipe in recipes.items():
        run_folder = folder / method / f"seed{seed}"
        settings = SearchSettings(
            space=searched.space.name,
            setting=asdict(searched.setting),
            data=plan.data_spec,
            data_fingerprint=data.fingerprint,
            **about_targets,
            recipe=_settled(recipe, run_folder).model_dump(mode="json"),
        )
        _write_manifest(run_folder, settings, plan.tables, threads, machine)
        runs.append(BenchmarkRun(method, seed, run_folder, tuple(o.target for o in objectives)))
    inputs = SearchInputs(data.without_test(), plan.tables, machine)
    return PreparedBenchmark(runs, inputs, objectives, target)


def _settled(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe without ``auto``: no finalists, and the numerics of the search that ``folder`` holds."""
    file, fix, begun = folder / MANIFEST, f"remove folder {folder}", None
    if file.exists():
        begun = validate(SearchRecipe, read_manifest(folder, fix).settings.recipe, file, fix)
    settled = settle(recipe, EVERYWHERE, begun)
    return settled.model_copy(update={"finalists": None}) if settled.finalists == AUTO else settled


def _networks(plan: BenchmarkPlan, recipe: Recipe, data: ImageData) -> tuple[SizedSpace, SizedSpace]:
    """Return the search network and the target network, as ``hwnas search`` chooses them."""
    budgets, sizes = list(plan.budgets), plan.search_sizes
    request = SearchRequest(plan.target, plan.tables, plan.data_spec, budgets, recipe, verify=False, search_sizes=sizes)
    networks = choose_networks(request, data, None)
    return networks.search_sized, networks.target_sized


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


def may_use_gpu(plan: BenchmarkPlan) -> bool:
    """Return whether a search computes on a GPU where there is one. Raises HwnasError as ``read_recipes`` does."""
    return any(recipe.compute != "cpu" for recipe in read_recipes(plan).values())


def _write_manifest(
    folder: Path, settings: SearchSettings, tables: Mapping[str, LatencyTable], threads: int, machine: Device
) -> None:
    """Write a search's manifest and tables, or check an existing manifest."""
    digest, file = sha256_of(settings.to_json()), folder / MANIFEST
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if file.exists():
        if read_manifest(folder, f"remove folder {folder}").digest != digest:
            raise HwnasError(
                f"{folder} holds a search with other settings, data, table or budget", "give another folder with --out"
            )
        return
    for name, table in tables.items():
        write_table(folder / table_file(tables, name), table)
    manifest = SearchManifest(
        settings=settings, digest=digest, threads=threads, machine=machine, hwnas=__version__, started=today()
    )
    write_json(file, manifest.to_json())
