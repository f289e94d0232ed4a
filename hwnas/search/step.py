"""One step of a search: draws, losses and gradients, as learning rules call them (hwnas.search.axes.LearningStep)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hwnas.compute.device import to_device
from hwnas.compute.seeds import Purpose
from hwnas.recipe import Recipe
from hwnas.search.axes import BatchResult, Execution, Regulariser
from hwnas.search.batches import LastBatch
from hwnas.search.distribution import Draw, DrawContext
from hwnas.search.lagrangian import penalty_of
from hwnas.search.schedule import Position, Schedule
from hwnas.search.supernet_state import SupernetState
from hwnas.search.target import TargetState
from hwnas.spaces import SearchSpace
from hwnas.training.batches import Batches
from hwnas.training.distillation import soft_loss
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.processes import Processes
from hwnas.training.step_profile import span


class Step:
    """The step at which ``position`` is, over one supernet; ``batches`` are the "weights" and the "logits" images.

    Every random number comes from a generator seeded by (seed, purpose, step). A step on a GPU is queued and not waited
    for, unless the draw decides which candidates run: then the gradients of the draw are copied to the CPU.
    """

    def __init__(
        self,
        space: SearchSpace,
        recipe: Recipe,
        schedule: Schedule,
        position: Position,
        supernet: SupernetState,
        batches: dict[str, Batches],
        runs: Execution,
        regulariser: Regulariser | None,
        processes: Processes,
    ) -> None:
        self.space, self.recipe, self.schedule, self.position = space, recipe, schedule, position
        self.supernet, self.batches = supernet, batches
        self.runs, self.regulariser, self.processes = runs, regulariser, processes
        self.last_batch = LastBatch(batches)

    @property
    def weights(self) -> ParameterOptimizer:
        return self.supernet.weights

    @property
    def epoch(self) -> int:
        return self.schedule.epoch(self.position.step)

    @property
    def turn(self) -> int:
        return self.schedule.turn(self.position.step)

    @property
    def logits_trainable(self) -> bool:
        return self.schedule.logits_trainable(self.epoch, self.position.stage)

    @property
    def damping(self) -> float:
        return self.schedule.damping(self.epoch)

    def draw_context(self, purpose: Purpose, ahead: int = 0) -> DrawContext:
        return self.schedule.draw_context(self.position.step + ahead, purpose)

    def draw(self, target: TargetState, purpose: Purpose, context: DrawContext | None = None) -> Draw:
        with span("sampling"):
            return target.distribution.draw(context or self.draw_context(purpose))

    def task_loss(
        self,
        target: TargetState,
        draw: Draw,
        subset: str,
        generator: torch.Generator | None = None,
        frozen: bool = False,
        taught: Tensor | None = None,
        ahead: int = 0,
    ) -> BatchResult:
        """Return the cross entropy of a draw on this step's batch of the "weights" or "logits" images.

        With ``taught``, scores of a teacher on this process's share, it is the divergence from their softmax.
        ``generator`` gives the random numbers of what is dropped, in the weights' batches only. ``frozen`` says that
        no gradient of the supernet's weights will be computed. ``ahead``: read the batch of so many steps later. Each
        of several processes runs its share of the batch; the value of the loss is the whole batch's, its gradient the
        share's.
        """
        batches = self.batches[subset]
        total, share = batches.count, batches.share
        with span("data"):
            images, classes = self.last_batch.read(subset, self.position.step + ahead)
            images = self.supernet.cast(images)
        with span("forward"), self.processes.one_batch(total):
            running = self.runs(self.supernet.module, target.distribution, draw)
            drop = self.supernet.drop(generator, total, share) if generator else None
            scores = self.supernet.scores(images, running, drop, frozen)
            task = nn.functional.cross_entropy(scores, classes) if taught is None else soft_loss(scores, taught)
            correct = (scores.detach().argmax(dim=1) == classes).sum()
            return BatchResult(*self.processes.whole_batch(task, correct), scores.detach())

    def penalty(self, target: TargetState, draw: Draw) -> Tensor:
        penalty = self.recipe.penalty
        with span("constraint"):
            p = target.distribution.probabilities()
            total = penalty_of(target.multipliers, target.relative_costs(p), self.damping)
            if target.resources:
                total = total + penalty.weight * target.resources(draw.mixture if penalty.costs_of == "sample" else p)
            if self.regulariser:
                total = total + self.regulariser(target.distribution, self.schedule.logits_progress(self.epoch))
            return total

    def loss(self, target: TargetState) -> tuple[Tensor, BatchResult]:
        """Return task plus penalty on the weights' batch, and the batch's result.

        Single-level learning back-propagates exactly this loss; a test compares its gradient with finite differences.
        """
        context = self.draw_context(Purpose.WEIGHTS_DRAW)
        draw = self.draw(target, Purpose.WEIGHTS_DRAW, context)
        result = self.task_loss(target, draw, "weights", context.generator)
        return result.task + _like(self.penalty(target, draw), result.task), result

    def weights_loss(self, target: TargetState) -> BatchResult:
        context = self.draw_context(Purpose.WEIGHTS_DRAW)
        draw = self.draw(target, Purpose.WEIGHTS_DRAW, context)
        return self.task_loss(target, draw, "weights", context.generator)

    def logits_loss(
        self, target: TargetState, frozen: bool = True, context: DrawContext | None = None
    ) -> tuple[Tensor, Tensor]:
        draw = self.draw(target, Purpose.LOGITS_DRAW, context)
        task = self.task_loss(target, draw, "logits", frozen=frozen).task
        return task, _like(self.penalty(target, draw), task)

    def weights_step(self, target: TargetState, ahead: int = 0) -> BatchResult:
        context = self.draw_context(Purpose.WEIGHTS_DRAW, ahead)
        with torch.no_grad():
            draw = self.draw(target, Purpose.WEIGHTS_DRAW, context)
        result = self.task_loss(target, draw, "weights", context.generator, ahead=ahead)
        self.weights.zero_grad()
        self.backward(result.task)
        self.step_weights()
        return result

    def backward(self, loss: Tensor) -> None:
        with span("backward"):
            loss.backward()

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        if not loss.requires_grad:
            return [torch.zeros_like(p) for p in parameters]
        with span("backward"):
            found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        own = [None if g is None else self.supernet.own_gradient(g) for g in found]
        return self.processes.means(
            [torch.zeros_like(p) if g is None else g for g, p in zip(own, parameters, strict=True)]
        )

    def zero_grad(self, target: TargetState) -> None:
        self.weights.zero_grad()
        target.distribution.zero_grad()

    def step_weights(self) -> None:
        self.weights.step()

    def step_logits(self, target: TargetState) -> None:
        if target.optimizer is not None and self.logits_trainable and not target.stopped:
            target.optimizer.step()


def _like(penalty: Tensor, task: Tensor) -> Tensor:
    """Return the penalty in the type and on the device of the task's loss."""
    return to_device(penalty.to(task.dtype), task.device)
