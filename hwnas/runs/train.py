"""The networks of a finished search, trained: further, or from scratch as the papers do, perhaps at other sizes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hwnas.compute.device import choose_device
from hwnas.compute.precision import choose_precision
from hwnas.data import ImageData, load_data
from hwnas.data.images import seed_of
from hwnas.errors import HwnasError
from hwnas.files import sha256_of_file
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.runs.finished import WEIGHTS, Derived, Finished, fit_to_data, read_targets, update_summary, write_child
from hwnas.spaces import Setting, SizedSpace
from hwnas.training.child import HISTORY, PURPOSES, Trained, accuracy, best_of, train_child
from hwnas.training.processes import Processes, leave_group, process_group
from hwnas.training.recipe import AS_SEARCHED, Training


def train_run(
    folder: Path, name: str, recipe: Training, data_spec: str | None, progress: Progress
) -> list[dict[str, Any]]:
    """Train every target's network as the recipe called ``name`` says, and write its files; one row a target.

    A network of the sizes that were searched takes the old one's place. One of other sizes claims no budget, which the
    run's tables cannot tell, and gets a folder of its own in the target's. Raises HwnasError where the weights that are
    there are of other sizes than the recipe's.

    Several processes (hwnas.training.processes) train each network together; the first alone writes, and the others
    return no rows.
    """
    processes = process_group()
    if not recipe.epochs:
        raise HwnasError(f"recipe {name} trains for no epoch", "give --epochs")
    device = choose_device(recipe.compute)
    precision, why = choose_precision(recipe.precision, device)
    recipe = recipe.model_copy(update={"precision": precision})
    targets = read_targets(folder)
    with processes.leader_first():  # it may fetch them
        data = load_data(data_spec or targets[0].content["data"], progress)
    wanted = [_wanted(target, name, recipe, data) for target in targets]
    progress.log(f"recipe {name}: {recipe.epochs} epochs in {precision} ({why})")
    steps = recipe.epochs * data.steps_an_epoch(recipe.batch_size)
    if recipe.ema is not None and steps * (1 - recipe.ema) < 1:
        progress.log(
            f"the average of the weights looks back over some {1 / (1 - recipe.ema):,.0f} steps, "
            f"but there are {steps:,}: it stays close to the first weights"
        )
    for target, new in zip(targets, wanted, strict=True):
        if not new.claims_budget:
            progress.log(f"{target.budget.text}: {_no_claim(target, new)}")
    there = data.on(device)
    jobs = [
        (target, new, *_train(target, new, recipe, there, progress, processes))
        for target, new in zip(targets, wanted, strict=True)
    ]
    if not processes.leads:
        return []
    if not processes.alone:
        leave_group()
    rows = []
    for target, new, child, trained, before, checkpoint in jobs:  # only now: a stopped call trains nothing twice
        result = {
            "validation_accuracy_before_training": before,
            "validation_accuracy": trained.row(recipe.keep)["validation_accuracy"],
            "child_epochs": len(trained.history) + (target.content["child_epochs"] if recipe.start == "weights" else 0),
            "training": {
                "recipe": name,
                "settings": recipe.model_dump(mode="json"),
                "epochs": len(trained.history),
                "exported": recipe.keep,
                "best_epoch": best_of(trained.history)["epoch"],
                "stopped": trained.stopped,
            },
        }
        weights = {file: trained.weights[kept] for kept, file in WEIGHTS.items()}
        (checkpoint / HISTORY).replace(new.place / HISTORY)  # until now the old network's stays beside it
        row = write_child(child, new, new.cost_models(), data, result, weights)
        rows.append(row if new.claims_budget else row | {"no_claim": _no_claim(target, new)})
        shutil.rmtree(checkpoint)
    update_summary(targets[0].run, [row for row in rows if "no_claim" not in row])
    return rows


def _wanted(target: Finished, name: str, recipe: Training, data: ImageData) -> Derived:
    """The network that a recipe makes of a target."""
    named = target.sized
    if recipe.setting != AS_SEARCHED:
        named = SizedSpace.named(named.space, recipe.setting)
    changes = {key: value for key in ("channels", "depth") if (value := getattr(recipe, key)) is not None}
    sized = fit_to_data(named.resized(**changes), data)
    if recipe.start == "weights" and sized != target.sized:
        raise HwnasError(
            f"the weights in {target.place} are of {describe_sizes(target.sized.setting)}; "
            f"what is to be trained is of {describe_sizes(sized.setting)}",
            f"add --from-scratch, or keep the data of the search and its sizes with --setting {AS_SEARCHED}",
        )
    claims = target.claims_budget and sized == target.sized
    place = target.place
    if sized != target.sized:
        searched = target.place if target.claims_budget else target.place.parent
        place = searched / f"{Path(name).stem}-{sized.setting.channels}x{sized.setting.depth}"
    files, tables = target.table_files, target.tables
    return Derived(place, files, tables, sized, target.architecture, target.budget, claims_budget=claims)


def describe_sizes(setting: Setting) -> str:
    """All that tells two settings apart."""
    norm = ", batch norm behind pooling" * setting.pool_norm
    return f"{setting.describe()}, {setting.stem} stem{norm}"


def _no_claim(target: Finished, new: Derived) -> str:
    size = describe_sizes(new.sized.setting)
    return f"{size} is not the size that was searched, which alone the run's tables predict: no budget is claimed"


def _train(
    target: Finished, new: Derived, recipe: Training, data: ImageData, progress: Progress, processes: Processes
) -> tuple[ChildNetwork, Trained, float, Path]:
    """One network trained, its training, its validation accuracy before, and the folder of its checkpoint."""
    if recipe.start == "weights":
        child, start = target.child(), sha256_of_file(target.weights)
    else:
        start = "scratch"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(recipe.seed, PURPOSES["weights"]))
            child = ChildNetwork(new.sized, new.architecture, prune=True)
    before = accuracy(child.eval().to(data.device), data, data.validation, processes=processes)
    # The search's own checkpoint is not this training's: a folder of its own, named by what it starts from.
    folder = new.place / f"training-{start[:12]}"

    def report(row: dict[str, Any]) -> None:
        progress.log(training_line(target.budget.text, row))

    def told(stage: str, done: int, total: int) -> None:
        progress(f"training {target.budget.text}", done, total)

    trained = train_child(child, data, recipe, folder, start, told, report, processes)
    return child, trained, before, folder


def training_line(name: str, row: Mapping[str, Any]) -> str:
    stopped = f"; stopped: {row['stopped']}" if "stopped" in row else ""
    return (
        f"{name} epoch {row['epoch']:>3}  loss {row['loss']:.3f}  rate {row['learning_rate']:.3g}  "
        f"drop path {row['drop_path']:.3f}  training {row['train_accuracy']:.1%}  "
        f"validation {row['validation_accuracy']:.1%}{stopped}"
    )
