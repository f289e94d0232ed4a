"""The architectures that can become finalists of a target: within its limits, and using what they allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import Limits, follows_rules, ranked
from hwnas.cost.model import Array, CostModel
from hwnas.spaces import Architecture, SearchSpace
from hwnas.spaces.encoding import ENUMERABLE, decode, encode, every_choice, random_choices

LEAST_USED = 0.8  # share of the tightest limit that a candidate uses, where enough architectures do
LOOKED_AT = 2  # architectures of a ranking for each that is asked for, in a space too large to enumerate
AT_ONCE = 500
TILTS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # weights of the costs in a ranking, until it uses the limits
DRAWS, MOST_DRAWS = 2_000, 50


@dataclass(frozen=True)
class Candidates:
    """The architectures of a space within ``limits``; ``inputs_per_node`` as in hwnas.budgets.derive."""

    space: SearchSpace
    limits: Limits
    inputs_per_node: int | None

    def shares(self, choices: NDArray[np.intp]) -> Array:
        """Return the share [N] of the limit that each of ``choices`` [N, edges] comes closest to; 1 without limits."""
        shares = [model.predict_many(choices) / bound for model, bound in self.limits.values()]
        return np.maximum.reduce(shares) if shares else np.ones(len(choices))

    def within(self, choices: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Return a mask [N] of the choices that are candidates, however little they use."""
        return follows_rules(self.space, choices, self.inputs_per_node) & (self.shares(choices) <= 1)

    def using(self, ranking: Iterable[Architecture], number: int) -> list[Architecture]:
        """Return the first ``number`` of a ranking of candidates that use at least 80 % of the limits.

        Where there are fewer, those that use most follow.
        """
        remaining = iter(ranking) if self._enumerable else islice(ranking, LOOKED_AT * number)
        found: list[Architecture] = []
        others: list[tuple[float, Architecture]] = []
        while len(found) < number and (batch := list(islice(remaining, AT_ONCE if self._enumerable else 1))):
            for architecture, share in zip(batch, self.shares(encode(self.space, batch)), strict=True):
                if share >= LEAST_USED:
                    found.append(architecture)
                else:
                    others.append((-float(share), architecture))
        others.sort(key=lambda item: item[0])
        return [*found, *(architecture for _, architecture in others)][:number]

    def largest(self, worth: Mapping[str, Array], number: int) -> list[Architecture]:
        """Return the ``number`` candidates of largest summed ``worth[kind]`` [E, K] that use the limits.

        In a space too large to enumerate, costs gain weight in the sum until the largest uses the limits.
        """
        for tilt in TILTS[:1] if self._enumerable else TILTS:
            ranking = self._ranking(worth, tilt)
            first = list(islice(ranking, 1))
            if first and self.shares(encode(self.space, first))[0] >= LEAST_USED:
                break
        return self.using(chain(first, ranking), number)

    def _ranking(self, worth: Mapping[str, Array], tilt: float) -> Iterator[Architecture]:
        """Yield the candidates by their worth, scaled to a range of 1 an edge, plus ``tilt`` times relative costs."""
        scale = max(float(np.ptp(values)) for values in worth.values()) or 1.0
        sums = {kind: values / scale + tilt * self._relative_costs(kind) for kind, values in worth.items()}
        tops = {kind: values - values.max() for kind, values in sums.items()}
        return ranked(self.space, tops, self.limits, self.inputs_per_node)

    def sample(self, number: int, generator: np.random.Generator) -> list[Architecture]:
        """Draw up to ``number`` different candidates; where those that use 80 % are rare, others make up the number."""
        found: dict[Architecture, float] = {}
        for drawn in self._draws(generator):
            choices = drawn[self.within(drawn)]
            found |= {decode(self.space, c): s for c, s in zip(choices, self.shares(choices), strict=True)}
            if sum(share >= LEAST_USED for share in found.values()) >= number:
                break
        enough = [architecture for architecture, share in found.items() if share >= LEAST_USED]
        others = sorted((a for a, share in found.items() if share < LEAST_USED), key=lambda a: -found[a])
        return [*enough, *others][:number]

    def draw(self, generator: np.random.Generator) -> Architecture | None:
        """Draw one candidate, all equally likely however little they use; None where none is found among many."""
        for drawn in self._draws(generator):
            if len(found := drawn[self.within(drawn)]):
                return decode(self.space, found[0])
        return None

    @property
    def _enumerable(self) -> bool:
        return self.space.num_architectures <= ENUMERABLE

    def _relative_costs(self, kind: str) -> Array:
        """Return c[e, o] / bound [E, K], summed over the limits on costs that add up over edges."""
        shape = len(self.space.cells[kind].edges), len(self.space.operations)
        linear = [(m.linear()[1][kind], bound) for m, bound in self.limits.values() if isinstance(m, CostModel)]
        return sum((costs / bound for costs, bound in linear), start=np.zeros(shape))

    def _draws(self, generator: np.random.Generator) -> Iterator[NDArray[np.intp]]:
        """Yield uniform choices [N, edges]; in a space that can be enumerated all of them, in random order."""
        if self._enumerable:
            yield from np.array_split(generator.permutation(every_choice(self.space)), 10)
            return
        for _ in range(MOST_DRAWS):
            yield random_choices(self.space, DRAWS, generator, self.inputs_per_node)
