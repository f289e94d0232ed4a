"""Choose architectures by evidence: propose finalists, train them for real, learn from them, propose again.

All targets of a run share the evidence, because an accuracy does not depend on a device. In each round every target
takes the candidates that look best and have not been trained yet; after it, one accuracy model is fitted to all
trainings. In the end each target's best are trained further (successive halving: Jamieson & Talwalkar, AISTATS 2016). A
model that is fitted to these, with the first model's prediction as a score, ranks the candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

import numpy as np
from scipy.stats import kendalltau, rankdata

from hwnas.cost.model import Array, CostModel
from hwnas.finalists.accuracy_model import AccuracyModel, Features
from hwnas.finalists.candidates import Candidates
from hwnas.finalists.evidence import Evidence
from hwnas.finalists.finalist import FinalistResult, FinalistTraining, Start
from hwnas.finalists.pool import Pool
from hwnas.finalists.record import FinalistRow, FinalistsFile
from hwnas.progress import OnProgress
from hwnas.recipe import Finalists
from hwnas.spaces import Architecture, SizedSpace
from hwnas.training.child import Weights

FIRST, LAST = "first", "last"  # stages of training
EXPLORED = 0.5  # standard deviations that are added to a prediction when the next finalists are proposed
PROPOSED = 20  # the most candidates that a ranking adds to the pool


@dataclass(frozen=True)
class Contender:
    """One target: its candidates, and the architectures that the search's method prefers, the best first."""

    name: str
    candidates: Candidates
    preferred: Sequence[Architecture]


@dataclass(frozen=True)
class Judgement:
    """The pool, and the value [N] that is expected of each member after the last stage.

    ``sized`` is the network that was trained; ``trained`` are the results of every stage, by index in the pool.
    ``agreement`` is Kendall's tau of each source of evidence with the values that the last stage measured; None where
    these are too few.
    """

    sized: SizedSpace
    pool: Pool
    expected: Array
    trained: Mapping[str, Mapping[int, FinalistResult]]
    agreement: Mapping[str, float | None]

    def summary(self) -> FinalistsFile:
        """Return what ``finalists.json`` holds, without the trainings."""
        return FinalistsFile(
            setting=asdict(self.sized.setting),
            candidates=len(self.expected),
            trained={stage: len(results) for stage, results in self.trained.items()},
            agreement=dict(self.agreement),
        )

    def record(self) -> FinalistsFile:
        """Return what ``finalists.json`` holds."""
        rows = [
            FinalistRow(
                stage=stage,
                architecture=self.pool.space.format(self.pool.architectures[index], all_edges=True),
                training_loss=result.training_loss,
                validation_loss=result.validation_loss,
                validation_accuracy=result.validation_accuracy,
            )
            for stage, results in self.trained.items()
            for index, result in results.items()
        ]
        return self.summary().model_copy(update={"trainings": rows})

    def report(self) -> str:
        """Return a line for the user."""
        first, last = (len(self.trained[stage]) for stage in (FIRST, LAST))
        found = {name: value for name, value in self.agreement.items() if value is not None}
        taus = ", ".join(f"{name} {value:+.2f}" for name, value in found.items())
        agreement = f"; Kendall's tau with the longer trainings: {taus}" if found else ""
        return f"{first} finalists trained, {last} of them longer, out of {len(self.expected)} candidates{agreement}"

    def weights_of(self, architecture: Architecture, sized: SizedSpace) -> Weights | None:
        """Return the weights of an architecture after the last stage; None for other sizes, or without such weights."""
        if sized != self.sized:
            return None
        index = self.pool.index(architecture)
        result = None if index is None else self.trained[LAST].get(index)
        return result.weights if result else None

    def ranking(self, candidates: Candidates) -> Iterator[tuple[Architecture, float]]:
        """Yield the members of the pool that are candidates, with what is expected of each.

        Those that were trained to the last stage come first, each group with the best first.
        """
        within = np.flatnonzero(candidates.within(self.pool.choices))
        order = sorted(within, key=lambda index: (index not in self.trained[LAST], -self.expected[index]))
        for index in order:
            yield self.pool.architectures[index], float(self.expected[index])


class Judge:
    """Judges the candidates of all ``contenders``; ``first`` and ``last`` are the trainings of the two stages."""

    def __init__(
        self,
        settings: Finalists,
        contenders: Sequence[Contender],
        counts: Mapping[str, CostModel],
        pool: Pool,
        first: FinalistTraining,
        last: FinalistTraining,
        evidence: Evidence,
        generators: Sequence[np.random.Generator],
        progress: OnProgress,
    ) -> None:
        self.settings, self.contenders, self.pool = settings, contenders, pool
        self.first, self.last, self.evidence, self.progress = first, last, evidence, progress
        self.counts, self.generators = counts, generators
        self.results: dict[str, dict[int, FinalistResult]] = {FIRST: {}, LAST: {}}

    def judge(self) -> Judgement:
        """Train in rounds, then the best of every target further; return what is then expected of all candidates."""
        self._fill_pool()
        for number in range(self.settings.rounds):
            chosen = [self._proposals(contender, number) for contender in self.contenders]
            self._train(FIRST, [index for own in chosen for index in own])
        _, expected = self._fit(FIRST, self.pool.features)
        finals = [
            index for contender in self.contenders for index in self._best(contender, expected, self.settings.last)
        ]
        self._train(LAST, finals)
        features = self.pool.features.with_score(expected)
        _, expected_last = self._fit(LAST, features)
        return Judgement(self.last.sized, self.pool, expected_last, self.results, self._agreement(expected))

    def _fill_pool(self) -> None:
        """Add the preferred candidates of every target, the largest ones, and some at random."""
        found: list[Architecture] = []
        for contender, generator in zip(self.contenders, self.generators, strict=True):
            own = contender.candidates
            found += contender.preferred
            for model in self.counts.values():
                found += own.largest(model.linear()[1], most_proposed(self.settings))
            found += own.sample(self.settings.candidates, generator)
        self._extend(found)

    def _extend(self, architectures: Iterable[Architecture]) -> None:
        self.pool = self.pool.with_others(architectures, self.evidence.executor, self.progress)

    def _proposals(self, contender: Contender, number: int) -> list[int]:
        """Return the pool's indices of the candidates that a target trains in a round."""
        share = -(-self.settings.trainings // self.settings.rounds)
        if number == 0:
            rankings = [self._by_scores(contender), self.pool.indices(contender.preferred)]
            return list(dict.fromkeys(i for turn in zip_longest(*rankings) for i in turn if i is not None))[:share]
        model, _ = self._fit(FIRST, self.pool.features)
        worth = model.by_edge(self.pool.space)
        self._extend(contender.candidates.largest(worth, most_proposed(self.settings)))
        mean, deviation = model.predict(self.pool.features)
        return self._best(contender, mean + EXPLORED * deviation, share, untrained=True)

    def _by_scores(self, contender: Contender) -> list[int]:
        """Return the indices of a target's candidates by the sum of their ranks in all training-free scores."""
        own = np.flatnonzero(contender.candidates.within(self.pool.choices))
        ranks = sum((rankdata(values[own]) for values in self.pool.scores.values()), start=np.zeros(len(own)))
        return [int(own[i]) for i in np.argsort(-ranks, kind="stable")]

    def _best(self, contender: Contender, values: Array, number: int, untrained: bool = False) -> list[int]:
        own = np.flatnonzero(contender.candidates.within(self.pool.choices))
        order = [int(i) for i in own[np.argsort(-values[own], kind="stable")]]
        known = self.results[FIRST]
        return [i for i in order if (i in known) != untrained][:number]

    def _train(self, stage: str, indices: Iterable[int]) -> None:
        shared = self.first if stage == FIRST else self.last
        wanted = [i for i in dict.fromkeys(indices) if i not in self.results[stage]]
        names = {self.pool.space.format(self.pool.architectures[i], all_edges=True): i for i in wanted}
        earlier = self.results[FIRST]
        starts = {
            name: Start(self.pool.architectures[i], earlier[i].weights if stage == LAST else None)
            for name, i in names.items()
        }
        for name, trained in self.evidence.train(stage, shared, starts, self.progress).items():
            self.results[stage][names[name]] = trained

    def _fit(self, stage: str, features: Features) -> tuple[AccuracyModel, Array]:
        """Fit the accuracy model to the results of a stage; also return what it expects of every member of the pool."""
        results = self.results[stage]
        model = AccuracyModel.fit(features.rows(list(results)), np.array([value_of(r) for r in results.values()]))
        return model, model.predict(features)[0]

    def _agreement(self, expected: Array) -> dict[str, float | None]:
        """Return Kendall's tau of each source of evidence with the values of the last stage."""
        last = self.results[LAST]
        index, values = list(last), [value_of(result) for result in last.values()]
        first = np.array([value_of(self.results[FIRST][i]) for i in index])
        sources = {"model": expected[index], "first stage": first}
        sources |= {name: scores[index] for name, scores in self.pool.scores.items()}
        return {name: tau(source, values) for name, source in sources.items()}


def most_proposed(settings: Finalists) -> int:
    """Return the number of candidates that a ranking adds to the pool."""
    return min(PROPOSED, settings.candidates)


def value_of(result: FinalistResult) -> float:
    """Return the value of a training, larger is better: the mean log probability of the right validation classes."""
    return -result.validation_loss


def tau(values: Array, truth: Sequence[float]) -> float | None:
    """Return Kendall's tau; None for fewer than four values, or where either does not vary."""
    if len(truth) < 4:
        return None
    found = float(kendalltau(values, truth).statistic)
    return found if np.isfinite(found) else None
