"""Single path one-shot with evolution (Guo et al., ECCV 2020).

The supernet's weights learn with uniformly drawn paths, as in hwnas.search.methods.random_search. Then evolution
searches for the architecture with which the supernet is most accurate on validation images. It starts with
``population`` architectures within the budget. In each of ``generations`` the ``parents`` best so far produce half of
the next population by crossover (every edge from one of two parents) and half by mutation (every edge redrawn with
probability ``mutation``). A child over the budget is resampled; architectures are scored once. The settings are the
paper's.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from hwnas.budgets.derive import Limits
from hwnas.search.axes import Scorer
from hwnas.search.choices import register
from hwnas.search.selection import TRIES, at_random, best_scored, within
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture


@register("selection", "evolution")
@dataclass(frozen=True)
class Evolution:
    """Crossover and mutation of the most accurate architectures; the value is the logarithm of the accuracy."""

    population: int = Field(default=50, ge=2)
    generations: int = Field(default=20, ge=1)
    parents: int = Field(default=10, ge=2)
    mutation: float = Field(default=0.1, gt=0, le=1)

    def best(self, scorer: Scorer, target: TargetState, limits: Limits) -> Iterator[tuple[Architecture, float]]:
        return best_scored(scorer, target, limits, lambda: self._evolve(scorer, target, limits))

    def _evolve(self, scorer: Scorer, target: TargetState, limits: Limits) -> None:
        generator = scorer.draw_context().generator
        pool = [at_random(scorer, limits, generator) for _ in range(self.population)]
        for generation in range(self.generations):
            scorer.score(target, pool)
            elite = sorted(dict.fromkeys(pool), key=lambda a: -target.scores[a])[: self.parents]
            if generation + 1 < self.generations:
                children = (self._child(scorer, limits, elite, n % 2 == 0, generator) for n in range(self.population))
                pool = [*elite, *children]

    def _child(
        self, scorer: Scorer, limits: Limits, elite: list[Architecture], crossed: bool, generator: torch.Generator
    ) -> Architecture:
        """Return one child of the elite; a random architecture where a thousand children are over the budget."""
        for _ in range(TRIES):
            first, second = (elite[int(torch.randint(len(elite), (), generator=generator))] for _ in range(2))
            fresh = at_random(scorer, {}, generator)
            share = 0.5 if crossed else self.mutation
            cells = []
            for mine, its in zip(first.cells, (second if crossed else fresh).cells, strict=True):
                takes = (torch.rand(len(mine), generator=generator) < share).tolist()
                cells.append(tuple(b if take else a for a, b, take in zip(mine, its, takes, strict=True)))
            child = Architecture(first.space, tuple(cells))
            if within(scorer, child, limits):
                return child
        return at_random(scorer, limits, generator)

    def current_best(self, scorer: Scorer, target: TargetState) -> Architecture:
        """Return a random architecture within the limits: none is scored before the end."""
        return at_random(scorer, target.limits, scorer.draw_context().generator)
