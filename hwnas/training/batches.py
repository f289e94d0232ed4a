"""Training batches, their sums over an epoch, and the numerics they are computed in: shared by search and training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.compute.device import CPU, choose_device
from hwnas.compute.memory import keep_freed_memory
from hwnas.compute.precision import choose_precision, multiply_in
from hwnas.data import ImageData
from hwnas.data.images import Augment
from hwnas.errors import HwnasError
from hwnas.recipe import Compute, Precision
from hwnas.training.processes import Processes


class DivergedError(HwnasError):
    """The error for a training or search whose loss is no longer finite."""


def set_up_numerics(compute: Compute, precision: Precision) -> tuple[torch.device, str]:
    """Return the device and the precision for what a recipe asks.

    On a CPU also let steps reuse memory, on a GPU set how it multiplies float32.
    """
    device = choose_device(compute)
    chosen, _ = choose_precision(precision, device)
    if device == CPU:
        keep_freed_memory()
    multiply_in(chosen, device)
    return device, chosen


@dataclass(frozen=True)
class Batches:
    """The training batches of one subset of the images (all by default), divided among processes.

    ``count`` is the number of images in a batch, ``share`` the slice of them that is this process's. Raises HwnasError
    where a batch has fewer images than there are processes.
    """

    data: ImageData
    batch_size: int
    seed: int
    processes: Processes
    subset: Tensor | None = None
    augment: Augment = "shift-flip"

    def __post_init__(self) -> None:
        self.processes.require(self.count)

    @property
    def images(self) -> int:
        """The number of images in the subset."""
        return len(self.data.train) if self.subset is None else len(self.subset)

    @property
    def count(self) -> int:
        return self.data.images_per_step(self.batch_size, self.subset)

    @property
    def share(self) -> slice:
        return self.processes.share(self.count)

    @property
    def steps_per_epoch(self) -> int:
        return self.data.steps_per_epoch(self.batch_size, self.subset)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this process's normalised images [N, C, H, W] and classes [N] of a step."""
        return self.data.train_batch(step, self.batch_size, self.seed, self.subset, self.augment, self.share)


class EpochSums:
    """Sums over the batches of an epoch, kept on the device so that a step on a GPU does not wait for their values."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.loss: float | Tensor = 0.0
        self.correct: float | Tensor = 0.0  # in batches: the share of correctly classified images of each, added up
        self.count: float = 0.0

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """Add one batch of ``images`` images: its mean loss and its number of correctly classified images."""
        self.loss = self.loss + loss.detach().double()
        self.correct = self.correct + correct.double() / images
        self.count += 1

    def require_finite(self, step: int, fix: str) -> None:
        """Raise DivergedError where a loss was infinite or NaN."""
        if not math.isfinite(self.loss):
            raise DivergedError(f"the loss became {float(self.loss)} at step {step}", fix)

    def state(self) -> dict[str, float]:
        return {"loss": float(self.loss), "correct": float(self.correct), "count": float(self.count)}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.loss, self.correct, self.count = state["loss"], state["correct"], state["count"]
