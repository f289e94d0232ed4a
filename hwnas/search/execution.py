"""Axis ``runs``: the candidates that the supernet computes for a draw.

Where they differ from draw to draw, the host has to know the values of the draw: distributions then stay on the CPU
even if the supernet is on a GPU (``on_host``).
"""

from __future__ import annotations

from typing import ClassVar

from pydantic.dataclasses import dataclass

from hwnas.compute.device import CPU
from hwnas.errors import HwnasError
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.supernet import Supernet
from hwnas.search.axes import Running
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw


@register("runs", "all")
@dataclass(frozen=True)
class All:
    """Run every candidate that is in the search, and in the draw's support where it has one."""

    on_host: ClassVar[bool] = False

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running:
        return {kind: mixed_of(distribution, draw, kind) for kind in draw.mixture}, {}


@register("runs", "sampled")
@dataclass(frozen=True)
class Sampled:
    """Run the drawn candidate of every edge.

    With ``ghosts`` the others add their weights (hwnas.search.methods.gdas).
    """

    ghosts: bool = False
    on_host: ClassVar[bool] = True

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running:
        if draw.chosen is None:
            raise HwnasError("runs: sampled needs a distribution that draws one operation an edge", "use runs: all")
        active = {kind: [[o] for o in chosen.tolist()] for kind, chosen in draw.chosen.items()}
        edges = draw.edges or {}
        return {k: Mixed(w, active[k], edges.get(k), self.ghosts) for k, w in draw.mixture.items()}, {}


def mixed_of(distribution: Distribution, draw: Draw, kind: str) -> Mixed:
    """Return the mixture of the candidates whose weight is not 0; on a GPU, where weights are unknown to the host, of
    all that are in the search.
    """
    weights = draw.mixture[kind]
    active = draw.support[kind] if draw.support else distribution.open_candidates(kind)
    if distribution.final_zeros and not draw.support and weights.device == CPU:
        pairs = zip(active, weights.tolist(), strict=True)
        active = [[o for o in row if weight[o] != 0] for row, weight in pairs]
    return Mixed(weights, active, (draw.edges or {}).get(kind))
