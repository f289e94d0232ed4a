"""SNAS: stochastic neural architecture search (Xie et al., ICLR 2019).

Every edge's one-hot variable Z[e] is relaxed to a sample of the concrete distribution,

    Z[e, k] = softmax_k((log_alpha[e, k] + G[e, k]) / temperature),   G = -log(-log U),

one sample a batch, shared by all cells of a kind. Weights and log_alpha learn from the same backward pass of

    E[L(Z)] + lambda * E[C(Z)],   E[C] = base + sum p[e, k] * c[e, k],   p = softmax(log_alpha),

so the cost term is the exact expectation (the paper's C is linear in Z), not a sample. The temperature is annealed to
almost zero, so that the child, the most likely operation of every edge, keeps the supernet's accuracy. All edges are
kept and may become ``none``.

Where this differs: with several budgets, every budget has logits of its own and the steps take turns between them
while the supernet's weights are shared; lambda is found by damped dual ascent on latency or whatever the budget limits,
unless the recipe asks for the paper's own penalty (hwnas.search.resources) or fixes lambda; the
published code used the test images to watch the search, here they are not read.
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
    """The concrete distribution (Maddison et al., Jang et al., ICLR 2017): a relaxed one-hot vector an edge."""

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
    """Weights and logits learn from one backward pass over one batch (single level)."""

    def check(self, distribution: Distribution) -> None:
        require_pathwise(distribution)

    def learn(self, step: LearningStep, target: TargetState) -> BatchResult:
        loss, outcome = step.loss(target)
        step.zero_grad(target)
        step.backward(loss)
        step.step_weights()
        step.step_logits(target)
        return outcome
