"""The candidates of all targets of a run, with the features by which an accuracy model compares them."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hwnas.cost.model import Array
from hwnas.finalists.accuracy_model import Features
from hwnas.finalists.evidence import Advance
from hwnas.jobs.executor import Executor
from hwnas.jobs.in_process import InProcess
from hwnas.scores.score import SCORES, rank_sums, score_architectures
from hwnas.search.plugin import require_plugin
from hwnas.spaces import Architecture, SearchSpace, SizedSpace
from hwnas.spaces.encoding import encode, without_dead_edges

AT_ONCE = 20  # architectures that one job scores
Key = tuple[int, ...]


@dataclass(frozen=True)
class Scoring:
    """Input that all jobs that score architectures share; ``images`` [N, C, H, W] are normalised."""

    sized: SizedSpace
    images: Tensor
    seed: int
    plugin: Path | None = None


def score(shared: Scoring, architectures: list[Architecture]) -> dict[str, Array]:
    """Return every training-free score [N] of some architectures, by name: a job of an executor."""
    require_plugin(shared.plugin)
    return score_architectures(shared.sized, architectures, tuple(SCORES), shared.images, shared.seed)


@dataclass(frozen=True)
class Pool:
    """Architectures of which no two are the same network, with their training-free scores [N] by name."""

    scoring: Scoring
    architectures: tuple[Architecture, ...] = ()
    scores: dict[str, Array] = field(default_factory=lambda: {name: np.empty(0) for name in SCORES})

    def with_others(self, others: Iterable[Architecture], executor: Executor) -> Generator[Advance, None, Pool]:
        """Return the pool with those of ``others`` that are networks it does not have, scored on the executor.

        Yields an advance for every chunk of scored architectures.
        """
        new: dict[Key, Architecture] = {}
        for architecture in others:
            key = self.key(architecture)
            if key not in self._index:
                new.setdefault(key, architecture)
        added = list(new.values())
        chunks = {str(start): added[start : start + AT_ONCE] for start in range(0, len(added), AT_ONCE)}
        executor = executor if len(chunks) > 1 else InProcess()  # to start processes takes longer than one job
        found: dict[str, dict[str, Array]] = {}
        for name, scores in executor.run(score, self.scoring, chunks):
            found[name] = scores
            yield Advance("scoring candidates", min(len(found) * AT_ONCE, len(added)), len(added))
        scores = {
            name: np.concatenate([known, *(found[c][name] for c in chunks)]) for name, known in self.scores.items()
        }
        return replace(self, architectures=(*self.architectures, *added), scores=scores)

    def key(self, architecture: Architecture) -> Key:
        """Return the operation of every edge without dead ones: equal for architectures that are the same network."""
        choices = without_dead_edges(self.space, encode(self.space, [architecture]))
        return tuple(int(o) for o in choices[0])

    def index(self, architecture: Architecture) -> int | None:
        """Return the index of an architecture's network; None where the pool does not have it."""
        return self._index.get(self.key(architecture))

    def indices(self, architectures: Iterable[Architecture]) -> list[int]:
        """Return the indices of architectures whose networks are in the pool."""
        return [self._index[self.key(architecture)] for architecture in architectures]

    def by_scores(self, members: NDArray[np.intp]) -> list[int]:
        """Return ``members``, indices [N], by the sum of their ranks in all scores, the largest first."""
        ranks = rank_sums({name: values[members] for name, values in self.scores.items()})
        return [int(members[i]) for i in np.argsort(-ranks, kind="stable")]

    @property
    def space(self) -> SearchSpace:
        return self.scoring.sized.space

    @cached_property
    def choices(self) -> NDArray[np.intp]:
        """Operation indices [N, edges]."""
        return encode(self.space, list(self.architectures))

    @cached_property
    def features(self) -> Features:
        return Features.of(self.space, without_dead_edges(self.space, self.choices), self.scores)

    @cached_property
    def _index(self) -> dict[Key, int]:
        return {self.key(architecture): index for index, architecture in enumerate(self.architectures)}
