"""Base classes of the distributions over a space's architectures, the plain ones, and helpers for drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hwnas.compute.device import to_device
from hwnas.errors import HwnasError
from hwnas.recipe import Recipe
from hwnas.search.choices import register
from hwnas.spaces import NONE, SearchSpace
from hwnas.spaces.encoding import offered, possible


@dataclass(frozen=True)
class DrawContext:
    """Random numbers and annealing state of one draw; ``progress`` is the share of the epochs gone by (0 to 1)."""

    generator: torch.Generator
    temperature: float = 1.0
    progress: float = 0.0


@dataclass(frozen=True)
class Draw:
    """One sample of a distribution, used for one batch.

    ``mixture[kind]`` [E, K] weighs the candidates. ``chosen[kind]`` [E] is one candidate index an edge where the draw
    is discrete. ``edges[kind]`` [E] weighs whole edges. ``support[kind]`` lists the candidates of every edge with a
    weight other than 0, where the distribution knows them: only these need to run.
    """

    mixture: dict[str, Tensor]
    chosen: dict[str, Tensor] | None = None
    edges: dict[str, Tensor] | None = None
    support: dict[str, list[list[int]]] | None = None

    def with_mixture(self, mixture: dict[str, Tensor]) -> Draw:
        return replace(self, mixture=mixture)


class Distribution(nn.Module):
    """A distribution over the candidates of every edge: axis ``distribution``. Its parameters are trained with the
    logits' optimiser. The base class holds the mask of the candidates that are in the search.

    ``pathwise``: draws carry a gradient to the parameters. ``final_zeros``: a weight of exactly 0 gets no gradient, as
    with a softmax, so that such a candidate need not run. ``prunable``: ``prune`` can remove candidates, as the stages
    of a progressive search need. ``differentiable``: ``probabilities`` carry a gradient, as regularisers and resource
    penalties need.

    The recipe's ``without`` names operations that are never drawn. Raises HwnasError for an unknown one and where
    nothing but ``none`` is left.
    """

    pathwise: ClassVar[bool] = True
    final_zeros: ClassVar[bool] = False
    prunable: ClassVar[bool] = False

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__()
        self.space = space
        if unknown := set(recipe.without) - set(space.operations):
            raise HwnasError(f"unknown operation {min(unknown)!r}", f"use some of {', '.join(space.operations)}")
        self._listed: dict[str, tuple[Tensor, int, list[list[int]]]] = {}
        allowed = offered(space) & np.array([op not in recipe.without for op in space.operations])
        if not allowed[:, [op != NONE for op in space.operations]].any(axis=1).all():
            raise HwnasError("without leaves no operation to search", "name fewer in it")
        for kind, open_ in space.by_cell(allowed, axis=0).items():
            self.register_buffer(f"allowed_{kind}", torch.tensor(open_))

    @property
    def differentiable(self) -> bool:
        return self.pathwise

    def logits_by_kind(self) -> dict[str, nn.Parameter]:
        """Return the logits [E, K] of every cell kind; empty where the distribution has none."""
        return {}

    def prune(self, keep: int) -> None:
        """Keep the ``keep`` likeliest candidates of every edge in the search."""
        raise NotImplementedError

    def allowed(self, kind: str) -> Tensor:
        """Return the mask [E, K] of the candidates that are still in the search."""
        return self.get_buffer(f"allowed_{kind}")

    def open_candidates(self, kind: str) -> list[list[int]]:
        """Return the candidate indices of every edge that are in the search; read from a GPU only after a change."""
        mask = self.allowed(kind)
        known = self._listed.get(kind)
        if known is None or known[0] is not mask or known[1] != mask._version:
            listed = [[o for o, open_ in enumerate(row) if open_] for row in mask.tolist()]
            known = self._listed[kind] = mask, mask._version, listed
        return known[2]

    def draw(self, context: DrawContext) -> Draw:
        """Return one sample; every random number comes from ``context.generator``."""
        raise NotImplementedError

    def probabilities(self) -> dict[str, Tensor]:
        """Return p [E, K] of every cell kind, with which E[C] is computed."""
        raise NotImplementedError

    def log_probability(self) -> dict[str, NDArray[np.float64]]:
        """Return float64 log p [E, K] of every cell kind, by which derivation ranks architectures."""
        with torch.no_grad():
            return {kind: p.double().log().cpu().numpy() for kind, p in self.probabilities().items()}


class EdgeLogits(Distribution):
    """One logit for every candidate of every edge, drawn from N(mean, std) at the start; p = softmax(logits)."""

    prunable = True

    def __init__(self, space: SearchSpace, recipe: Recipe, generator: torch.Generator) -> None:
        super().__init__(space, recipe, generator)
        mean, std = recipe.logits_mean, recipe.logits_std
        shapes = {kind: (len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
        self.logits = nn.ParameterDict(
            {kind: nn.Parameter(mean + std * torch.randn(shape, generator=generator)) for kind, shape in shapes.items()}
        )

    @property
    def differentiable(self) -> bool:
        return True

    def logits_by_kind(self) -> dict[str, nn.Parameter]:
        return dict(self.logits.items())

    def scores(self) -> dict[str, Tensor]:
        """Return the logits, minus infinity where a candidate is out of the search."""
        return {kind: v.masked_fill(~self.allowed(kind), -torch.inf) for kind, v in self.logits.items()}

    def probabilities(self) -> dict[str, Tensor]:
        return {kind: torch.softmax(values, dim=-1) for kind, values in self.scores().items()}

    def prune(self, keep: int) -> None:
        """Keep the ``keep`` likeliest candidates of every edge in the search; the logits of the others become 0."""
        with torch.no_grad():
            for kind, values in self.scores().items():
                likeliest = torch.zeros_like(self.allowed(kind)).scatter_(1, values.topk(keep, dim=1).indices, True)
                self.allowed(kind).logical_and_(likeliest)
                self.logits[kind].masked_fill_(~self.allowed(kind), 0.0)


@register("distribution", "softmax")
class Softmax(EdgeLogits):
    """No draw: the mixture is p itself, sharpened by the temperature (DARTS: 1)."""

    final_zeros = True

    def draw(self, context: DrawContext) -> Draw:
        return Draw({kind: torch.softmax(v / context.temperature, dim=-1) for kind, v in self.scores().items()})


@register("distribution", "categorical")
class Categorical(EdgeLogits):
    """One candidate an edge, a ~ Categorical(p), independent of the other edges; the mixture is its one-hot vector."""

    pathwise = False

    def draw(self, context: DrawContext) -> Draw:
        chosen = {kind: (v.detach() + gumbel_like(v, context)).argmax(dim=-1) for kind, v in self.scores().items()}
        return Draw({kind: one_hot(c, self.logits[kind]) for kind, c in chosen.items()}, chosen)


def gumbel_like(values: Tensor, context: DrawContext) -> Tensor:
    """Return Gumbel noise, -log(-log U), of a tensor's shape, type and device."""
    uniform = torch.rand(values.shape, generator=context.generator).clamp_(1e-9, 1 - 1e-7)
    return to_device(-torch.log(-torch.log(uniform)).to(values.dtype), values.device)


def one_hot(chosen: Tensor, like: Tensor) -> Tensor:
    return nn.functional.one_hot(chosen, like.shape[-1]).to(like)


def uniform_choice(
    space: SearchSpace, inputs_per_node: int | None, generator: torch.Generator, without: Sequence[str] = ()
) -> dict[str, Tensor]:
    """Draw an architecture uniformly, as operation indices [E] of every cell kind.

    With ``inputs_per_node`` exactly this number of edges into every node, drawn at random, is other than ``none``.
    Nodes have the inputs that the space asks for.
    """
    if any(cell.offers for cell in space.cells.values()):
        return _offered_choice(space, generator, without)
    operations = [o for o, op in enumerate(space.operations) if op not in without]
    real = [o for o in operations if space.operations[o] != NONE]
    chosen = {}
    for kind, cell in space.cells.items():
        if inputs_per_node is None:
            picks = torch.randint(len(operations), (len(cell.edges),), generator=generator)
            chosen[kind] = torch.tensor(operations)[picks]
            for node in cell.inner_nodes if cell.least_inputs else ():
                into = torch.tensor(cell.edges_into(node))
                while (chosen[kind][into] != space.operations.index(NONE)).sum() < cell.least_inputs:
                    picks = torch.randint(len(operations), (len(into),), generator=generator)
                    chosen[kind][into] = torch.tensor(operations)[picks]
            continue
        chosen[kind] = torch.full((len(cell.edges),), space.operations.index(NONE))
        for node in cell.inner_nodes:
            into = torch.tensor(cell.edges_into(node))
            used = into[torch.randperm(len(into), generator=generator)[:inputs_per_node]]
            picks = torch.randint(len(real), (len(used),), generator=generator)
            chosen[kind][used] = torch.tensor(real)[picks]
    return chosen


def _offered_choice(space: SearchSpace, generator: torch.Generator, without: Sequence[str]) -> dict[str, Tensor]:
    """Draw uniformly in a space whose edges offer operations of their own."""
    allowed = offered(space) & np.array([op not in without for op in space.operations])
    while True:
        picks = torch.multinomial(torch.tensor(allowed, dtype=torch.float), 1, generator=generator)[:, 0].numpy()
        if possible(space, picks[None])[0]:
            return {kind: torch.tensor(chosen) for kind, chosen in space.by_cell(picks).items()}


def entropy(probabilities: Mapping[str, Tensor]) -> float:
    """Return the mean entropy of an edge's distribution, in nats."""
    rows: Any = torch.cat([p.detach() for p in probabilities.values()])
    return float(-(rows * rows.clamp_min(1e-30).log()).sum(dim=-1).mean())
