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

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hwnas.cost.expectation import ExpectedCost
from hwnas.spaces import SearchSpace

MOST_EXCESS = 0.1  # of E[C]/B - 1: what counts in lambda's rise, so that it does not wind up (see dual_ascent)


def initial_logits(space: SearchSpace, mean: float, std: float, generator: torch.Generator) -> dict[str, nn.Parameter]:
    """log_alpha of every cell kind, [E, K], drawn from N(mean, std)."""
    return {
        kind: nn.Parameter(mean + std * torch.randn(len(cell.edges), len(space.operations), generator=generator))
        for kind, cell in space.cells.items()
    }


def temperature_at(start: float, end: float, epoch: int, epochs: int) -> float:
    """Linear from ``start`` in the first epoch to ``end`` in the last."""
    return start if epochs == 1 else start + (end - start) * epoch / (epochs - 1)


def sample_concrete(logits: Mapping[str, Tensor], temperature: float, generator: torch.Generator) -> dict[str, Tensor]:
    """One relaxed one-hot sample [E, K] for every cell kind, differentiable in the logits."""
    samples = {}
    for kind, values in logits.items():
        uniform = torch.rand(values.shape, generator=generator).clamp_(1e-9, 1 - 1e-7)
        gumbel = -torch.log(-torch.log(uniform)).to(values)
        samples[kind] = torch.softmax((values + gumbel) / temperature, dim=-1)
    return samples


def probabilities(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {kind: torch.softmax(values, dim=-1) for kind, values in logits.items()}


def relative_costs(
    logits: Mapping[str, Tensor], costs: Mapping[str, ExpectedCost], limits: Mapping[str, float]
) -> Tensor:
    """E[C_m] / B_m for every limited metric, as one vector (of length 0 when there is none)."""
    p = probabilities(logits)
    relative = [costs[metric](p) / bound for metric, bound in limits.items()]
    return torch.stack(relative) if relative else torch.zeros(0, dtype=torch.float64)


def snas_loss(task_loss: Tensor, multipliers: Tensor, relative: Tensor, damping: float = 0.0) -> Tensor:
    """L + sum over metrics of lambda g, g = E[C] / B - 1; with damping k the augmented Lagrangian's
    (max(0, lambda + k g)^2 - lambda^2) / (2 k), whose gradient is max(0, lambda + k g) dg.
    """
    excess, weights = relative - 1, multipliers.to(relative)
    if damping:
        penalty = (torch.clamp(weights + damping * excess, min=0) ** 2 - weights**2) / (2 * damping)
    else:
        penalty = weights * excess
    return task_loss + penalty.sum().to(task_loss)


def dual_ascent(multipliers: Tensor, relative: Tensor, rate: float) -> Tensor:
    """lambda <- max(0, lambda + rate * min(E[C]/B - 1, MOST_EXCESS)).

    While E[C] is far from B the damping pulls; a lambda that added up all of that would overshoot (integral wind-up).
    """
    excess = torch.clamp(relative.detach().to(multipliers) - 1, max=MOST_EXCESS)
    return torch.clamp(multipliers + rate * excess, min=0)


def entropy(logits: Mapping[str, Tensor]) -> float:
    """Mean entropy of an edge's distribution, in nats."""
    rows = torch.cat([torch.softmax(v.detach(), dim=-1) for v in logits.values()])
    return float(-(rows * rows.clamp_min(1e-30).log()).sum(dim=-1).mean())
