"""The training of one finalist: an independent job (hwnas.jobs), which needs no file and no other finalist."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from hwnas.compute.device import CPU
from hwnas.compute.memory import enough_memory
from hwnas.compute.seeds import Purpose, seed_of
from hwnas.data import ImageData
from hwnas.files import sha256_of
from hwnas.networks.child import ChildNetwork
from hwnas.networks.near_identity import start_near_identity
from hwnas.search.plugin import require_plugin
from hwnas.spaces import Architecture, SizedSpace
from hwnas.training.batches import DivergedError
from hwnas.training.child import Trainer, Weights
from hwnas.training.evaluation import cross_entropy
from hwnas.training.recipe import Training


@dataclass(frozen=True)
class FinalistTraining:
    """Input that all finalists of a stage share: the sizes of the network, the images, and the recipe.

    ``plugin`` is the user's file that registers operations, if there is one.
    """

    sized: SizedSpace
    data: ImageData
    training: Training
    plugin: Path | None = None

    @classmethod
    def of(cls, sized: SizedSpace, data: ImageData, training: Training, plugin: Path | None) -> FinalistTraining:
        """Return the same with images that other processes can be sent: on the CPU, without those for testing."""
        data.stop_decoding()
        return cls(sized, data.on(CPU).without_test(), training, plugin)


@dataclass(frozen=True)
class FinalistResult:
    """A finalist after a training: the loss of the last epoch, loss and accuracy on validation images, the weights.

    All three numbers are NaN and there are no weights where the training diverged.
    """

    training_loss: float
    validation_loss: float
    validation_accuracy: float
    weights: Weights

    @property
    def diverged(self) -> bool:
        return math.isnan(self.validation_loss)


DIVERGED = FinalistResult(math.nan, math.nan, math.nan, {})


@dataclass(frozen=True)
class Start:
    """A finalist to train: its architecture, and the weights that an earlier round left, if there was one."""

    architecture: Architecture
    weights: Weights | None = None


def train_finalist(shared: FinalistTraining, start: Start) -> FinalistResult:
    """Train a finalist and evaluate it on the validation images; return DIVERGED where a loss is not finite.

    Random weights follow from the recipe's seed and the architecture, so a result does not depend on the other
    finalists.

    Raises HwnasError where the memory of the GPU does not suffice.
    """
    require_plugin(shared.plugin)
    seed = shared.training.seed
    torch.manual_seed(seed_of(seed, Purpose.FINALIST_WEIGHTS, int(sha256_of(start.architecture.cells)[:16], 16)))
    child = ChildNetwork(shared.sized, start.architecture, prune=True)
    if start.weights:
        child.load_state_dict(start.weights)
    else:
        start_near_identity(child)
    try:
        with enough_memory(shared.training.batch_size):
            trainer = Trainer(child, shared.data, shared.training)
            while not trainer.over:
                trainer.take_step()
    except DivergedError:
        return DIVERGED
    last = trainer.history[-1]
    network = trainer.evaluated.eval()
    loss = cross_entropy(network, trainer.data, trainer.data.validation)
    if not math.isfinite(loss):
        return DIVERGED
    return FinalistResult(last.loss, loss, last.validation_accuracy, trainer.weights())
