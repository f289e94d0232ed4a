"""Training of child networks: one step at a time, resumable, with a history of epochs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.compute.device import CPU, layout_on
from hwnas.compute.memory import enough_memory
from hwnas.compute.precision import computing
from hwnas.compute.seeds import Purpose, seed_of, torch_generator
from hwnas.data import ImageData
from hwnas.files import sha256_of, write_text
from hwnas.networks.auxiliary import auxiliary_head
from hwnas.networks.child import ChildNetwork, Drop
from hwnas.networks.drop_path import drop_path
from hwnas.networks.dropout import Dropout
from hwnas.progress import OnProgress
from hwnas.training.augment import cutout
from hwnas.training.batches import Batches, EpochSums, set_up_numerics
from hwnas.training.checkpoint import Checkpoint, resume
from hwnas.training.distillation import Teacher, distilled
from hwnas.training.evaluation import in_layout, quality_of
from hwnas.training.moving_average import MovingAverage
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.processes import SINGLE_PROCESS, Processes
from hwnas.training.recipe import Training, require_settings
from hwnas.training.training_row import TrainingRow

HISTORY = "training.jsonl"
OnEpoch = Callable[[TrainingRow], None]
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Trained:
    """The result of a training: one row an epoch, the "last" and the "best" weights, the reason for stopping early.

    Both weights are empty after a training of no epochs.
    """

    history: list[TrainingRow]
    weights: dict[str, Weights]
    stopped: str

    def row(self, which: str) -> TrainingRow:
        """Return the row of the epoch of the "last" or the "best" weights."""
        return best_of(self.history) if which == "best" else self.history[-1]


def best_of(history: list[TrainingRow]) -> TrainingRow:
    """Return the row of the first epoch with the greatest validation accuracy, or the least perplexity."""
    return max(history, key=lambda row: row.quality.value)


class Trainer:
    """The training of one child, a step at a time; each of several processes runs its share of every batch.

    Random numbers follow from the step (hwnas.compute.seeds), so a resumed training takes exactly the steps that an
    uninterrupted one takes. A recipe with ``distillation`` needs the ``teacher``.
    """

    def __init__(
        self,
        child: ChildNetwork,
        data: ImageData,
        recipe: Training,
        processes: Processes = SINGLE_PROCESS,
        teacher: Teacher | None = None,
    ) -> None:
        assert (teacher is None) == (recipe.distillation is None)
        require_settings(recipe, child.network.setting.words)
        self.child, self.recipe, self.processes, self.teacher = child, recipe, processes, teacher
        self.device, self.precision = set_up_numerics(recipe.compute, recipe.precision)
        self.data = data.on(self.device)
        self.batches = Batches(self.data, recipe.batch_size, recipe.seed, processes, augment=recipe.augment)
        self.layout = layout_on(self.device, child)
        if self.precision == "bfloat16" and self.device == CPU:
            # In channels_last, torch 2.13's weight gradient of dilated depthwise convolutions on the CPU reads
            # uninitialised memory.
            self.layout = torch.contiguous_format
        trained = nn.ModuleList([child])
        self.auxiliary, self.tapped = None, 0
        if recipe.auxiliary_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(recipe.seed, Purpose.AUXILIARY_HEAD))
                self.auxiliary, self.tapped = auxiliary_head(child)
            trained.append(self.auxiliary)
        processes.share_norms(trained)
        trained.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.optimizer = ParameterOptimizer(recipe.optimizer, trained.parameters(), processes)
        self.average = None if recipe.ema is None else MovingAverage(child, recipe.ema)
        self.step = 0
        self.sums = EpochSums()
        self.history: list[TrainingRow] = []
        self.best: Weights = {}
        self.stopped = ""

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.batches.steps_per_epoch

    @property
    def over(self) -> bool:
        return bool(self.stopped) or self.step >= self.total_steps

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and exported: the child, or the moving average of its weights."""
        return self.average.module if self.average else self.child

    def weights(self) -> Weights:
        """Return a copy on the CPU of the current weights of ``evaluated``."""
        return {name: tensor.to(CPU, copy=True) for name, tensor in self.evaluated.state_dict().items()}

    def take_step(self) -> None:
        """Train on one batch; at the end of an epoch add its row to ``history``."""
        recipe, steps = self.recipe, self.batches.steps_per_epoch
        epoch = self.step // steps
        position = self.step / steps if recipe.optimizer.every == "step" else epoch
        rate = self.optimizer.set_learning_rate(position, recipe.epochs)
        probability = recipe.drop_path_at(epoch)
        self.child.train()
        images, targets, drop = self._batch(probability)
        with self.processes.one_batch(self.batches.count):
            loss, correct = self.processes.whole_batch(*self._forward(images, targets, drop))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.child)
        self.sums.add(loss, correct, self.batches.count * self.data.train.predictions)
        if self.device == CPU:  # on a GPU this would wait for the step
            self._require_finite()
        self.step += 1
        if self.step % steps == 0:
            self._end_epoch(epoch, rate, probability)

    def _batch(self, drop_probability: float) -> tuple[Tensor, Tensor, Drop | None]:
        """Return this step's augmented images [N, C, H, W], their classes [N], and what is dropped.

        Of text these are words [N, T], and the words after them [N * T].
        """
        recipe, total, share = self.recipe, self.batches.count, self.batches.share
        images, targets = self.batches.batch(self.step)
        if recipe.cutout:
            generator = torch_generator(recipe.seed, Purpose.CUTOUT, self.step)
            images = cutout(images, recipe.cutout, generator, total, share)
        if recipe.dropout:
            generator = torch_generator(recipe.seed, Purpose.DROPOUT, self.step)
            return images, targets, Dropout(recipe.dropout, generator, total, share)
        if not drop_probability:
            return images, targets, None
        generator = torch_generator(recipe.seed, Purpose.CHILD_DROP_PATH, self.step)
        drop = drop_path(drop_probability, generator, self.child.num_edges, total, share, self.device)
        return images, targets, drop

    def _require_finite(self) -> None:
        self.sums.require_finite(self.step, "lower the learning rate")

    def _forward(self, images: Tensor, targets: Tensor, drop: Drop | None) -> tuple[Tensor, Tensor]:
        """Return the loss, teacher and auxiliary head included, and the number of images classified correctly."""
        with computing(self.precision, self.device):
            values = self.child.values(in_layout(images, self.layout), drop)
            scores = values[len(self.child.parts) - 1]
            second = self.auxiliary(values[self.tapped]) if self.auxiliary else None
        loss = self._loss(scores, targets)
        if self.teacher and self.recipe.distillation:
            with torch.no_grad():
                taught = self.teacher.scores(images)
            loss = distilled(loss, scores, taught, self.recipe.distillation)
        if second is not None:
            loss = loss + self.recipe.auxiliary_weight * self._loss(second, targets)
        return loss, (scores.detach().argmax(dim=1) == targets).sum()

    def _loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(scores.float(), targets, label_smoothing=self.recipe.label_smoothing)

    def _end_epoch(self, epoch: int, rate: float, drop_path: float) -> None:
        self._require_finite()
        steps, network = self.batches.steps_per_epoch, self.evaluated.eval()
        found = quality_of(network, self.data, self.data.validation, processes=self.processes)
        row = TrainingRow(
            epoch=epoch + 1,
            loss=float(self.sums.loss / steps),
            learning_rate=rate,
            drop_path=drop_path,
            train_accuracy=float(self.sums.correct / steps),
            **found.fields("validation_"),
        )
        before = best_of(self.history) if self.history else None
        if before is None or row.quality.value > before.quality.value:
            self.best = self.weights()
        elif self.recipe.patience and row.epoch - before.epoch >= self.recipe.patience:
            reached = f"{before.quality.bound(2)} of epoch {before.epoch}"
            self.stopped = f"no validation {reached} in {self.recipe.patience} epochs"
            row = row.model_copy(update={"stopped": self.stopped})
        self.history.append(row)
        self.sums.reset()

    def state(self) -> dict[str, Any]:
        """Return everything a resumed training needs: tensors, numbers and texts."""
        self._require_finite()
        sums = self.sums.state()
        return {
            "child": self.child.state_dict(),
            "auxiliary": self.auxiliary.state_dict() if self.auxiliary else None,
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "sums": {"loss": sums["loss"], "right": sums["correct"]},
            "history": [row.to_json() for row in self.history],
            "best": self.best,
            "stopped": self.stopped,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.child.load_state_dict(state["child"])
        if self.auxiliary:
            self.auxiliary.load_state_dict(state["auxiliary"])
        if self.average:
            self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.history = [TrainingRow.model_validate(row) for row in state["history"]]
        count = self.step % self.batches.steps_per_epoch
        self.sums.load_state({"loss": state["sums"]["loss"], "correct": state["sums"]["right"], "count": count})
        self.best, self.stopped = state["best"], state["stopped"]


def train_child(
    child: ChildNetwork,
    data: ImageData,
    recipe: Training,
    folder: Path,
    start: str,
    on_progress: OnProgress,
    on_epoch: OnEpoch = lambda row: None,
    processes: Processes = SINGLE_PROCESS,
    teacher: Teacher | None = None,
) -> Trained:
    """Train ``child`` in place; the test images are not read. ``start`` names the weights it starts from (a hash).

    At the end ``child`` is on the CPU and holds the weights that the recipe keeps: last or best, averaged with ``ema``.
    Checkpoints in ``folder`` let the same call resume after an interruption and end in the same weights. The
    folder's ``training.jsonl`` gets a line an epoch, which ``on_epoch`` gets as well; its ``loss`` includes label
    smoothing, the ``teacher``'s and the auxiliary loss. With several processes only rank 0 reads and writes.

    Raises HwnasError where the checkpoint is damaged or of another training, the loss is not finite, or the memory of
    the GPU does not suffice.
    """
    with enough_memory(recipe.batch_size):
        trainer = Trainer(child, data, recipe, processes, teacher)
    return run_training(trainer, folder, start, on_progress, on_epoch)


def run_training(
    trainer: Trainer, folder: Path, start: str, on_progress: OnProgress, on_epoch: OnEpoch = lambda row: None
) -> Trained:
    """Take the remaining steps of a training as ``train_child`` does, whose arguments these are."""
    child, data, recipe, processes = trainer.child, trainer.data, trainer.recipe, trainer.processes
    sizes = asdict(child.network.setting)
    taught_by = [trainer.teacher.fingerprint] if trainer.teacher else []
    digest = sha256_of([recipe.model_dump(mode="json"), data.fingerprint, sizes, start, *taught_by])
    checkpoint, history, writes = Checkpoint(folder / "train.pt", digest), folder / HISTORY, processes.is_rank_zero
    if resume(trainer, checkpoint, processes):
        write_history(history, trainer.history)
    while not trainer.over:
        with enough_memory(recipe.batch_size):
            trainer.take_step()
        on_progress(f"training {folder.name}", trainer.step, trainer.total_steps)
        if trainer.step % trainer.batches.steps_per_epoch == 0:
            if writes:
                write_history(history, trainer.history)
            on_epoch(trainer.history[-1])
        if writes and (checkpoint.due() or trainer.over):
            checkpoint.save(trainer.state())
    data.stop_decoding()
    weights = {"last": trainer.weights(), "best": trainer.best} if trainer.history else {"last": {}, "best": {}}
    if trainer.history:
        child.load_state_dict(weights[recipe.keep])
    child.to(CPU).eval()
    return Trained(trainer.history, weights, trainer.stopped)


def write_history(path: Path, rows: list[TrainingRow]) -> None:
    write_text(path, "".join(json.dumps(row.to_json()) + "\n" for row in rows))
