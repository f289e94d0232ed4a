"""Train the networks of a finished search: further, or from scratch as the papers do, also at other sizes.

A search whose target network is larger than its search network leaves that untrained; a training replaces it, and the
trained network claims the budget.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwnas.compute.device import choose_device
from hwnas.compute.memory import enough_memory
from hwnas.compute.precision import choose_precision
from hwnas.compute.seeds import Purpose, seed_of
from hwnas.data import ImageData, load_data
from hwnas.errors import HwnasError
from hwnas.files import sha256_of, sha256_of_file
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.runs.derived import DerivedNetwork, SavedNetwork
from hwnas.runs.folder import WEIGHTS
from hwnas.runs.pretrained import PRETRAINED, start_from, write_pretrained
from hwnas.runs.read import fit_to_data, read_networks
from hwnas.runs.schema import NetworkRow, TrainingResult
from hwnas.runs.sizes import describe_images, describe_sizes
from hwnas.runs.teacher import load_teacher
from hwnas.runs.time_trained import time_trained
from hwnas.runs.write import update_summary, write_network
from hwnas.spaces import SizedSpace
from hwnas.training.child import HISTORY, Trained, best_of, train_child
from hwnas.training.distillation import Teacher
from hwnas.training.evaluation import accuracy, quality_of
from hwnas.training.processes import Processes, leave_group, process_group
from hwnas.training.quality import Quality
from hwnas.training.recipe import AS_SEARCHED, Training
from hwnas.training.training_row import TrainingRow


@dataclass(frozen=True)
class _Job:
    """A training by ``recipe``: the saved network, and the network that the training writes."""

    saved: SavedNetwork
    new: DerivedNetwork
    recipe: Training

    @property
    def no_claim(self) -> str:
        """The reason why the new network claims no budget; empty where it does."""
        if self.new.claims_budget:
            return ""
        size = describe_sizes(self.new.sized.setting)
        return f"{size} is not the target network's size, and the run's tables predict no other: no budget is claimed"


@dataclass(frozen=True)
class _TrainedNetwork:
    """A trained network, its validation quality before training, the folder of its checkpoint and its teacher."""

    child: ChildNetwork
    trained: Trained
    before: Quality
    checkpoint: Path
    teacher: Teacher | None


def train_run(folder: Path, name: str, recipe: Training, data_spec: str | None, progress: Progress) -> list[NetworkRow]:
    """Train the network of every target by the recipe called ``name``, and write its files; return one row for each.

    A network of the target network's sizes replaces the old one; in a run of two networks it is also timed, where its
    devices are this machine. A network of other sizes claims no budget, because the run's tables cannot predict it, and
    gets its own folder in that of the target. An untrained network starts from scratch. Raises HwnasError when the
    recipe starts from weights and these are of other sizes, when the images do not fit an untrained network, when the
    recipe's pretrained weights fit no layer, and when its teacher does not fit the images.

    Several processes (hwnas.training.processes) train each network together; only rank 0 writes files and returns rows.
    """
    processes = process_group()
    if not recipe.epochs:
        raise HwnasError(f"recipe {name} trains for no epoch", "give --epochs")
    device = choose_device(recipe.compute)
    precision, reason = choose_precision(recipe.precision, device)
    recipe = recipe.model_copy(update={"precision": precision, **({"start": "scratch"} if recipe.weights else {})})
    networks = read_networks(folder)
    with processes.rank_zero_first():  # rank 0 downloads the images, where that is needed
        data = load_data(data_spec or _known_data(networks), progress)
    jobs = [_plan(network, name, recipe, data) for network in networks]
    progress.log(f"recipe {name}: {recipe.epochs} epochs in {precision} ({reason})")
    _warn(jobs, recipe, data, progress)
    with enough_memory(recipe.batch_size):
        moved = data.on(device)
        teacher = _load_teacher(recipe, moved, progress, processes)
        results = [_train(job, moved, progress, processes, teacher) for job in jobs]
    if not processes.is_rank_zero:
        return []
    if not processes.is_single:
        leave_group()
    # Files are written after all trainings, so that a resumed call trains no network twice. Networks are exported, and
    # evaluated as exported, on the processor.
    rows = [_write(job, result, name, data) for job, result in zip(jobs, results, strict=True)]
    update_summary(networks[0].run, [row for row in rows if not row.no_claim and not row.pruning], progress.log)
    proxies = [job.new.folder for job in jobs if job.saved.content.proxy and job.new.claims_budget]
    return time_trained(rows, proxies, progress)


def _known_data(networks: Sequence[SavedNetwork]) -> str:
    """Return the images of the networks. Raises HwnasError where the search was given none that fit."""
    if spec := next((network.content.data for network in networks if network.content.data), None):
        return spec
    raise HwnasError(
        f"no images are known for the target network: it takes {describe_images(networks[0].sized.setting)}",
        "give some with --data",
    )


def _plan(network: SavedNetwork, name: str, recipe: Training, data: ImageData) -> _Job:
    """Return the training of a saved network by a recipe. Raises HwnasError when its weights or images do not fit."""
    asked = network.sized
    if recipe.setting != AS_SEARCHED:
        asked = SizedSpace.named(asked.space, recipe.setting)
    changes = {key: value for key in ("channels", "depth") if (value := getattr(recipe, key)) is not None}
    asked = asked.resized(**changes)
    sized = fit_to_data(asked, data)
    same_sizes = sized == network.sized
    if network.pruning and not same_sizes:
        raise HwnasError(
            f"the network in {network.folder} is pruned: its widths are of {describe_sizes(network.sized.setting)}",
            f"keep its sizes with --setting {AS_SEARCHED} and images that fit, or train the network that it comes from",
        )
    if not network.trained:
        if asked == network.sized and not same_sizes:
            raise HwnasError(
                f"the images of {data.name} are {describe_images(sized.setting)}, "
                f"the target network takes {describe_images(asked.setting)}",
                "give images that fit with --data",
            )
        recipe = recipe.model_copy(update={"start": "scratch"})
    if recipe.start == "weights" and not same_sizes:
        raise HwnasError(
            f"the weights in {network.folder} are of {describe_sizes(network.sized.setting)}; "
            f"the network to train is of {describe_sizes(sized.setting)}",
            f"add --from-scratch, or keep the data of the search and its sizes with --setting {AS_SEARCHED}",
        )
    folder = network.folder
    if not same_sizes:
        searched = network.folder if network.claims_budget else network.folder.parent
        folder = searched / f"{Path(name).stem}-{sized.setting.channels}x{sized.setting.depth}"
    new = DerivedNetwork(
        network.id,
        folder,
        network.table_files,
        network.tables,
        sized,
        network.architecture,
        network.budget,
        claims_budget=network.claims_budget and same_sizes,
        pruning=network.pruning,
    )
    return _Job(network, new, recipe)


def _warn(jobs: Sequence[_Job], recipe: Training, data: ImageData, progress: Progress) -> None:
    """Log an average of weights that is too slow for the number of steps, networks that start from scratch although
    the recipe starts from weights, and networks that claim no budget.
    """
    steps = recipe.epochs * data.steps_per_epoch(recipe.batch_size)
    if recipe.ema is not None and steps * (1 - recipe.ema) < 1:
        progress.log(
            f"the average of the weights looks back over some {1 / (1 - recipe.ema):,.0f} steps, "
            f"but there are {steps:,}: it stays close to the first weights"
        )
    for job in jobs:
        if job.recipe.start != recipe.start:
            progress.log(f"{job.saved.budget.text}: the network is untrained, so it starts from scratch")
        if job.no_claim:
            progress.log(f"{job.saved.budget.text}: {job.no_claim}")


def _load_teacher(recipe: Training, data: ImageData, progress: Progress, processes: Processes) -> Teacher | None:
    """Return the recipe's teacher, if it has one, and log its accuracy."""
    settings = recipe.distillation
    if settings is None:
        return None
    teacher = load_teacher(settings.teacher, data)
    share = accuracy(teacher.scores, data, data.validation, processes=processes)
    progress.log(
        f"teacher {teacher.name}: validation {share:.1%}; its scores at temperature {settings.temperature:g} have "
        f"weight {settings.weight:g} in the loss"
    )
    return teacher


def _train(
    job: _Job, data: ImageData, progress: Progress, processes: Processes, teacher: Teacher | None
) -> _TrainedNetwork:
    saved, new, recipe = job.saved, job.new, job.recipe
    pretrained = None
    if recipe.start == "weights":
        child, start = saved.child(), sha256_of_file(saved.weights)
    else:
        start = f"scratch-{sha256_of(new.pruning.layers)}" if new.pruning else "scratch"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(recipe.seed, Purpose.CHILD_WEIGHTS))
            child = new.build()
    if recipe.weights:
        pretrained = start_from(child, Path(recipe.weights))
        start = pretrained.sha256
        progress.log(f"{saved.budget.text}: {pretrained.describe()}")
    before = quality_of(child.eval().to(data.device), data, data.validation, processes=processes)
    # The checkpoint is in its own folder, apart from that of the search, and named by what the training starts from.
    checkpoint = new.folder / f"training-{start[:12]}"
    budget = saved.budget.text
    if pretrained and processes.is_rank_zero:
        write_pretrained(pretrained, checkpoint)

    def on_epoch(row: TrainingRow) -> None:
        progress.log(f"{budget} {row.describe()}")

    def on_progress(stage: str, done: int, total: int) -> None:
        progress(f"training {budget}", done, total)

    trained = train_child(child, data, recipe, checkpoint, start, on_progress, on_epoch, processes, teacher)
    return _TrainedNetwork(child, trained, before, checkpoint, teacher)


def _write(job: _Job, result: _TrainedNetwork, name: str, data: ImageData) -> NetworkRow:
    """Write a trained network into its folder and remove its checkpoint."""
    trained, new, recipe = result.trained, job.new, job.recipe
    epochs_before = job.saved.content.child_epochs if recipe.start == "weights" else 0
    training = TrainingResult(
        recipe=name,
        settings=recipe.model_dump(mode="json"),
        epochs=len(trained.history),
        exported=recipe.keep,
        best_epoch=best_of(trained.history).epoch,
        stopped=trained.stopped,
        **({"teacher_sha256": result.teacher.fingerprint} if result.teacher else {}),
    )
    fields: dict[str, Any] = {
        **result.before.fields("validation_", "_before_training"),
        **trained.row(recipe.keep).quality.fields("validation_"),
        "child_epochs": len(trained.history) + epochs_before,
        "training": training,
    }
    if job.saved.content.proxy and new.claims_budget:
        fields |= {"trained": True, "proxy": job.saved.content.proxy}
    weights = {file: trained.weights[name] for name, file in WEIGHTS.items()}
    (result.checkpoint / HISTORY).replace(new.folder / HISTORY)  # replaces the history of the old network
    if recipe.weights:
        (result.checkpoint / PRETRAINED).replace(new.folder / PRETRAINED)
    elif recipe.start == "scratch":
        (new.folder / PRETRAINED).unlink(missing_ok=True)
    row = write_network(result.child, new, new.costs(), data, fields, weights)
    shutil.rmtree(result.checkpoint)
    return row.model_copy(update={"no_claim": job.no_claim}) if job.no_claim else row
