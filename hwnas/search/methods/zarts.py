"""ZARTS: zero-order search of the logits (Wang et al., NeurIPS 2022), by maximum-likelihood guided parameter search.

The loss of logits is that of their weights, L(alpha) = L_val(w(alpha), alpha), and no gradient through w(alpha) is
taken. Updates delta[i] of all logits are drawn around the first-order step and, with probability ``undirected``, around
none; copies of the weights are fine-tuned at alpha + delta[i] for ``steps`` steps and evaluated:

    delta[i] ~ q = (1 - undirected) N(-g, sigma^2) + undirected N(0, sigma^2),   g = dL_val(w, alpha)/dalpha
    alpha <- alpha + sum over i of c[i] delta[i],   c[i] = p[i] / q(delta[i]), scaled to sum to 1
    p[i] = exp(-(L(alpha + delta[i]) - L(alpha)) / temperature)

The sum is the mean of delta under p by importance sampling: alpha moves to where the loss is low. L(alpha) and the
normal distributions' constant cancel in c. Budgets' penalties are part of L and of g. sigma falls from ``sigma`` to
``sigma_end`` by a cosine. With few samples of many logits the ratios c differ widely, mostly because q does: one update
often has nearly all of the weight. The recipes' optimiser of the logits is plain SGD of rate 1, which adds the sum as
it is.

Cost: the logits take a step at every ``every``-th step of the weights, for ``samples`` * (``steps`` steps of the
weights + one forward pass) + one gradient of the logits. With 4 samples, 10 steps and every 10th, a search takes about
5 times as long as training the weights alone and 2.5 times as long as first-order DARTS. Copies are made one after the
other: memory is that of DARTS and one copy of the weights.

Differences from the released code: it adds a sample around -g and one around 0, where q is a mixture of the two; it
multiplies by sigma^2 in the density of the second, where that divides; it adds 1e-4 to q, which is far larger than q
in 30 dimensions, so that q has no effect; its optimiser steps the weights themselves, not the copies; and the copies
learn from the images on which they are evaluated. Here they learn from the batches of the weights' next steps, the
same for all copies, and weights, optimiser and running statistics of batch norms are restored to the bit. The end of
sigma is not published.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from pydantic import Field, FiniteFloat
from pydantic.dataclasses import dataclass
from torch import Tensor

from hwnas.compute.device import to_device
from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, EdgeLogits
from hwnas.search.methods.darts import require_pathwise
from hwnas.search.target import TargetState


@register("learning", "zero_order")
@dataclass(frozen=True)
class ZeroOrder:
    """Try ``samples`` updates of the logits on fine-tuned copies of the weights, and take their weighted mean."""

    compares_close_weights: ClassVar[bool] = True
    samples: int = Field(default=4, ge=2)
    steps: int = Field(default=10, ge=1)
    every: int = Field(default=10, ge=1)
    sigma: FiniteFloat = Field(default=0.025, gt=0)
    sigma_end: FiniteFloat = Field(default=0.001, gt=0)
    temperature: FiniteFloat = Field(default=0.01, gt=0)
    undirected: FiniteFloat = Field(default=1e-3, ge=0, lt=1)

    def check(self, distribution: Distribution) -> None:
        require_pathwise(distribution)
        if not isinstance(distribution, EdgeLogits):
            raise HwnasError("learning zero_order needs a logit for every operation", "use distribution: softmax")

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        if step.logits_trainable and not target.stopped and step.turn % self.every == 0:
            self._logits_step(step, target)
        return step.weights_step(target)

    def _logits_step(self, step: LearningStep, target: TargetState) -> None:
        step.zero_grad(target)
        context = step.draw_context(Purpose.LOGITS_UPDATES)
        sigma = self.sigma_end + (self.sigma - self.sigma_end) * (1 + math.cos(math.pi * context.progress)) / 2
        searched = in_the_search(target)
        slope = flat(step.gradients(total_loss(step, target), target.parameters)) * searched
        updates, losses = [], []
        for _ in range(self.samples):
            centre = -slope if float(torch.rand((), generator=context.generator)) >= self.undirected else 0.0
            noise = to_device(torch.randn(slope.shape, generator=context.generator).to(slope.dtype), slope.device)
            updates.append((centre + sigma * noise) * searched)
            losses.append(self._loss(step, target, updates[-1]))
        deltas = torch.stack(updates)
        weights = coefficients(deltas, slope, torch.stack(losses), sigma, self.temperature, self.undirected)
        for parameter, change in zip(target.parameters, shaped(weights @ deltas, target.parameters), strict=True):
            parameter.grad = -change
        step.step_logits(target)

    def _loss(self, step: LearningStep, target: TargetState, update: Tensor) -> Tensor:
        """Return the loss of the logits after ``update``, float64 on their device, with fine-tuned weights."""
        with step.supernet.restored(), moved(target.parameters, update):
            for ahead in range(self.steps):
                step.weights_step(target, ahead)
            with torch.no_grad():
                return to_device(total_loss(step, target).double(), update.device)


def total_loss(step: LearningStep, target: TargetState) -> Tensor:
    task, penalty = step.logits_loss(target)
    return task + penalty


def coefficients(
    deltas: Tensor, slope: Tensor, losses: Tensor, sigma: float, temperature: float, undirected: float
) -> Tensor:
    """Return c [N], which sums to 1, for updates [N, D] and the loss [N] of each; computed from logarithms."""
    squares = torch.stack([(deltas + slope).double().square().sum(dim=1), deltas.double().square().sum(dim=1)])
    directed, free = (math.log(share) if share else -math.inf for share in (1 - undirected, undirected))
    log_q = torch.logaddexp(directed - squares[0] / (2 * sigma**2), free - squares[1] / (2 * sigma**2))
    return torch.softmax(-losses / temperature - log_q, dim=0).to(deltas)


def in_the_search(target: TargetState) -> Tensor:
    """Return a mask over the concatenated parameters, 0 for logits of operations that are out of the search."""
    allowed = {id(logits): target.distribution.allowed(kind) for kind, logits in target.logits.items()}
    return flat([allowed.get(id(p), torch.ones_like(p)).to(p) for p in target.parameters])


@contextmanager
def moved(parameters: Sequence[Tensor], update: Tensor) -> Iterator[None]:
    """Add an update to parameters inside the body, and restore them to the bit."""
    before = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        for parameter, change in zip(parameters, shaped(update, parameters), strict=True):
            parameter += change
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def shaped(values: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Divide a vector into tensors of the shapes of ``like``."""
    parts = values.split([tensor.numel() for tensor in like])
    return [part.view_as(tensor) for part, tensor in zip(parts, like, strict=True)]
