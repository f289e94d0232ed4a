"""Axis ``selection``: the choice of the final architecture, always within the budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from hwnas.budgets.derive import Limits, derive, follows_rules, ranked, scores
from hwnas.search.axes import Scorer
from hwnas.search.choices import register
from hwnas.search.distribution import Draw, uniform_choice
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import encode

TRIES = 1000


@register("selection", "probable")
@dataclass(frozen=True)
class Probable:
    """The most probable architecture within the limits: an integer program, solved exactly (hwnas.budgets.derive)."""

    by_probability: ClassVar[bool] = True

    def best(self, scorer: Scorer, target: TargetState, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        """Yield architectures within the limits and log p of each, the best first."""
        log_p = target.log_probability()
        for architecture in ranked(scorer.space, log_p, limits, scorer.recipe.inputs_per_node):
            yield architecture, float(scores(scorer.space, log_p, encode(scorer.space, [architecture]))[0])

    def current_best(self, scorer: Scorer, target: TargetState) -> Architecture:
        return derive(scorer.space, target.log_probability(), target.limits, scorer.recipe.inputs_per_node)


@register("selection", "best_of")
@dataclass(frozen=True)
class BestOf:
    """The one of ``samples`` draws within the limits with which the supernet is most accurate on validation images.

    The value of an architecture is the logarithm of that accuracy.
    """

    samples: int = Field(default=100, ge=1)

    def best(self, scorer: Scorer, target: TargetState, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        return best_scored(scorer, target, limits, lambda: self._score(scorer, target, limits))

    def _score(self, scorer: Scorer, target: TargetState, limits: Limits) -> None:
        scorer.score(target, self._draws(scorer, target, limits))

    def _draws(self, scorer: Scorer, target: TargetState, limits: Limits) -> list[Architecture]:
        generator = scorer.draw_context().generator
        found: dict[Architecture, None] = {}
        for _ in range(TRIES):
            architecture = architecture_of(scorer, target.distribution.draw(scorer.draw_context(generator)))
            if within(scorer, architecture, limits):
                found[architecture] = None
            if len(found) == self.samples:
                break
        return list(found) or [at_random(scorer, limits, generator)]

    def current_best(self, scorer: Scorer, target: TargetState) -> Architecture:
        """Return a random architecture within the limits: none is scored before the end."""
        return at_random(scorer, target.limits, scorer.draw_context().generator)


def best_scored(
    scorer: Scorer, target: TargetState, limits: Limits, score: Callable[[], None]
) -> Iterator[tuple[Architecture, float]]:
    """Yield the scored architectures within the limits, the best first; where there is none, ``score`` adds some."""
    for attempt in range(2):
        found = [(a, v) for a, v in target.scores.items() if within(scorer, a, limits)]
        if not found and not attempt:
            score()
    yield from sorted(found, key=lambda item: -item[1])


def architecture_of(scorer: Scorer, draw: Draw) -> Architecture:
    """Return the architecture of a discrete draw; of any other draw the largest share of every edge.

    It may break a rule of the space (``within``).
    """
    picks = draw.chosen or {kind: values.argmax(dim=-1) for kind, values in draw.mixture.items()}
    space = scorer.space
    cells = tuple(tuple(space.operations[o] for o in picks[kind].tolist()) for kind in space.cells)
    return Architecture(space.name, cells)


def within(scorer: Scorer, architecture: Architecture, limits: Limits) -> bool:
    """Return True for an architecture within the limits, the space's rules and the recipe's number of inputs a node."""
    choices = encode(scorer.space, [architecture])
    return bool(follows_rules(scorer.space, choices, scorer.recipe.inputs_per_node)[0]) and all(
        model.predict(architecture) <= bound for model, bound in limits.values()
    )


def at_random(scorer: Scorer, limits: Limits, generator: torch.Generator) -> Architecture:
    """Draw uniformly among the architectures within the limits; where a thousand draws find none, return the one with
    the largest sum of random scores. Raises HwnasError where no architecture is within the limits.
    """
    recipe = scorer.recipe
    for _ in range(TRIES):
        picks = uniform_choice(scorer.space, recipe.inputs_per_node, generator, recipe.without)
        architecture = architecture_of(scorer, Draw({}, picks))
        if within(scorer, architecture, limits):
            return architecture
    shapes = {kind: (len(cell.edges), len(scorer.space.operations)) for kind, cell in scorer.space.cells.items()}
    noise = {k: np.log(torch.rand(shape, generator=generator).double().numpy() + 1e-9) for k, shape in shapes.items()}
    return derive(scorer.space, noise, limits, recipe.inputs_per_node)


def first_excluding(
    best: Iterator[tuple[Architecture, float]], excluded: Collection[Architecture]
) -> tuple[Architecture, float] | None:
    """Return the best architecture that is not excluded, and its value; None where there is none."""
    return next((found for found in best if found[0] not in excluded), None)
