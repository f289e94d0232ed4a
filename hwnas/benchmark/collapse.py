"""Measure how far cells have collapsed: shares of their edges that skip or have no parameters."""

from __future__ import annotations

import numpy as np

from hwnas.cost.model import Array
from hwnas.spaces import Architecture, get_operation
from hwnas.spaces.builtin_operations import SKIP
from hwnas.spaces.encoding import every_choice
from hwnas.spaces.nasbench201 import NASBENCH201

WITHOUT_PARAMETERS = [op for op in NASBENCH201.operations if get_operation(op).weightless]


def collapse(architecture: Architecture) -> dict[str, float]:
    """Return the share of edges that are a ``skip_connect`` and the share without parameters."""
    edges = [op for cell in architecture.cells for op in cell]
    return {
        "skip_connect": edges.count(SKIP) / len(edges),
        "without_parameters": sum(op in WITHOUT_PARAMETERS for op in edges) / len(edges),
    }


def collapse_of_all() -> dict[str, Array]:
    """Return the same shares [N] of every cell, in the order of ``every_choice``."""
    choices = every_choice(NASBENCH201)
    free = [NASBENCH201.operations.index(op) for op in WITHOUT_PARAMETERS]
    return {
        "skip_connect": np.asarray((choices == NASBENCH201.operations.index(SKIP)).mean(axis=1)),
        "without_parameters": np.asarray(np.isin(choices, free).mean(axis=1)),
    }
