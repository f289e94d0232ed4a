"""The search spaces that hwnas knows, by name."""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.spaces.darts import DARTS
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.spaces.space import (
    NONE,
    Architecture,
    Cell,
    CellPlace,
    FixedPart,
    Network,
    SearchSpace,
    Setting,
    Workload,
)

SPACES: dict[str, SearchSpace] = {space.name: space for space in (NASBENCH201, DARTS)}

__all__ = [
    "NONE",
    "SPACES",
    "Architecture",
    "Cell",
    "CellPlace",
    "FixedPart",
    "Network",
    "SearchSpace",
    "Setting",
    "Workload",
    "get_space",
]


def get_space(name: str) -> SearchSpace:
    """The space of that name. Raises HwnasError when there is none."""
    if name not in SPACES:
        raise HwnasError(f"unknown space {name!r}", f"use one of {', '.join(SPACES)}")
    return SPACES[name]
