"""How the architecture is taken in the end; never one over the budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from hwnas.budgets.derive import Limits, derive, keeps_rules, ranked, scores
from hwnas.search.choices import register
from hwnas.search.distribution import Draw, uniform_choice
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import encode

if TYPE_CHECKING:
    from hwnas.search.loop import Search, Target

TRIES = 1000


@register("selection", "probable")
@dataclass(frozen=True)
class Probable:
    """The most probable architecture within the limits: an integer program, solved exactly (hwnas.budgets.derive)."""

    def best(self, search: Search, target: Target, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        """Architectures within the limits and what each is worth (log p), the best first."""
        log_p = target.log_probability()
        for architecture in ranked(search.space, log_p, limits, search.recipe.inputs_per_node):
            yield architecture, float(scores(search.space, log_p, encode(search.space, [architecture]))[0])

    def watched(self, search: Search, target: Target) -> Architecture:
        """What the search is judged by while it runs."""
        return derive(search.space, target.log_probability(), target.limits, search.recipe.inputs_per_node)


@register("selection", "best_of")
@dataclass(frozen=True)
class BestOf:
    """Of ``samples`` draws within the limits the one that the supernet is most accurate with on validation images.

    An architecture is worth the logarithm of that accuracy.
    """

    samples: int = Field(default=100, ge=1)

    def best(self, search: Search, target: Target, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        return best_scored(search, target, limits, lambda: self._judge(search, target, limits))

    def _judge(self, search: Search, target: Target, limits: Limits) -> None:
        search.judge(target, self._draws(search, target, limits))

    def _draws(self, search: Search, target: Target, limits: Limits) -> list[Architecture]:
        generator = search.moment("selection").generator
        found: dict[Architecture, None] = {}
        for _ in range(TRIES):
            moment = search.moment("selection", generator)
            architecture = architecture_of(search, target.distribution.draw(moment))
            if within(search, architecture, limits):
                found[architecture] = None
            if len(found) == self.samples:
                break
        return list(found) or [at_random(search, limits, generator)]

    def watched(self, search: Search, target: Target) -> Architecture:
        """One at random within the limits: none is taken before the end."""
        return at_random(search, target.limits, search.moment("selection").generator)


def best_scored(
    search: Search, target: Target, limits: Limits, judge: Callable[[], None]
) -> Iterator[tuple[Architecture, float]]:
    """Those judged already that keep the limits, the best first; where there are none, ``judge`` finds some."""
    for attempt in range(2):
        found = [(a, v) for a, v in target.judged.items() if within(search, a, limits)]
        if not found and not attempt:
            judge()
    yield from sorted(found, key=lambda item: -item[1])


def architecture_of(search: Search, draw: Draw) -> Architecture:
    """A discrete draw as an architecture; of another every edge's largest share."""
    picks = draw.chosen or {kind: values.argmax(dim=-1) for kind, values in draw.mixture.items()}
    operations = search.space.operations
    return search.space.architecture(tuple(tuple(operations[o] for o in picks[k].tolist()) for k in search.space.cells))


def within(search: Search, architecture: Architecture, limits: Limits) -> bool:
    choices = encode(search.space, [architecture])
    return bool(keeps_rules(search.space, choices, search.recipe.inputs_per_node)[0]) and all(
        model.predict(architecture) <= bound for model, bound in limits.values()
    )


def at_random(search: Search, limits: Limits, generator: torch.Generator) -> Architecture:
    """Uniform over the architectures within the limits; where a thousand draws hit none, the one of largest sum of
    random scores. Raises HwnasError when there is none.
    """
    recipe = search.recipe
    for _ in range(TRIES):
        picks = uniform_choice(search.space, recipe.inputs_per_node, generator, recipe.without)
        architecture = architecture_of(search, Draw({}, picks))
        if within(search, architecture, limits):
            return architecture
    shapes = {kind: (len(cell.edges), len(search.space.operations)) for kind, cell in search.space.cells.items()}
    noise = {k: np.log(torch.rand(shape, generator=generator).double().numpy() + 1e-9) for k, shape in shapes.items()}
    return derive(search.space, noise, limits, recipe.inputs_per_node)


def first_excluding(
    best: Iterator[tuple[Architecture, float]], excluded: Collection[Architecture]
) -> tuple[Architecture, float] | None:
    return next((found for found in best if found[0] not in excluded), None)
