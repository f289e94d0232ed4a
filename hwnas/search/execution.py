"""Which candidates run for a draw."""

from __future__ import annotations

from pydantic.dataclasses import dataclass

from hwnas.errors import HwnasError
from hwnas.networks.supernet import Mixed, Supernet
from hwnas.search.choices import register
from hwnas.search.distribution import Distribution, Draw

Running = tuple[dict[str, Mixed], dict[int, Mixed]]  # by cell kind, and by part where one differs from its kind


@register("runs", "all")
@dataclass(frozen=True)
class All:
    """Every candidate that is in the search, and in the draw's support where it has one."""

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running:
        return {kind: mixed_of(distribution, draw, kind) for kind in draw.mixture}, {}


@register("runs", "sampled")
@dataclass(frozen=True)
class Sampled:
    """The one that was drawn, on every edge. With ``ghosts`` the others add their weights (hwnas.search.gdas)."""

    ghosts: bool = False

    def __call__(self, supernet: Supernet, distribution: Distribution, draw: Draw) -> Running:
        if draw.chosen is None:
            raise HwnasError("runs: sampled needs a distribution that draws one operation an edge", "use runs: all")
        active = {kind: [[o] for o in chosen.tolist()] for kind, chosen in draw.chosen.items()}
        edges = draw.edges or {}
        return {k: Mixed(w, active[k], edges.get(k), self.ghosts) for k, w in draw.mixture.items()}, {}


def mixed_of(distribution: Distribution, draw: Draw, kind: str) -> Mixed:
    """The mixture of every candidate that has a weight."""
    if draw.support:
        active = draw.support[kind]
    else:
        runs = distribution.allowed(kind)
        if distribution.final_zeros:
            runs = runs & (draw.mixture[kind].detach() != 0)
        active = [row.nonzero().flatten().tolist() for row in runs]
    return Mixed(draw.mixture[kind], active, (draw.edges or {}).get(kind))
