"""DARTS: differentiable architecture search (Liu et al., ICLR 2019), first and second order.

The mixture is p = softmax(alpha). Logits and weights each learn from one half of the training images, in turn:

    first order      alpha <- alpha - lr * d/dalpha L_val(w, alpha)
    second order     alpha <- alpha - lr * d/dalpha L_val(w', alpha),   w' = w - xi (momentum + dL_train/dw + decay w)

where xi is the weights' learning rate. The second-order term, the chain rule through w', is a finite difference of two
training gradients, (dL_train(w+)/dalpha - dL_train(w-)/dalpha) / (2 eps), w+- = w +- eps dL_val/dw',
eps = 0.01 / |dL_val/dw'|; it is subtracted with the factor xi. The step of alpha precedes that of w, as in the released
code.

In the DARTS space the derived cell keeps the two edges into every node whose likeliest operation other than ``none`` is
likeliest; within a budget, the most probable such cell. In NAS-Bench-201 every edge keeps its likeliest operation.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution
from hwnas.search.target import TargetState

LENGTH = 0.01  # step length of the finite difference, as published


@register("learning", "alternating")
@dataclass(frozen=True)
class Alternating:
    """First order: a step of the logits on their batch, then a step of the weights on theirs."""

    def check(self, distribution: Distribution) -> None:
        require_pathwise(distribution)

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if step.logits_trainable:
            step.zero_grad(target)
            task, penalty = step.logits_loss(target)
            set_gradients(step, target, task + penalty)
            step.step_logits(target)
        return step.weights_step(target)


@register("learning", "unrolled")
@dataclass(frozen=True)
class Unrolled:
    """Second order: the gradient of the logits includes their effect on a step of the weights."""

    compares_close_weights: ClassVar[bool] = True

    def check(self, distribution: Distribution) -> None:
        require_pathwise(distribution)

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if step.logits_trainable:
            step.zero_grad(target)
            self._gradients(step, target)
            step.step_logits(target)
        return step.weights_step(target)

    def _gradients(self, step: LearningStep, target: TargetState) -> None:
        weights: list[Tensor] = [p for p in step.weights.parameters if p.requires_grad]
        settings = step.recipe.weights
        originals = [w.detach().clone() for w in weights]
        rate = step.weights.optimizer.param_groups[0]["lr"]
        slopes = step.gradients(step.weights_loss(target).task, weights)
        state = step.weights.optimizer.state
        with torch.no_grad():
            for w, slope in zip(weights, slopes, strict=True):
                momentum = state[w].get("momentum_buffer") if w in state else None
                change = slope + settings.weight_decay * w
                w -= rate * (change if momentum is None else change + settings.momentum * momentum)
        task, penalty = step.logits_loss(target, frozen=False)
        both = step.gradients(task + penalty, [*target.parameters, *weights])
        direct, ahead = both[: len(target.parameters)], both[len(target.parameters) :]
        size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(a) for a in ahead]))
        distance = LENGTH / size.clamp_min(1e-12)
        sides = []
        for sign in (1.0, -1.0):
            with torch.no_grad():
                for w, start, a in zip(weights, originals, ahead, strict=True):
                    w.copy_(start + sign * distance * a)
            sides.append(step.gradients(step.weights_loss(target).task, target.parameters))
        with torch.no_grad():
            for w, start in zip(weights, originals, strict=True):
                w.copy_(start)
            for parameter, d, plus, minus in zip(target.parameters, direct, *sides, strict=True):
                parameter.grad = d - rate * (plus - minus) / (2 * distance)


def require_pathwise(distribution: Distribution) -> None:
    """Raise HwnasError where draws carry no gradient to the distribution's parameters."""
    if not distribution.pathwise:
        raise HwnasError(
            f"draws of distribution {type(distribution).__name__.lower()} carry no gradient",
            "use learning: advantage, reinforce or weights_only",
        )


def set_gradients(step: LearningStep, target: TargetState, loss: Tensor) -> None:
    """Set the gradients of the target's parameters; those of the weights are not computed."""
    for parameter, gradient in zip(target.parameters, step.gradients(loss, target.parameters), strict=True):
        parameter.grad = gradient
