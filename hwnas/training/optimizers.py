"""Optimisers and their learning rates, from a recipe."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.recipe import Optimizer
from hwnas.training.processes import Processes
from hwnas.training.recipe import Descent
from hwnas.training.step_profile import span


class ParameterOptimizer:
    """Parameters and the optimiser that trains them, as supernets, distributions and child networks share it.

    A step averages the gradients over processes and clips their norm.
    """

    def __init__(self, settings: Optimizer, parameters: Iterable[nn.Parameter], processes: Processes) -> None:
        self.settings, self.processes = settings, processes
        self.parameters = list(parameters)
        self.optimizer = make_optimizer(settings, self.parameters)

    def set_learning_rate(self, epoch: float, epochs: int) -> float:
        return set_learning_rate(self.optimizer, self.settings, epoch, epochs)

    def zero_grad(self) -> None:
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a state, saved on any device: whether a step is one fused kernel depends on this one."""
        fused = self.optimizer.defaults["fused"]
        groups = [{**group, "fused": fused} for group in state["param_groups"]]
        self.optimizer.load_state_dict({**state, "param_groups": groups})

    def step(self) -> None:
        """Take one step along the gradients that the parameters hold."""
        self.processes.average([p.grad for p in self.parameters if p.grad is not None])
        with span("optimiser"):
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
            self.optimizer.step()


def make_optimizer(settings: Optimizer, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Build the optimiser of a recipe. Where all parameters are on a GPU, a step is one fused kernel."""
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
    """Set and return the learning rate of an epoch, which may have a fraction where the rate changes at every step.

    Cosine annealing from ``lr`` in the first epoch towards ``lr_end``, as in the DARTS and SNAS code; exponential decay
    where the settings say so.
    """
    if isinstance(settings, Descent) and settings.schedule == "exponential":
        rate = settings.lr * settings.factor**epoch
    else:
        rate = settings.lr_end + (settings.lr - settings.lr_end) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate
