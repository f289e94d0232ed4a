"""The budgets' term of the loss: E[C] against B, with multipliers lambda found by dual ascent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hwnas.cost.expectation import ExpectedCost

MOST_EXCESS = 0.1  # see dual_ascent


def relative_costs(
    probabilities: Mapping[str, Tensor], costs: Mapping[str, ExpectedCost], limits: Mapping[str, float]
) -> Tensor:
    """Return E[C_m] / B_m for every limited metric as one vector, of length 0 where there is no limit."""
    relative = [costs[metric](probabilities) / bound for metric, bound in limits.items()]
    device = next(iter(probabilities.values())).device
    return torch.stack(relative) if relative else torch.zeros(0, dtype=torch.float64, device=device)


def penalty_of(multipliers: Tensor, relative: Tensor, damping: float = 0.0) -> Tensor:
    """Return the sum over metrics of lambda g, g = E[C] / B - 1.

    With damping k it is that of the augmented Lagrangian, (max(0, lambda + k g)^2 - lambda^2) / (2 k), whose gradient
    is max(0, lambda + k g) dg.
    """
    excess, weights = relative - 1, multipliers.to(relative)
    if damping:
        return ((torch.clamp(weights + damping * excess, min=0) ** 2 - weights**2) / (2 * damping)).sum()
    return (weights * excess).sum()


def dual_ascent(multipliers: Tensor, relative: Tensor, rate: float) -> Tensor:
    """Return max(0, lambda + rate * min(E[C]/B - 1, MOST_EXCESS)).

    The cut prevents integral wind-up: while E[C] is far above B the damping already reduces it, and a lambda that
    accumulated the whole excess would overshoot.
    """
    excess = torch.clamp(relative.detach().to(multipliers) - 1, max=MOST_EXCESS)
    return torch.clamp(multipliers + rate * excess, min=0)
