"""SNAS: stochastic neural architecture search (Xie et al., ICLR 2019).

Every edge's one-hot variable Z[e] is relaxed to a sample of the concrete distribution,

    Z[e, k] = softmax_k((log_alpha[e, k] + G[e, k]) / temperature),   G = -log(-log U),

with one sample a batch, shared by all cells of a kind. Weights and log_alpha learn from one backward pass of

    E[L(Z)] + lambda * E[C(Z)],   E[C] = base + sum p[e, k] * c[e, k],   p = softmax(log_alpha),

so the cost term is the exact expectation (the paper's C is linear in Z), not a sample. The temperature is annealed to
almost zero, so that the child, the most likely operation of every edge, keeps the supernet's accuracy. All edges stay
and may become ``none``.

Differences from the paper: with several budgets, each has logits of its own, which are trained in turn over shared
weights. lambda is found by damped dual ascent on latency or the other metrics that the budget limits, unless the recipe
asks for the paper's own penalty (hwnas.search.resources) or fixes lambda. The published code monitored the search with
the test images; here they are not read.
"""

from __future__ import annotations

import torch
from pydantic.dataclasses import dataclass

from hwnas.search.axes import BatchResult, LearningStep
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw, DrawContext, EdgeLogits, gumbel_like
from hwnas.search.methods.darts import require_pathwise
from hwnas.search.target import TargetState


@register("distribution", "concrete")
class Concrete(EdgeLogits):
    """The concrete distribution (Maddison et al., Jang et al., ICLR 2017): a relaxed one-hot vector for every edge."""

    final_zeros = True

    def draw(self, context: DrawContext) -> Draw:
        return Draw(
            {
                kind: torch.softmax((values + gumbel_like(values, context)) / context.temperature, dim=-1)
                for kind, values in self.scores().items()
            }
        )


@register("learning", "same_batch")
@dataclass(frozen=True)
class SameBatch:
    """Train weights and logits with one backward pass over one batch (single level)."""

    def check(self, distribution: Distribution) -> None:
        require_pathwise(distribution)

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        loss, outcome = step.loss(target)
        step.zero_grad(target)
        step.backward(loss)
        step.step_weights()
        step.step_logits(target)
        return outcome
