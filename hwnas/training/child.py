"""Child networks: batch-norm statistics of their own, training, accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas.data import ImageData, Split
from hwnas.files import sha256_of
from hwnas.networks.child import ChildNetwork
from hwnas.recipe import ChildTraining
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.optimizers import make_optimizer, set_learning_rate

RECALIBRATION_BATCHES = 20
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ChildEpoch:
    """What one epoch of training gave."""

    epoch: int
    loss: float
    validation_accuracy: float


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


def accuracy(network: Callable[[Tensor], Tensor], data: ImageData, split: Split, batch_size: int = 256) -> float:
    """The share of a split's images whose greatest score is their class."""
    correct = 0
    with torch.no_grad():
        for images, targets in data.batches(split, batch_size):
            scores = network(images.contiguous(memory_format=torch.channels_last))
            correct += int((scores.argmax(dim=1) == targets).sum())
    return correct / len(split)


def train_child(
    child: ChildNetwork,
    data: ImageData,
    recipe: ChildTraining,
    seed: int,
    folder: Path,
    start: str,
    progress: Progress,
) -> list[ChildEpoch]:
    """Train ``child`` in place; the test images are not read. ``start`` names what it starts from (a hash).

    Every step is checkpointed in ``folder``: the same call goes on after an interruption and ends in the same weights.
    Raises HwnasError when the checkpoint is damaged or of another run.
    """
    child.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = make_optimizer(recipe.optimizer, child.parameters())
    digest = sha256_of([recipe.model_dump(mode="json"), seed, data.fingerprint, start])
    checkpoint = Checkpoint(folder / "train.pt", digest)
    step, total_loss, history = 0, 0.0, list[ChildEpoch]()
    saved = checkpoint.load()
    if saved:
        child.load_state_dict(saved["child"])
        optimizer.load_state_dict(saved["optimizer"])
        step, total_loss = saved["step"], saved["total_loss"]
        history = [ChildEpoch(*row) for row in saved["history"]]

    def save() -> None:
        checkpoint.save(
            {
                "child": child.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": step,
                "total_loss": total_loss,
                "history": [(e.epoch, e.loss, e.validation_accuracy) for e in history],
            }
        )

    steps = data.steps_an_epoch(recipe.batch_size)
    while step < recipe.epochs * steps:
        epoch = step // steps
        set_learning_rate(optimizer, recipe.optimizer, epoch, recipe.epochs)
        child.train()
        images, targets = data.train_batch(step, recipe.batch_size, seed)
        loss = nn.functional.cross_entropy(child(images.contiguous(memory_format=torch.channels_last)), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(child.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()
        total_loss += loss.item()
        step += 1
        progress(f"training {folder.name}", step, recipe.epochs * steps)
        if step % steps == 0:
            child.eval()
            history.append(ChildEpoch(epoch + 1, total_loss / steps, accuracy(child, data, data.validation)))
            total_loss = 0.0
        if checkpoint.due() or step == recipe.epochs * steps:
            save()
    child.eval()
    return history
