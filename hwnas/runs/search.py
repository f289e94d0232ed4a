"""A whole search, from table, data and budgets to ONNX networks that keep their budgets, in one folder.

DIR/manifest.json        settings, seeds, versions, hashes of everything used
DIR/space.yaml           the search space, where it is the user's own file
DIR/table.json           the latency table (of several: DIR/tables/NAME.json)
DIR/metrics.jsonl        a line an epoch and target
DIR/checkpoint.pt        the search's state
DIR/profile/             steps.json and traces: where the time of some steps goes, on request
DIR/summary.json         the closing table; DIR/targets.png, DIR/search.png: pictures of it and of metrics.jsonl
DIR/<budget>/            architecture.json, network.onnx, cells/*.onnx, weights.safetensors, train.pt, training.jsonl,
                         verification.json
                         (network_int8.onnx where the table is of int8, or by hwnas export)
                         (with several tables: DIR/<name>_<budget>/, unless the budget names its devices)
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hwnas import __version__
from hwnas.budgets.budget import Budget, Preview, format_amount, parse_budget, preview, share_within
from hwnas.compute.device import CPU, choose_device, describe
from hwnas.compute.precision import choose_precision
from hwnas.cost.devices import joint_models, names_devices, table_file, targets_of
from hwnas.cost.metrics import build_metrics
from hwnas.cost.peak import PeakModel
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.export.verify import require_its_device
from hwnas.files import read_json, sha256_of, sha256_of_file, unwritable, write_json, write_text
from hwnas.networks.fast.kernels import kernels
from hwnas.progress import Progress
from hwnas.recipe import Recipe
from hwnas.runs.finished import Derived, fit_to_data, verify_run, write_child
from hwnas.runs.plots import draw_run
from hwnas.runs.select import settle
from hwnas.search.loop import Objective, Search, Target, run_search
from hwnas.spaces import SizedSpace
from hwnas.spaces.space_copy import SPACE_FILE, definition_as_json, require_same_definition
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable, today
from hwnas.training.child import accuracy, recalibrate, train_child
from hwnas.training.processes import Processes, leave_group, process_group
from hwnas.training.recipe import training_of
from hwnas.training.step_profile import StepProfile


@dataclass(frozen=True)
class SearchRequest:
    """What a user asks for: a space at some size, devices' tables by name, images, budgets, and how to search.

    Every budget is asked of every device, except those that name devices: these are one network's on all of them.
    """

    sized: SizedSpace
    tables: Mapping[str, LatencyTable]
    data_spec: str
    budgets: list[str]
    recipe: Recipe
    verify: bool
    plugin: Path | None = None


def answer(question: SearchRequest, folder: Path, progress: Progress, profile: bool = False) -> list[dict[str, Any]]:
    """Search, derive, train, export and, on request, time again; returns the rows of ``summary.json``.

    With ``profile``, DIR/profile tells where the time of some steps goes. Several processes (hwnas.training.processes)
    search together; the first alone writes, and does what follows, while the others return no rows.

    Raises HwnasError for any input that does not fit, before anything is trained; an interrupted call goes on when it
    is made again.
    """
    processes = process_group()
    if question.verify:
        for table in question.tables.values():
            require_its_device(table)
    with processes.leader_first():  # it may fetch them
        data = load_data(question.data_spec, progress)
    sized = fit_to_data(question.sized, data)
    models = {device: build_metrics(table, sized) for device, table in question.tables.items()}
    previews = {device: preview(costs) for device, costs in models.items()}
    everywhere = preview(joint_models(models)) if any(map(names_devices, question.budgets)) else {}
    goals, lines = [], []
    for devices, text in targets_of(question.tables, question.budgets):
        joint = names_devices(text)
        spreads = everywhere if joint else previews[devices[0]]
        budget = parse_budget(text, spreads)
        costs = joint_models({device: models[device] for device in devices}) if joint else models[devices[0]]
        goals.append(Objective(", ".join(devices), budget, costs))
        of = f"{devices[0]}, " if len(question.tables) > 1 and not joint else ""
        lines.append(of + describe_budget(budget, spreads))
    places = [_place(question, goal) for goal in goals]
    if again := next((place for place in places if places.count(place) > 1), None):
        raise HwnasError(f"two budgets are the same, or would share the folder {again}", "give each --budget once")
    asked = _asked(question, sized, data)
    digest, computed = sha256_of(asked), _computed(question.recipe, processes)
    if processes.leads:
        _write_manifest(question, asked, digest, computed, folder)
    for line in lines:
        progress.log(line)

    progress.log(f"{computed['on']} computes the supernet in {computed['precision']} with {computed['kernels']}")
    torch.manual_seed(question.recipe.seed)
    search = Search(sized, goals, data, question.recipe, processes, progress.log)
    many = len(question.tables) > 1
    with StepProfile(folder / "profile", progress.log, processes.leads) if profile else nullcontext() as looks:
        run_search(search, folder, digest, progress, lambda row: progress.log(row.describe(many)), looks)
    if not processes.alone:
        for target in search.targets:  # what is judged for it is judged by all
            search.choose(target)
        if not processes.leads:
            return []
        search.processes = leave_group()
    search.data.stop_decoding()

    rows = []
    for target in search.targets:
        rows.append(_finish(question, search, target, data, folder, progress))
    summary = folder / "summary.json"
    write_json(summary, {"targets": rows, "finished": today(), "tables": _hashes(question)})
    draw_run(folder)
    if question.verify:
        verify_run(folder, None, progress)
    return read_json(summary, f"remove {summary}")["targets"]


def describe_budget(budget: Budget, previews: dict[str, Preview]) -> str:
    metric = next(iter(budget.limits))
    spread = previews[metric]
    share = share_within(previews, budget)
    total = spread.model.space.num_architectures
    number = f"{round(share * total):,} of {total:,}" if spread.exact else f"about {share:.1%} of all"
    beside = [m for m in budget.limits if isinstance(previews[m].model, PeakModel)]
    note = (
        f"; {', '.join(beside)} is no sum over edges: it is not in the loss, derivation alone keeps it"
        if beside
        else ""
    )
    return (
        f"budget {budget.text}: {budget.describe()}; {number} architectures keep it "
        f"(the space: {format_amount(metric, spread.least)} to {format_amount(metric, spread.greatest)}){note}"
    )


def _asked(question: SearchRequest, sized: SizedSpace, data: ImageData) -> dict[str, Any]:
    """What the run is made from."""
    return {
        "space": sized.space.name,
        **definition_as_json(sized.space),
        "setting": asdict(sized.setting),
        "tables": _hashes(question),
        "data": question.data_spec,
        "data_fingerprint": data.fingerprint,
        "budgets": question.budgets,
        "recipe": question.recipe.model_dump(mode="json"),
        "verify": question.verify,
        **({"plugin": sha256_of_file(question.plugin)} if question.plugin else {}),
    }


def _write_manifest(
    question: SearchRequest, asked: dict[str, Any], digest: str, computed: dict[str, str], folder: Path
) -> None:
    """Write what the run is made from, or check that the folder holds this very run."""
    manifest, space = folder / "manifest.json", question.sized.space
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if manifest.exists():
        there = read_json(manifest, f"remove folder {folder}")
        require_same_definition(there, space, folder)
        if there.get("digest") != digest:
            raise HwnasError(
                f"{folder} holds a run with other settings, data, table or budgets", "give another folder with --out"
            )
        return
    packages = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "scipy", "pillow", "scikit-learn")
    versions = {"hwnas": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}}
    if space.origin and space.origin.text is not None:
        write_text(folder / SPACE_FILE, space.origin.text)
    made = {"digest": digest, "versions": versions, "started": today(), "computed": computed}
    write_json(manifest, {**asked, **made})
    for device, table in question.tables.items():
        write_table(folder / table_file(question.tables, device), table)


def _computed(recipe: Recipe, processes: Processes) -> dict[str, str]:
    """What computes the supernet, in what, and with what."""
    device = choose_device(recipe.compute)
    words = "plain torch"
    if recipe.kernels == "compiled":
        words = kernels().describe() if processes.alone else "plain torch (several processes share batch norms)"
        words = words if device == CPU else "plain torch (compiled kernels are for processors)"
    return {"on": describe(device), "precision": choose_precision(recipe.precision, device)[0], "kernels": words}


def _hashes(question: SearchRequest) -> dict[str, str]:
    return {device: table.sha256 for device, table in question.tables.items()}


def _place(question: SearchRequest, goal: Objective) -> str:
    """The folder of a goal's network in the run."""
    budget = goal.budget
    return f"{goal.device}_" * (len(question.tables) > 1 and not names_devices(budget.text)) + budget.name


def _finish(
    question: SearchRequest,
    search: Search,
    target: Target,
    data: ImageData,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Derive one target's child, train it from the supernet's weights, export it."""
    space, recipe = search.space, question.recipe
    place = folder / _place(question, target.goal)
    architecture, attempts = settle(search, target, question.tables, question.verify, place, progress)
    text = space.format(architecture, all_edges=True)
    child = search.supernet.child(architecture)
    child.to(search.device, memory_format=torch.channels_last)
    recalibrate(child, search.data, recipe.batch_size, recipe.seed)
    before = accuracy(child, search.data, search.data.validation)
    training = training_of(recipe.child, recipe.seed, recipe.compute)
    start = f"{text} after step {search.step}"
    history = train_child(child, search.data, training, place, start, progress).history
    result = {
        "validation_accuracy_before_training": before,
        "validation_accuracy": history[-1]["validation_accuracy"] if history else before,
        "child_epochs": len(history),
        "derivations": attempts,
    }
    devices = target.budget.devices or [target.goal.device]
    tables = {device: table for device, table in question.tables.items() if device in devices}
    files = {device: table_file(question.tables, device) for device in tables}
    derived = Derived(place, files, tables, search.sized, architecture, target.budget)
    return write_child(child, derived, target.goal.costs, data, result)
