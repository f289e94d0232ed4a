"""Training recipes: the settings with which a child network is trained, as YAML in ``configs/train``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, FiniteFloat, model_validator

from hwnas.data.images import Augment
from hwnas.recipe import ChildTraining, Compute, Hashed, Optimizer, Precision, Strict, read_settings, refuse_others

AS_SEARCHED = "as-searched"  # the setting that keeps the sizes of the run's target network


class Descent(Optimizer):
    """An optimiser with its annealing schedule, which changes the learning rate ``every`` epoch or step.

    ``cosine``: from ``lr`` to ``lr_end``. ``exponential``: ``lr`` times ``factor`` to the power of the epoch.
    ``clip_norm`` 0 clips no gradients.
    """

    lr_end: FiniteFloat = Field(default=0.0, ge=0)
    clip_norm: FiniteFloat = Field(default=5.0, ge=0)
    schedule: Literal["cosine", "exponential"] = "cosine"
    every: Literal["epoch", "step"] = "epoch"
    factor: FiniteFloat = Field(default=1.0, gt=0, le=1)

    @model_validator(mode="after")
    def _fits(self) -> Descent:
        if self.schedule == "exponential" and self.lr_end:
            raise ValueError("lr_end belongs to schedule cosine")
        if self.schedule == "cosine" and self.factor != 1:
            raise ValueError("factor belongs to schedule exponential")
        return self


class Distillation(Strict):
    """Knowledge distillation (hwnas.training.distillation).

    ``teacher`` is FILE.onnx, python:module:function or the folder of a run's network. The loss is (1 - ``weight``)
    times that of the classes plus ``weight`` times that of the teacher's scores at the ``temperature``.
    """

    teacher: str
    temperature: FiniteFloat = Field(default=4.0, gt=0)
    weight: FiniteFloat = Field(default=0.9, gt=0, le=1)


class Training(Hashed):
    """All settings of a child's training besides its architecture and the images.

    ``setting`` names the network's sizes in its space (``as-searched``: those of the run's target network);
    ``channels`` and ``depth`` override them. ``start``: from random weights or from those of the run; ``weights`` is a
    file of pretrained weights in their place (hwnas.networks.pretrained).

    ``augment`` shift-flip shifts training images by up to an eighth of their side and mirrors half of them; flip only
    mirrors them; imagenet crops, mirrors and recolours them (hwnas.data.imagenet). ``drop_path`` is the final
    probability of dropping an edge, reached linearly from 0; ``cutout`` the side of the square that is cut out of every
    image; ``auxiliary_weight`` 0 builds no auxiliary head. Words are not augmented, and ``dropout`` is for them alone
    (hwnas.networks.dropout): the share of the channels of embeddings and states that a step drops.

    ``ema`` is the decay of a moving average of the weights, which is then evaluated and exported. ``keep`` chooses the
    last weights or those of the epoch with the best validation accuracy, of text the least perplexity; ``patience`` is
    the number of epochs without improvement after which training stops.
    ``compute`` is the device (hwnas.compute.device); ``precision`` as in hwnas.compute.precision.
    """

    newer: ClassVar[tuple[str, ...]] = ("weights", "distillation", "dropout")

    setting: str = AS_SEARCHED
    channels: int | None = Field(default=None, ge=1)
    depth: int | None = Field(default=None, ge=1)
    start: Literal["scratch", "weights"] = "weights"
    weights: str | None = None
    epochs: int = Field(ge=0)
    batch_size: int = Field(ge=2)
    seed: int = Field(default=0, ge=0)
    optimizer: Descent
    augment: Augment = "shift-flip"
    cutout: int = Field(default=0, ge=0)
    label_smoothing: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    auxiliary_weight: FiniteFloat = Field(default=0.0, ge=0)
    drop_path: FiniteFloat = Field(default=0.0, ge=0, lt=1)
    dropout: FiniteFloat | None = Field(default=None, gt=0, lt=1)
    compute: Compute = "auto"
    precision: Precision = "float32"
    ema: FiniteFloat | None = Field(default=None, gt=0, lt=1)
    keep: Literal["last", "best"] = "last"
    patience: int | None = Field(default=None, ge=1)
    distillation: Distillation | None = None

    def drop_path_at(self, epoch: int) -> float:
        """Return the probability of dropping an edge in an epoch, counted from 0, as in the DARTS code."""
        return self.drop_path * epoch / self.epochs


def require_settings(recipe: Training, words: bool) -> None:
    """Raise HwnasError for settings that only the other networks have: those of ``words``, or those of images."""
    of_images = {name: getattr(recipe, name) for name in ("cutout", "auxiliary_weight", "drop_path", "distillation")}
    refuse_others(of_images, {"dropout": recipe.dropout}, words, "--recipe text")


def read_training(name: str, changes: dict[str, Any]) -> Training:
    """Read a recipe of ``configs/train``; see ``hwnas.recipe.read_settings``."""
    return read_settings(Training, "train", name, changes)


def training_of(child: ChildTraining, seed: int, compute: Compute) -> Training:
    """Return the training recipe for the children of a search."""
    optimizer = Descent.model_validate(child.optimizer.model_dump())
    return Training(epochs=child.epochs, batch_size=child.batch_size, seed=seed, compute=compute, optimizer=optimizer)
