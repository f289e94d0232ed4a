"""Optimisers and their learning rates, from a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from hwnas.recipe import Optimizer
from hwnas.training.recipe import Descent


def make_optimizer(settings: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Of parameters on a GPU a step is one kernel."""
    parameters = list(parameters)
    fused = True if all(parameter.is_cuda for parameter in parameters) else None
    if settings.name == "adam":
        return torch.optim.Adam(
            parameters,
            settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    return torch.optim.SGD(
        parameters,
        settings.lr,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
        fused=fused,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, settings: Optimizer, epoch: float, epochs: int) -> float:
    """Cosine from ``lr`` in the first epoch towards ``lr_end``, by epoch as in the DARTS and SNAS code; exponential
    where the settings say so. Parts of an epoch count where the rate falls at every step.
    """
    if isinstance(settings, Descent) and settings.schedule == "exponential":
        rate = settings.lr * settings.factor**epoch
    else:
        rate = settings.lr_end + (settings.lr - settings.lr_end) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
