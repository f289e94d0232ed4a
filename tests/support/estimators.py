"""Searches in float64 whose gradients are compared with finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hwnas.recipe import read_recipe
from hwnas.search.search import Search
from support.searches import make_search


def searching(method: str, space: str = "nasbench201", **changes: object) -> Search:
    """Return a new search of a method, with logits and weights in float64, without warm-up and penalty."""
    folder = "short" if space == "nasbench201" else space
    quiet = {"batch_size": 8, "logits_warm_up": 0.0, "penalty.mode": "fixed", "penalty.weight": 0.0}
    search = make_search(space, read_recipe(f"{folder}/{method}", {**quiet, **changes}))
    search.supernet.double().train()
    target = search.targets[0]
    target.distribution.double()
    for number, values in enumerate(target.logits.values()):
        generator = torch.Generator().manual_seed(number)
        values.data = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    search.targets[0].optimizer.optimizer.param_groups[0]["params"] = target.parameters  # type: ignore[union-attr]
    return search


def without_steps(search: Search) -> Search:
    """Let the logits' steps do nothing, so that gradients can be read."""
    search.current_step.step_logits = lambda target: None  # type: ignore[method-assign]
    return search


def finite_difference(function: Callable[[], float], values: Tensor, index: tuple[int, ...], step: float) -> float:
    both = []
    for sign in (1, -1):
        with torch.no_grad():
            values[index] += sign * step
        both.append(function())
        with torch.no_grad():
            values[index] -= sign * step
    return (both[0] - both[1]) / (2 * step)


def finite_differences(function: Callable[[], float], values: Tensor, step: float) -> np.ndarray:
    """Return the finite difference by every entry of ``values``."""
    found = np.zeros(values.shape)
    for index in np.ndindex(*values.shape):
        found[index] = finite_difference(function, values, index, step)
    return found
