"""The axes along which a recipe composes a method, as Protocols, and what their choices may call.

``runs`` is an Execution, ``learning`` a Learning, ``regulariser`` a Regulariser, ``selection`` a Selection;
``distribution``, whose choices are torch modules, is the abstract class hwnas.search.distribution.Distribution. The
search calls only the members that these types declare, and reads their capabilities instead of testing for a choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.budgets.derive import Limits
from hwnas.compute.seeds import Purpose
from hwnas.cost.model import Array
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.supernet import Supernet
from hwnas.recipe import Precision, Recipe
from hwnas.search.distribution import Distribution, Draw, DrawContext
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture, SearchSpace
from hwnas.training.batches import Batches
from hwnas.training.optimizers import ParameterOptimizer

Running = tuple[dict[str, Mixed], dict[int, Mixed]]  # by cell kind, and by network part where one differs from its kind


@dataclass(frozen=True)
class BatchResult:
    """Task loss and number of correctly classified images (or words) of one batch: scalars on the supernet's device.

    ``scores`` [N, classes] are those of this process's share of the images, without a gradient.
    """

    task: Tensor
    correct: Tensor
    scores: Tensor | None = None


class Execution(Protocol):
    """Axis ``runs``: which candidates the supernet computes for a draw.

    ``on_host`` (optional, by default True) says that the candidates depend on the values of the draw: distributions
    then stay on the CPU even if the supernet is on a GPU.
    """

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running: ...


class Restorable(Protocol):
    """The supernet as a learning rule may use it."""

    def restored(self) -> AbstractContextManager[None]:
        """Undo to the bit what the body does to the weights, their optimiser's state and the running statistics."""


class LearningStep(Protocol):
    """The calls available to a learning rule during one step; hwnas.search.step implements them.

    Losses are those of the whole batch; in a search of several processes their gradients are of this process's share,
    which ``gradients``, ``step_weights`` and ``step_logits`` average.
    """

    recipe: Recipe
    space: SearchSpace

    @property
    def turn(self) -> int:
        """The number of steps that this target has had before."""

    @property
    def logits_trainable(self) -> bool:
        """False during the warm-up of the logits, in which weights alone learn."""

    @property
    def damping(self) -> float:
        """The damping of the augmented Lagrangian; 0 while lambda is not being found."""

    @property
    def weights(self) -> ParameterOptimizer: ...

    @property
    def supernet(self) -> Restorable: ...

    @property
    def batches(self) -> Mapping[str, Batches]:
        """The batches of the "weights" and the "logits" images."""

    def draw_context(self, purpose: Purpose) -> DrawContext:
        """Return the random numbers of this step for ``purpose``, and the annealing state."""

    def draw(self, target: TargetState, purpose: Purpose) -> Draw:
        """Draw from the target's distribution."""

    def task_loss(self, target: TargetState, draw: Draw, subset: str, *, taught: Tensor | None = None) -> BatchResult:
        """Return the cross entropy of a draw on this step's batch of the "weights" or "logits" images.

        With ``taught``, the scores of a teacher on the batch, it is the divergence from their softmax.
        """

    def penalty(self, target: TargetState, draw: Draw) -> Tensor:
        """Return the logits' loss without the task: budgets, resources and regulariser."""

    def loss(self, target: TargetState) -> tuple[Tensor, BatchResult]:
        """Return task plus penalty on the weights' batch, and the batch's result."""

    def weights_loss(self, target: TargetState) -> BatchResult:
        """Return the task's loss on the weights' batch."""

    def logits_loss(
        self, target: TargetState, frozen: bool = True, context: DrawContext | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return task and penalty on the logits' batch; ``frozen``: no gradient of the weights will be computed.

        The draw takes the random numbers of ``context``, by default the first ones of ``Purpose.LOGITS_DRAW``.
        """

    def weights_step(self, target: TargetState, ahead: int = 0) -> BatchResult:
        """Take one step of the weights with a draw of the target's distribution.

        ``ahead``: with the batch and the draw of so many steps later, for steps that will be undone.
        """

    def backward(self, loss: Tensor) -> None: ...

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        """Return d loss / d parameter of each, averaged over processes; zeros where the loss does not depend on one."""

    def zero_grad(self, target: TargetState) -> None: ...

    def step_weights(self) -> None:
        """Take one step of the weights along the gradients they hold."""

    def step_logits(self, target: TargetState) -> None:
        """Take one step of the distribution's parameters along the gradients they hold, once the warm-up is over."""


class Learning(Protocol):
    """Axis ``learning``: one step on one batch.

    ``check(distribution)`` (optional) raises HwnasError where the rule cannot train such a distribution.
    ``compares_close_weights`` (optional) is true for a rule of losses or gradients at weights so close that bfloat16
    rounds them alike; precision ``auto`` is then float32.
    """

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        """Take one step of weights, logits or both of ``target``. Return the batch's result."""


class Regulariser(Protocol):
    """Axis ``regulariser``: a scalar that is added to the logits' loss; ``check`` as in ``Learning``.

    ``progress`` is the share gone by of the epochs in which logits learn.
    """

    def __call__(self, distribution: Any, progress: float) -> Tensor: ...


class Scorer(Protocol):
    """The calls available to a selection; hwnas.search.evaluation implements them."""

    space: SearchSpace
    recipe: Recipe

    def draw_context(self, generator: torch.Generator | None = None) -> DrawContext:
        """Return the annealing state with a selection's random numbers, or those of ``generator``."""

    def score(self, target: TargetState, architectures: Iterable[Architecture]) -> None:
        """Put the logarithm of each architecture's validation accuracy, or 1 / perplexity, into ``target.scores``."""

    def score_untrained(self, architectures: Sequence[Architecture], names: Sequence[str]) -> dict[str, Array]:
        """Return training-free scores [N] of architectures by name, at the sizes of the search network."""

    def agreed(self, choices: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the operation indices [N, edges] of rank 0, for choices that rounding could make differ."""


class Selection(Protocol):
    """Axis ``selection``: how an architecture within limits is chosen.

    ``by_probability`` (optional, by default False) says that it ranks by the distribution's log probability, which
    checkpoints then hold for ``hwnas derive``.
    """

    def best(self, scorer: Scorer, target: TargetState, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        """Yield architectures within the limits and the value of each, the best first."""

    def current_best(self, scorer: Scorer, target: TargetState) -> Architecture:
        """Return the architecture by which an unfinished search is reported."""


def required_precision(recipe: Recipe, learning: Learning) -> Precision:
    """Return the precision that a recipe asks for; float32 for ``auto`` where the rule compares close weights."""
    close = getattr(learning, "compares_close_weights", False)
    return "float32" if recipe.precision == "auto" and close else recipe.precision


def runs_on_host(execution: Execution) -> bool:
    return bool(getattr(execution, "on_host", True))


def selects_by_probability(selection: Selection) -> bool:
    return bool(getattr(selection, "by_probability", False))


def require_usable(choice: Learning | Regulariser | None, distribution: Distribution) -> None:
    """Raise HwnasError where a choice cannot be used with the distribution, as its ``check`` says."""
    if check := getattr(choice, "check", None):
        check(distribution)
