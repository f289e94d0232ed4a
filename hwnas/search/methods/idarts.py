"""iDARTS: implicit hypergradients of the logits (Zhang et al., ICML 2021).

The logits alpha minimise L_val(w*(alpha), alpha), where w*(alpha) minimises the training loss. By the implicit function
theorem, with H = d2L_train/dw2,

    dL_val/dalpha = dL_val/dalpha - (d2L_train/dalpha dw) H^-1 dL_val/dw,

whose inverse is replaced by the first terms of its Neumann series, eta being the weights' learning rate:

    H^-1 v ~ eta * sum over k = 0 ... terms of (I - eta H)^k v,   v = dL_val/dw.

Products with H and with the mixed derivative are central differences of training gradients along a vector, with steps
of length 0.01 as in DARTS, so no gradient is differentiated twice. L_train contains the weight decay. With ``terms`` 0
the term is that of second-order DARTS, at the present weights in place of the unrolled ones. A step of the logits takes
one gradient of L_val and 2 (terms + 1) of L_train.

The logits take a step at every ``every``-th step of the weights (T in the paper).

Differences from the released code: it leaves the perturbation of the last difference in the weights, as noise; here
weights, their optimiser and the running statistics of batch norms are restored to the bit. Its files have 1, 4 and 5
for T; the recipes have the 1 of its only log for NAS-Bench-201.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution
from hwnas.search.methods.darts import require_pathwise
from hwnas.search.target import TargetState

LENGTH = 0.01  # step length of the finite differences


@register("learning", "implicit")
@dataclass(frozen=True)
class Implicit:
    """The gradient of the logits includes their effect on the weights' optimum, by ``terms`` + 1 terms of a series."""

    compares_close_weights: ClassVar[bool] = True
    terms: int = Field(default=2, ge=0)
    every: int = Field(default=1, ge=1)

    def check(self, distribution: Distribution) -> None:
        require_pathwise(distribution)

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if step.logits_trainable and step.turn % self.every == 0:
            step.zero_grad(target)
            with step.supernet.restored():
                self._gradients(step, target)
            step.step_logits(target)
        return step.weights_step(target)

    def _gradients(self, step: LearningStep, target: TargetState) -> None:
        weights: list[Tensor] = [p for p in step.weights.parameters if p.requires_grad]
        rate, decay = step.weights.optimizer.param_groups[0]["lr"], step.recipe.weights.weight_decay
        task, penalty = step.logits_loss(target, frozen=False)
        both = step.gradients(task + penalty, [*target.parameters, *weights])
        direct, term = both[: len(target.parameters)], both[len(target.parameters) :]
        total = [t.clone() for t in term]
        for _ in range(self.terms):
            bent = derivative_along(step, target, term, weights)
            term = [t - rate * (h + decay * t) for t, h in zip(term, bent, strict=True)]
            torch._foreach_add_(total, term)
        mixed = derivative_along(step, target, total, target.parameters)
        for parameter, d, m in zip(target.parameters, direct, mixed, strict=True):
            parameter.grad = d - rate * m


def derivative_along(
    step: LearningStep, target: TargetState, direction: Sequence[Tensor], of: Sequence[Tensor]
) -> list[Tensor]:
    """Return the derivative of dL_train / d ``of`` along a direction of the weights: a central difference."""
    weights = [p for p in step.weights.parameters if p.requires_grad]
    starts = [w.detach().clone() for w in weights]
    size = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(d) for d in direction]))
    distance = LENGTH / size.clamp_min(1e-12)
    sides = []
    for sign in (1.0, -1.0):
        with torch.no_grad():
            for w, start, d in zip(weights, starts, direction, strict=True):
                w.copy_(start + sign * distance * d)
        sides.append(step.gradients(step.weights_loss(target).task, of))
    with torch.no_grad():
        for w, start in zip(weights, starts, strict=True):
            w.copy_(start)
    return [(plus - minus) / (2 * distance).to(plus.device) for plus, minus in zip(*sides, strict=True)]
