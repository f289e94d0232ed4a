"""Propose architectures in a latent space: those of largest expected improvement among decoded latents.

Latents are drawn from N(0, I) until enough of them are within the limits, and around those of the best architectures
so far; then, some times, around those of the largest expected improvement. All are decoded, and what is not within the
limits or already known is left out, so every proposal keeps the budget exactly. Expected improvement is that at the
latents to which a decoded architecture's network is encoded. Several proposals at once: each counts as evaluated, with
the score that is expected, for those after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.model import Array
from hwnas.latent.graphs import Choices
from hwnas.latent.latent_space import LatentSpace
from hwnas.latent.surrogate import Surrogate

DRAWN, AROUND = 1000, 500  # latents that are drawn at once from N(0, I), and around good ones in each turn
ENOUGH, MOST_DRAWS = 500, 10  # different networks within the limits after which N(0, I) is drawn from no more
BEST, TURNS = 20, 4  # architectures around which latents are drawn, and how often
STEPS = (0.4, 2.0)  # least and greatest distance from them, in mean distances of evaluated latents from their mean

Within = Callable[[Choices], NDArray[np.bool_]]


@dataclass(frozen=True)
class Proposals:
    """Proposed graphs [M, edges], the best first, with the value expected of each [M] and its deviation [M]."""

    choices: Choices
    expected: Array
    deviation: Array


@dataclass(frozen=True)
class LatentSearch:
    """A search in a latent space among the architectures that ``within`` [N, edges] -> [N] allows."""

    space: LatentSpace
    within: Within

    def propose(self, choices: Choices, values: Array, number: int, generator: np.random.Generator) -> Proposals:
        """Return up to ``number`` architectures to evaluate, given the ``values`` [N] of ``choices`` [N, edges].

        Larger values are better. No two proposals, and no proposal and one of ``choices``, are the same network. There
        are fewer where the draws decode to fewer within the limits.
        """
        known = self.space.graphs.networks(choices)
        surrogate = Surrogate.fit(self.space.encode(known), values)
        found = self._find(known, surrogate, values, generator)
        latents = self.space.encode(self.space.graphs.networks(found)) if len(found) else np.empty((0, 0))
        chosen = list(_choose(surrogate, latents, min(number, len(found))))
        mean, deviation = surrogate.predict_values(latents[chosen]) if chosen else (np.empty(0), np.empty(0))
        return Proposals(found[chosen], mean, deviation)

    def _find(self, known: Choices, surrogate: Surrogate, values: Array, generator: np.random.Generator) -> Choices:
        """Return different networks within the limits, none of them known, as they were decoded."""
        size = surrogate.scale
        found = known[:0]
        for _ in range(MOST_DRAWS):
            drawn = generator.normal(size=(DRAWN, self.space.dimensions))
            found = np.concatenate([found, self._new(drawn, known, found)])
            if len(found) >= ENOUGH:
                break
        centres = surrogate.latents[np.argsort(-values, kind="stable")[:BEST]]
        for _ in range(TURNS):
            around = centres[generator.integers(len(centres), size=AROUND)]
            directions = generator.normal(size=around.shape)
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            lengths = size * np.exp(generator.uniform(np.log(STEPS[0]), np.log(STEPS[1]), size=(AROUND, 1)))
            found = np.concatenate([found, self._new(around + lengths * directions, known, found)])
            if len(found):
                latents = self.space.encode(self.space.graphs.networks(found))
                centres = latents[np.argsort(-surrogate.expected_improvement(latents), kind="stable")[:BEST]]
        return found

    def _new(self, latents: Array, known: Choices, found: Choices) -> Choices:
        """Decode latents to those within the limits that are neither known nor found, each network once."""
        graphs, decoded = self.space.graphs, self.space.decode(latents)
        decoded = decoded[graphs.valid(decoded)]
        decoded = decoded[self.within(decoded)]
        before = np.concatenate([known, graphs.networks(found), graphs.networks(decoded)])
        first = np.unique(before, axis=0, return_index=True)[1] - len(known) - len(found)
        return decoded[np.sort(first[first >= 0])]


def _choose(surrogate: Surrogate, latents: Array, number: int) -> Iterator[int]:
    """Yield the indices of ``number`` of the latents [M, D], each the one of largest expected improvement."""
    left = np.ones(len(latents), dtype=bool)
    for _ in range(number):
        gains = np.where(left, surrogate.expected_improvement(latents), -np.inf)
        index = int(gains.argmax())
        left[index] = False
        yield index
        own = latents[[index]]
        surrogate = surrogate.with_scores(own, surrogate.predict(own)[0])
