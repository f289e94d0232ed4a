"""A whole search, from table, data and budgets to ONNX networks that keep their budgets, in one folder.

DIR/manifest.json        settings, seeds, versions, hashes of everything used
DIR/table.json           the latency table (of several: DIR/tables/NAME.json)
DIR/metrics.jsonl        a line an epoch and target
DIR/checkpoint.pt        the search's state
DIR/summary.json         the closing table
DIR/<budget>/            architecture.json, network.onnx, cells/*.onnx, weights.safetensors, train.pt, verification.json
                         (with several tables: DIR/<name>_<budget>/)
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from hwnas import __version__
from hwnas.cost.budget import Budget, Preview, format_amount, parse_budget, preview, share_within
from hwnas.cost.closed_loop import Attempt, Candidate, Propose, best_of, close_loop
from hwnas.cost.derive import derive_best, scores
from hwnas.cost.interval import error_scales
from hwnas.cost.metrics import build_metrics
from hwnas.cost.model import ENUMERABLE, encode
from hwnas.cost.networks import network_key
from hwnas.cost.peak import PeakModel
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.export.network import export_network
from hwnas.export.verify import Measured, require_its_device, spec_of, time_networks
from hwnas.files import read_json, sha256_of, unwritable, write_json
from hwnas.finished import Derived, fit_setting, verify_run, write_child
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.recipe import Recipe
from hwnas.search.loop import Goal, Search, Target, run_search
from hwnas.spaces import Architecture, SearchSpace, Setting
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable, today
from hwnas.training.child import accuracy, recalibrate, train_child


@dataclass(frozen=True)
class Question:
    """What a user asks for: a space at some size, devices' tables by name, images, budgets, and how to search.

    Every budget is asked of every device.
    """

    space: SearchSpace
    setting: Setting
    tables: Mapping[str, LatencyTable]
    data_spec: str
    budgets: list[str]
    recipe: Recipe
    verify: bool


def answer(question: Question, folder: Path, progress: Progress) -> list[dict[str, Any]]:
    """Search, derive, train, export and, on request, time again; returns the rows of ``summary.json``.

    Raises HwnasError for any input that does not fit, before anything is trained; an interrupted call goes on when it
    is made again.
    """
    space = question.space
    if question.verify:
        for table in question.tables.values():
            require_its_device(table)
    data = load_data(question.data_spec, progress)
    setting = fit_setting(question.setting, data)
    goals, lines = [], []
    for device, table in question.tables.items():
        costs = build_metrics(table, space, setting)
        previews = preview(costs)
        budgets = [parse_budget(text, previews) for text in question.budgets]
        if len({budget.name for budget in budgets}) != len(budgets):
            raise HwnasError("two budgets are the same", "give each --budget once")
        goals += [Goal(device, budget, costs) for budget in budgets]
        of = f"{device}, " if len(question.tables) > 1 else ""
        lines += [of + describe_budget(budget, previews) for budget in budgets]
    digest = _write_manifest(question, setting, data, folder)
    for line in lines:
        progress.say(line)

    torch.manual_seed(question.recipe.seed)
    search = Search(space, setting, goals, data, question.recipe)
    many = len(question.tables) > 1
    run_search(search, folder, digest, progress, lambda row: progress.say(epoch_line(row, many)))

    rows = []
    for target in search.targets:
        rows.append(_finish(question, search, target, setting, data, folder, progress))
    summary = folder / "summary.json"
    write_json(summary, {"targets": rows, "finished": today(), "tables": _hashes(question)})
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


def epoch_line(row: dict[str, Any], with_device: bool = False) -> str:
    over = ", ".join(f"E[{m}]/B {v:.3f}" for m, v in row["expected_over_budget"].items()) or "no limit in the loss"
    multipliers = ", ".join(f"{v:.3f}" for v in row["lambda"].values()) or "-"
    device = f"{row['device']} " * with_device
    if "resource_penalty" in row:
        multipliers = f"none, resource penalty {row['resource_penalty']:.4g}"
    return (
        f"epoch {row['epoch']:>3} {device}{row['budget']:<12} loss {row['train_loss']:.3f}  "
        f"validation {row['validation_accuracy']:.1%}  {over}  lambda {multipliers}  entropy {row['entropy']:.2f}"
    )


def _write_manifest(question: Question, setting: Setting, data: ImageData, folder: Path) -> str:
    """Write what the run is made from, or check that the folder holds this very run; returns its digest."""
    asked = {
        "space": question.space.name,
        "setting": asdict(setting),
        "tables": _hashes(question),
        "data": question.data_spec,
        "data_fingerprint": data.fingerprint,
        "budgets": question.budgets,
        "recipe": question.recipe.model_dump(mode="json"),
        "verify": question.verify,
    }
    digest = sha256_of(asked)
    manifest = folder / "manifest.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    if manifest.exists():
        if read_json(manifest, f"remove folder {folder}").get("digest") != digest:
            raise HwnasError(
                f"{folder} holds a run with other settings, data, table or budgets", "give another folder with --out"
            )
        return digest
    packages = ("torch", "torchvision", "onnx", "onnxruntime", "numpy", "scipy", "pillow", "scikit-learn")
    versions = {"hwnas": __version__, "python": platform.python_version(), **{p: version(p) for p in packages}}
    write_json(manifest, {**asked, "digest": digest, "versions": versions, "started": today()})
    for device, table in question.tables.items():
        write_table(folder / _table_file(question, device), table)
    return digest


def _hashes(question: Question) -> dict[str, str]:
    return {device: table.sha256 for device, table in question.tables.items()}


def _table_file(question: Question, device: str) -> str:
    return "table.json" if len(question.tables) == 1 else f"tables/{device}.json"


def _finish(
    question: Question,
    search: Search,
    target: Target,
    setting: Setting,
    data: ImageData,
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Derive one target's child, train it from the supernet's weights, export it."""
    space, recipe = question.space, question.recipe
    device = target.goal.device
    place = folder / (f"{device}_" * (len(question.tables) > 1) + target.budget.name)
    architecture, attempts = _settle(question, target, setting, place, progress)
    text = space.format(architecture, all_edges=True)
    child = search.supernet.child(architecture)
    child.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recalibrate(child, data, recipe.batch_size, recipe.seed)
    before = accuracy(child, data, data.validation)
    history = train_child(child, data, recipe.child, recipe.seed, place, f"{text} after step {search.step}", progress)
    result = {
        "validation_accuracy_before_training": before,
        "validation_accuracy": history[-1].validation_accuracy if history else before,
        "child_epochs": len(history),
        "derivations": attempts,
    }
    table_file, table = _table_file(question, device), question.tables[device]
    derived = Derived(place, device, table_file, table, space, setting, architecture, target.budget)
    return write_child(child, derived, target.goal.costs, data, result)


def _settle(
    question: Question, target: Target, setting: Setting, place: Path, progress: Progress
) -> tuple[Architecture, list[dict[str, Any]]]:
    """The most probable architecture within the budget; with ``verify``, one that keeps it as timed on the device
    (hwnas.cost.closed_loop). No training is needed, for latency does not depend on the weights.
    """
    space = question.space
    kept = place / "derivations.json"
    if kept.exists():  # an interrupted run has settled this
        rows = read_json(kept, f"remove {kept}")
        return space.parse(next(row for row in rows if row["taken"])["architecture"]), rows
    budget_ms = {metric: bound for metric, bound in target.budget.limits.items() if metric == "latency_ms"}
    propose = _proposer(question, target, setting, budget_ms)
    table, key = question.tables[target.goal.device], network_key(space, setting)
    if not question.verify or not budget_ms:
        candidate = propose(budget_ms, ())
        assert candidate  # the search has derived one before it began
        attempts, taken = [Attempt(candidate, budget_ms, {})], 0
    else:

        def measure(candidate: Candidate) -> dict[str, float]:
            child = ChildNetwork(space, candidate.architecture, setting, prune=True)
            return {metric: _time_child(child, table, key, place, progress).latency_ms for metric in budget_ms}

        def tell(attempt: Attempt, following: Candidate, bounds: Mapping[str, float]) -> None:
            for metric, bound in budget_ms.items():
                timed = attempt.measured_ms[metric]
                progress.say(
                    f"budget {target.budget.text}: timed at {timed:.4g} ms, {'over' if timed > bound else 'within'} "
                    f"{bound:.4g} ms; deriving again with a bound of {bounds[metric]:.4g} ms"
                )

        step = 0.0 if space.num_architectures <= ENUMERABLE else 0.5
        attempts = close_loop(propose, measure, budget_ms, step, tell)
        taken = attempts.index(best_of(attempts, budget_ms))
    rows = [
        {
            "architecture": space.format(attempt.candidate.architecture, all_edges=True),
            "log_probability": attempt.candidate.value,
            "bound_ms": attempt.bounds_ms.get("latency_ms"),
            "predicted_ms": attempt.candidate.predicted_ms["latency_ms"],
            **({"measured_ms": attempt.measured_ms["latency_ms"]} if attempt.measured_ms else {}),
            "taken": number == taken,
        }
        for number, attempt in enumerate(attempts)
    ]
    write_json(kept, rows)
    return attempts[taken].candidate.architecture, rows


def _proposer(question: Question, target: Target, setting: Setting, budget_ms: Mapping[str, float]) -> Propose:
    """Derivation from a target's logits, within its limits but for other bounds on latency."""
    space, costs, log_probability = question.space, target.goal.costs, target.log_probability()
    limits = {metric: (costs[metric], bound) for metric, bound in target.budget.limits.items()}
    table = question.tables[target.goal.device]

    def propose(bounds: Mapping[str, float], excluded: Collection[Architecture]) -> Candidate | None:
        within = limits | {metric: (costs[metric], bound) for metric, bound in bounds.items()}
        try:
            rule = question.recipe.inputs_per_node
            architecture = derive_best(space, log_probability, within, rule, 1, excluded)[0]
        except HwnasError:
            return None
        choices = encode(space, [architecture])
        value = float(scores(space, log_probability, choices)[0])
        predicted = {"latency_ms": costs["latency_ms"].predict(architecture)}
        scales = error_scales(table, space, setting, choices)
        errors = None if scales is None else {metric: float(scales[0]) for metric in budget_ms}
        return Candidate(architecture, value, predicted, errors)

    return propose


def _time_child(child: ChildNetwork, table: LatencyTable, key: str, place: Path, progress: Progress) -> Measured:
    spec = spec_of(table)
    if not spec.made_by.takes_onnx:
        return time_networks({"child": child}, spec, table, key, progress)["child"]
    file = place / ".candidate.onnx"
    export_network(child, file, {})
    try:
        return time_networks({"child": file}, spec, table, key, progress)["child"]
    finally:
        file.unlink()
