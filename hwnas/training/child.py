"""Child networks: batch-norm statistics of their own, training, accuracy."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwnas.compute.device import CPU, choose_device, layout_on
from hwnas.compute.precision import choose_precision, computing, multiply_in
from hwnas.data import ImageData, Split
from hwnas.data.images import seed_of
from hwnas.errors import HwnasError
from hwnas.files import sha256_of, write_text
from hwnas.networks.auxiliary import auxiliary_head
from hwnas.networks.child import ChildNetwork
from hwnas.networks.drop_path import DropPath, drop_path
from hwnas.training.augment import cutout
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.optimizers import make_optimizer, set_learning_rate
from hwnas.training.processes import ALONE, Processes
from hwnas.training.recipe import Training

RECALIBRATION_BATCHES = 20
# The middle part of a seed, by what its random numbers are for; the data's own are 1 and 2, the search's 3 to 9.
PURPOSES = {"cutout": 10, "drop_path": 11, "weights": 12, "auxiliary": 13}
HISTORY = "training.jsonl"
Progress = Callable[[str, int, int], None]
Report = Callable[[dict[str, Any]], None]
Weights = dict[str, Tensor]


def recalibrate(child: nn.Module, data: ImageData, batch_size: int, seed: int) -> None:
    """Replace batch-norm statistics, which the supernet gathered over its mixture, by those of training batches."""
    norms = [m for m in child.modules() if isinstance(m, nn.BatchNorm2d)]
    momentum = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    child.train()
    with torch.no_grad():
        for step in range(min(RECALIBRATION_BATCHES, data.steps_an_epoch(batch_size))):
            images, _ = data.train_batch(step, batch_size, seed)
            child(images)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    child.eval()


def accuracy(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    split: Split,
    batch_size: int = 256,
    processes: Processes = ALONE,
) -> float:
    """The share of a split's images whose greatest score is their class; several processes divide the batches."""
    correct = torch.zeros((), dtype=torch.int64, device=data.device)
    with torch.no_grad():
        for images, targets in data.batches(split, batch_size, slice(processes.rank, None, processes.count)):
            scores = network(images.contiguous(memory_format=torch.channels_last))
            correct += (scores.argmax(dim=1) == targets).sum()
    return processes.total(int(correct)) / len(split)


@dataclass(frozen=True)
class Trained:
    """A training that is over: a row an epoch, the weights as recipes call them (last, best), why it stopped early.

    Both weights are empty after no epoch at all.
    """

    history: list[dict[str, Any]]
    weights: dict[str, Weights]
    stopped: str

    def row(self, kept: str) -> dict[str, Any]:
        """That of the epoch whose weights are called ``kept``."""
        return best_of(self.history) if kept == "best" else self.history[-1]


def best_of(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The row of the first epoch with the greatest validation accuracy."""
    return max(history, key=lambda row: row["validation_accuracy"])


class Trainer:
    """The training of one child, a step at a time; of several processes each runs its share of every batch.

    Every random number is drawn from a generator seeded by (seed, purpose, step), so a training that goes on from its
    state takes exactly the steps that an uninterrupted one takes.
    """

    def __init__(self, child: ChildNetwork, data: ImageData, recipe: Training, processes: Processes = ALONE) -> None:
        self.child, self.recipe, self.processes = child, recipe, processes
        self.device = choose_device(recipe.compute)
        self.data = data.on(self.device)
        self.batch_size = data.images_a_step(recipe.batch_size)
        processes.require(self.batch_size)
        self.precision, _ = choose_precision(recipe.precision, self.device)
        multiply_in(self.precision, self.device)
        self.layout = layout_on(self.device, child)
        if self.precision == "bfloat16" and self.device == CPU:
            # In channels_last, torch 2.13's weight gradient of dilated depthwise convolutions on the CPU holds numbers
            # that nobody wrote.
            self.layout = torch.contiguous_format
        learnt = nn.ModuleList([child])
        self.auxiliary, self.tapped = None, 0
        if recipe.auxiliary_weight:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed_of(recipe.seed, PURPOSES["auxiliary"]))
                self.auxiliary, self.tapped = auxiliary_head(child)
            learnt.append(self.auxiliary)
        processes.share_norms(learnt)
        learnt.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.learnt = list(learnt.parameters())
        self.optimizer = make_optimizer(recipe.optimizer, self.learnt)
        self.average: AveragedModel | None = None
        if recipe.ema is not None:
            self.average = AveragedModel(child, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
        self.step = 0
        self.sums: dict[str, float | Tensor] = {"loss": 0.0, "right": 0.0}
        self.history: list[dict[str, Any]] = []
        self.best: Weights = {}
        self.stopped = ""

    @property
    def steps_an_epoch(self) -> int:
        return self.data.steps_an_epoch(self.recipe.batch_size)

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * self.steps_an_epoch

    @property
    def over(self) -> bool:
        return bool(self.stopped) or self.step >= self.total_steps

    @property
    def judged(self) -> nn.Module:
        """The network that is evaluated and exported: the child, or the average of its weights."""
        return self.average.module if self.average else self.child

    def weights(self) -> Weights:
        """A copy, in the memory of the processor, of what is evaluated as it is now."""
        return {name: tensor.to(CPU, copy=True) for name, tensor in self.judged.state_dict().items()}

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self.recipe.seed, PURPOSES[purpose], self.step))

    def take_step(self) -> None:
        """One batch; at the end of an epoch its row in ``history``."""
        recipe, steps = self.recipe, self.steps_an_epoch
        epoch = self.step // steps
        descent = recipe.optimizer
        passed = self.step / steps if descent.every == "step" else epoch
        rate = set_learning_rate(self.optimizer, descent, passed, recipe.epochs)
        probability = recipe.drop_path_at(epoch)
        self.child.train()
        share = self.processes.share(self.batch_size)
        images, targets = self.data.train_batch(
            self.step, recipe.batch_size, recipe.seed, augment=recipe.augment, share=share
        )
        if recipe.cutout:
            images = cutout(images, recipe.cutout, self._generator("cutout"), self.batch_size, share)
        drop = None
        if probability:
            generator = self._generator("drop_path")
            drop = drop_path(probability, generator, self.child.num_edges, self.batch_size, share, self.device)
        with self.processes.one_batch(self.batch_size):
            loss, right = self.processes.whole(*self._forward(images, targets, drop))
        self.optimizer.zero_grad()
        loss.backward()
        self.processes.average([p.grad for p in self.learnt if p.grad is not None])
        if descent.clip_norm:
            nn.utils.clip_grad_norm_(self.learnt, descent.clip_norm)
        self.optimizer.step()
        if self.average:
            self.average.update_parameters(self.child)
        self.sums["loss"] = self.sums["loss"] + loss.detach().double()
        self.sums["right"] = self.sums["right"] + right.double() / self.batch_size
        if self.device == CPU:  # a GPU is asked when it is waited for anyway
            self._require_finite()
        self.step += 1
        if self.step % steps == 0:
            self._end_epoch(epoch, rate, probability)

    def _require_finite(self) -> None:
        if not math.isfinite(self.sums["loss"]):
            raise HwnasError(
                f"the loss became {float(self.sums['loss'])} at step {self.step}", "lower the learning rate"
            )

    def _forward(self, images: Tensor, targets: Tensor, drop: DropPath | None) -> tuple[Tensor, Tensor]:
        """The loss, auxiliary head included, and how many images the child tells right."""
        with computing(self.precision, self.device):
            values = self.child.values(images.contiguous(memory_format=self.layout), drop)
            scores = values[len(self.child.parts) - 1]
            second = self.auxiliary(values[self.tapped]) if self.auxiliary else None
        loss = self._loss(scores, targets)
        if second is not None:
            loss = loss + self.recipe.auxiliary_weight * self._loss(second, targets)
        return loss, (scores.detach().argmax(dim=1) == targets).sum()

    def _loss(self, scores: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(scores.float(), targets, label_smoothing=self.recipe.label_smoothing)

    def _end_epoch(self, epoch: int, rate: float, drop_path: float) -> None:
        self._require_finite()
        steps = self.steps_an_epoch
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": float(self.sums["loss"] / steps),
            "learning_rate": rate,
            "drop_path": drop_path,
            "train_accuracy": float(self.sums["right"] / steps),
            "validation_accuracy": accuracy(
                self.judged.eval(), self.data, self.data.validation, processes=self.processes
            ),
        }
        before = best_of(self.history) if self.history else None
        if before is None or row["validation_accuracy"] > before["validation_accuracy"]:
            self.best = self.weights()
        elif self.recipe.patience and row["epoch"] - before["epoch"] >= self.recipe.patience:
            self.stopped = (
                f"no validation accuracy above the {before['validation_accuracy']:.2%} of epoch {before['epoch']} "
                f"in {self.recipe.patience} epochs"
            )
            row["stopped"] = self.stopped
        self.history.append(row)
        self.sums = dict.fromkeys(self.sums, 0.0)

    def state(self) -> dict[str, Any]:
        self._require_finite()
        return {
            "child": self.child.state_dict(),
            "auxiliary": self.auxiliary.state_dict() if self.auxiliary else None,
            "average": self.average.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "sums": {name: float(value) for name, value in self.sums.items()},
            "history": self.history,
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
        self.step, self.sums, self.history = state["step"], state["sums"], state["history"]
        self.best, self.stopped = state["best"], state["stopped"]


def train_child(
    child: ChildNetwork,
    data: ImageData,
    recipe: Training,
    folder: Path,
    start: str,
    progress: Progress,
    report: Report = lambda row: None,
    processes: Processes = ALONE,
) -> Trained:
    """Train ``child`` in place; the test images are not read. ``start`` names what it starts from (a hash).

    In the end ``child`` is on the processor and holds the weights that the recipe keeps, last or best, averaged where
    it says so. Every step is checkpointed in ``folder``: the same call goes on after an interruption and ends in the
    same weights. Its ``training.jsonl`` gets a line an epoch, in which ``loss`` is all that is minimised, label
    smoothing and auxiliary loss included. ``report`` hears each. Of several processes the first alone reads and writes.

    Raises HwnasError when the checkpoint is damaged or of another training, or when the loss is no number.
    """
    trainer = Trainer(child, data, recipe, processes)
    sizes = asdict(child.network.setting)
    digest = sha256_of([recipe.model_dump(mode="json"), data.fingerprint, sizes, start])
    checkpoint, history, leads = Checkpoint(folder / "train.pt", digest), folder / HISTORY, processes.leads
    if saved := checkpoint.load() if leads else None:
        trainer.load_state(saved)
        write_history(history, trainer.history)
    if not processes.alone:
        trainer.load_state(processes.from_leader(trainer.state()))
    while not trainer.over:
        trainer.take_step()
        progress(f"training {folder.name}", trainer.step, trainer.total_steps)
        if trainer.step % trainer.steps_an_epoch == 0:
            if leads:
                write_history(history, trainer.history)
            report(trainer.history[-1])
        if leads and (checkpoint.due() or trainer.over):
            checkpoint.save(trainer.state())
    data.stop_decoding()
    weights = {"last": trainer.weights(), "best": trainer.best} if trainer.history else {"last": {}, "best": {}}
    if trainer.history:
        child.load_state_dict(weights[recipe.keep])
    child.to(CPU).eval()
    return Trained(trainer.history, weights, trainer.stopped)


def write_history(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
