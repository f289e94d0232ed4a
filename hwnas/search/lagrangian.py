"""What budgets add to the loss, whatever the method: E[C] against B with a lambda that is found by dual ascent."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hwnas.cost.expectation import ExpectedCost

MOST_EXCESS = 0.1  # at which lambda's rise is cut: see dual_ascent


def relative_costs(
    probabilities: Mapping[str, Tensor], costs: Mapping[str, ExpectedCost], limits: Mapping[str, float]
) -> Tensor:
    """E[C_m] / B_m for every limited metric, as one vector (of length 0 when there is none)."""
    relative = [costs[metric](probabilities) / bound for metric, bound in limits.items()]
    device = next(iter(probabilities.values())).device
    return torch.stack(relative) if relative else torch.zeros(0, dtype=torch.float64, device=device)


def penalty_of(multipliers: Tensor, relative: Tensor, damping: float = 0.0) -> Tensor:
    """The sum over metrics of lambda g, g = E[C] / B - 1; with damping k the augmented Lagrangian's
    (max(0, lambda + k g)^2 - lambda^2) / (2 k), whose gradient is max(0, lambda + k g) dg.
    """
    excess, weights = relative - 1, multipliers.to(relative)
    if damping:
        return ((torch.clamp(weights + damping * excess, min=0) ** 2 - weights**2) / (2 * damping)).sum()
    return (weights * excess).sum()


def dual_ascent(multipliers: Tensor, relative: Tensor, rate: float) -> Tensor:
    """lambda <- max(0, lambda + rate * min(E[C]/B - 1, MOST_EXCESS)).

    While E[C] is far from B the damping pulls; a lambda that added up all of that would overshoot (integral wind-up).
    """
    excess = torch.clamp(relative.detach().to(multipliers) - 1, max=MOST_EXCESS)
    return torch.clamp(multipliers + rate * excess, min=0)
