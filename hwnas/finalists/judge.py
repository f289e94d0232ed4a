"""Choose architectures by evidence: propose finalists, train them for real, learn from them, propose again.

All targets of a run share the evidence, because an accuracy does not depend on a device. In each round every target
takes the candidates that look best and have not been trained yet; after it, one accuracy model is fitted to all
trainings. In the end each target's best are trained further (successive halving: Jamieson & Talwalkar, AISTATS 2016). A
model that is fitted to these, with the first model's prediction as a score, ranks the candidates.

With a graph autoencoder the finalists of every round but the first are proposed in its latent space (hwnas.latent);
where too few of its proposals are within a budget, those of the accuracy model follow.

Baselines (hwnas.finalists.baselines) are trained last and change no proposal. One that is worse than all finalists of
its target is no evidence, because it would say little about the best and stretch the scale of the values. The others
are evidence like the finalists, so a baseline that is better than these is chosen.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import numpy as np

from hwnas.cost.model import Array, CostModel
from hwnas.errors import HwnasError
from hwnas.finalists.accuracy_model import AccuracyModel, Features
from hwnas.finalists.candidates import Candidates
from hwnas.finalists.evidence import Advance, Evidence
from hwnas.finalists.finalist import FinalistResult, FinalistTraining, Start
from hwnas.finalists.judgement import FIRST, LAST, Judgement, Proposal, tau, value_of
from hwnas.finalists.latent import AutoencoderTraining
from hwnas.finalists.pool import Pool
from hwnas.latent.latent_space import LatentSpace
from hwnas.latent.measures import Measures, measure
from hwnas.latent.proposals import LatentSearch
from hwnas.recipe import Finalists
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import decode

EXPLORED = 0.5  # standard deviations that are added to a prediction when the next finalists are proposed
PROPOSED = 20  # the most candidates that a ranking adds to the pool
Prediction = tuple[float, float]  # the value that is expected of an architecture, and its standard deviation


@dataclass(frozen=True)
class Contender:
    """One target: its candidates, the architectures that the search's method prefers, and baselines by name.

    The best of the preferred is first.
    """

    name: str
    candidates: Candidates
    preferred: Sequence[Architecture]
    baselines: Mapping[str, Architecture] = field(default_factory=dict)


class Judge:
    """Judges the candidates of all ``contenders``; ``first`` and ``last`` are the trainings of the two stages.

    ``autoencoder`` is the one in whose latent space finalists are proposed; None: the accuracy model proposes them.

    Iterate over ``advances``, then call ``judgement``.
    """

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
        autoencoder: AutoencoderTraining | None = None,
    ) -> None:
        self.settings, self.contenders, self.pool = settings, contenders, pool
        self.first, self.last, self.evidence = first, last, evidence
        self.counts, self.generators, self.autoencoder = counts, generators, autoencoder
        self.latent_space: LatentSpace | None = None
        self.measures: Measures | None = None
        self.results: dict[str, dict[int, FinalistResult]] = {FIRST: {}, LAST: {}}
        self.aside: dict[str, set[int]] = {FIRST: set(), LAST: set()}
        self.proposals: dict[int, Proposal] = {}
        self.baselines: dict[str, dict[str, int]] = {}

    def advances(self) -> Iterator[Advance]:
        """Train in rounds, then the best of every target further, then the baselines; yield every advance.

        Raises HwnasError where all finalists of a target diverge.
        """
        yield from self._fill_pool()
        for number in range(self.settings.rounds):
            chosen: list[int] = []
            for contender, generator in zip(self.contenders, self.generators, strict=True):
                chosen += yield from self._proposals(contender, generator, number)
            yield from self._train(FIRST, chosen)
            if not self._sound(FIRST):
                self._require_some(FIRST)
        self._require_some(FIRST)
        _, expected = self._fit(FIRST, self.pool.features)
        yield from self._train(LAST, [i for c in self.contenders for i in self._best(c, expected, self.settings.last)])
        self._require_some(LAST)
        yield from self._train_baselines()

    def judgement(self) -> Judgement:
        """Return what is expected of all candidates after ``advances``."""
        _, expected = self._fit(FIRST, self.pool.features)
        _, expected_last = self._fit(LAST, self.pool.features.with_score(expected))
        agreement = self._agreement(expected)
        trained, reasons = (self.results, self.aside), (self.proposals, self.baselines)
        epochs = {FIRST: self.first.training.epochs, LAST: self.last.training.epochs}
        return Judgement(self.last, epochs, self.pool, expected_last, *trained, *reasons, agreement, self.measures)

    def _fill_pool(self) -> Iterator[Advance]:
        """Add the preferred candidates of every target, the largest ones, and some at random."""
        found: list[Architecture] = []
        for contender, generator in zip(self.contenders, self.generators, strict=True):
            own = contender.candidates
            found += contender.preferred
            for model in self.counts.values():
                found += own.largest(model.linear()[1], most_proposed(self.settings))
            found += own.sample(self.settings.candidates, generator)
        yield from self._extend(found)

    def _extend(self, architectures: Iterable[Architecture]) -> Iterator[Advance]:
        self.pool = yield from self.pool.with_others(architectures, self.evidence.executor)

    def _proposals(
        self, contender: Contender, generator: np.random.Generator, number: int
    ) -> Generator[Advance, None, list[int]]:
        """Return the pool's indices of the candidates that a target trains in a round."""
        share = -(-self.settings.trainings // self.settings.rounds)
        found: dict[int, Prediction | None] = {}
        if number == 0:
            own = np.flatnonzero(contender.candidates.within(self.pool.choices))
            rankings = [self.pool.by_scores(own), self.pool.indices(contender.preferred)]
            indices = dict.fromkeys(i for turn in zip_longest(*rankings) for i in turn if i is not None)
            found |= dict.fromkeys(list(indices)[:share])
        elif self.autoencoder:
            found |= yield from self._by_latent_space(self.autoencoder, contender, generator, share)
        if number and len(found) < share:
            others = yield from self._by_accuracy_model(contender, share)
            new = [index for index in others if index not in found][: share - len(found)]
            found |= {index: others[index] for index in new}
        for index, prediction in found.items():
            self._propose(index, number + 1, prediction).targets.append(contender.name)
        return list(found)

    def _by_accuracy_model(self, contender: Contender, number: int) -> Generator[Advance, None, dict[int, Prediction]]:
        """Return the candidates that look best to the accuracy model and have not been trained, by index."""
        model, _ = self._fit(FIRST, self.pool.features)
        worth = model.by_edge(self.pool.space)
        yield from self._extend(contender.candidates.largest(worth, most_proposed(self.settings)))
        mean, deviation = model.predict(self.pool.features)
        found = self._best(contender, mean + EXPLORED * deviation, number, untrained=True)
        return {index: (float(mean[index]), float(deviation[index])) for index in found}

    def _by_latent_space(
        self, autoencoder: AutoencoderTraining, contender: Contender, generator: np.random.Generator, number: int
    ) -> Generator[Advance, None, dict[int, Prediction]]:
        """Return the candidates that are proposed in the latent space and have not been trained, by index."""
        if self.latent_space is None:
            self.latent_space = yield from autoencoder.latent_space(self.evidence)
            self.measures = measure(self.latent_space)
        sound = self._sound(FIRST)
        search = LatentSearch(self.latent_space, contender.candidates.within)
        values = np.array([value_of(result) for result in sound.values()])
        diverged = len(self.results[FIRST]) - len(sound)  # could be proposed again
        proposed = search.propose(self.pool.choices[list(sound)], values, number + diverged, generator)
        architectures = [decode(self.pool.space, choices) for choices in proposed.choices]
        yield from self._extend(architectures)
        predictions = zip(proposed.expected.tolist(), proposed.deviation.tolist(), strict=True)
        found = dict(zip(self.pool.indices(architectures), predictions, strict=True))
        new = [index for index in found if index not in self.results[FIRST]][:number]
        return {index: found[index] for index in new}

    def _propose(self, index: int, number: int | None, prediction: Prediction | None) -> Proposal:
        """Return the proposal of a member of the pool; that of this round, with a prediction, if it is its first."""
        return self.proposals.setdefault(index, Proposal(number, *(prediction or (None, None))))

    def _best(self, contender: Contender, values: Array, number: int, untrained: bool = False) -> list[int]:
        own = np.flatnonzero(contender.candidates.within(self.pool.choices))
        order = [int(i) for i in own[np.argsort(-values[own], kind="stable")]]
        known = self.results[FIRST] if untrained else self._sound(FIRST)
        return [i for i in order if (i in known) != untrained][:number]

    def _train(self, stage: str, indices: Iterable[int]) -> Iterator[Advance]:
        shared = self.first if stage == FIRST else self.last
        wanted = [i for i in dict.fromkeys(indices) if i not in self.results[stage]]
        names = {self.pool.space.format(self.pool.architectures[i], all_edges=True): i for i in wanted}
        earlier = self.results[FIRST]
        starts = {
            name: Start(self.pool.architectures[i], earlier[i].weights if stage == LAST else None)
            for name, i in names.items()
        }
        results = yield from self.evidence.train(stage, shared, starts)
        for name, trained in results.items():
            self.results[stage][names[name]] = trained

    def _train_baselines(self) -> Iterator[Advance]:
        """Train every target's baselines as its finalists were; set those aside that are worse than all of these."""
        if not any(c.baselines for c in self.contenders):
            return
        worst = {c.name: min(map(value_of, self._sound(LAST, c).values())) for c in self.contenders}
        yield from self._extend(a for c in self.contenders for a in c.baselines.values())
        model, _ = self._fit(FIRST, self.pool.features)
        mean, deviation = model.predict(self.pool.features)
        self.baselines = {
            c.name: {name: self.pool.indices([a])[0] for name, a in c.baselines.items()} for c in self.contenders
        }
        for target, own in self.baselines.items():
            for name, index in own.items():
                prediction = (float(mean[index]), float(deviation[index]))
                self._propose(index, None, prediction).baselines.append(f"{target}: {name}" if target else name)
        wanted = [index for own in self.baselines.values() for index in own.values()]
        new = {stage: set(wanted) - self.results[stage].keys() for stage in (FIRST, LAST)}
        yield from self._train(FIRST, wanted)
        yield from self._train(LAST, [i for i in wanted if not self.results[FIRST][i].diverged])
        good = {
            index
            for target, own in self.baselines.items()
            for index in own.values()
            if (result := self.results[LAST].get(index)) and value_of(result) >= worst[target]
        }
        self.aside = {stage: indices - good for stage, indices in new.items()}

    def _sound(self, stage: str, contender: Contender | None = None) -> dict[int, FinalistResult]:
        """Return the results of a stage that are evidence, by index; on request those of one target's candidates."""
        results = self.results[stage]
        index = [i for i, result in results.items() if i not in self.aside[stage] and not result.diverged]
        if contender:
            index = self._own(contender, index)
        return {i: results[i] for i in index}

    def _own(self, contender: Contender, index: Sequence[int]) -> list[int]:
        """Return those members of the pool that are candidates of a target."""
        within = contender.candidates.within(self.pool.choices[list(index)]) if index else ()
        return [i for i, own in zip(index, within, strict=True) if own]

    def _require_some(self, stage: str) -> None:
        """Raise HwnasError for a target all of whose finalists diverged in a stage."""
        for contender in self.contenders:
            own = self._own(contender, list(self.results[stage]))
            if all(self.results[stage][index].diverged for index in own):
                raise HwnasError(
                    f"all {len(own)} finalists{f' of {contender.name}' * bool(contender.name)} diverged: "
                    "their loss was not finite",
                    f"lower finalists.optimizer.lr in the recipe (now {self.settings.optimizer.lr:g})",
                )

    def _fit(self, stage: str, features: Features) -> tuple[AccuracyModel, Array]:
        """Fit the accuracy model to the results of a stage; also return what it expects of every member of the pool."""
        results = self._sound(stage)
        model = AccuracyModel.fit(features.rows(list(results)), np.array([value_of(r) for r in results.values()]))
        return model, model.predict(features)[0]

    def _agreement(self, expected: Array) -> dict[str, float | None]:
        """Return Kendall's tau of each source of evidence with the values of the last stage."""
        last = self._sound(LAST)
        index, values = list(last), [value_of(result) for result in last.values()]
        first = np.array([value_of(self.results[FIRST][i]) for i in index])
        sources = {"model": expected[index], "first stage": first}
        sources |= {name: scores[index] for name, scores in self.pool.scores.items()}
        return {name: tau(source, values) for name, source in sources.items()}


def most_proposed(settings: Finalists) -> int:
    """Return the number of candidates that a ranking adds to the pool."""
    return min(PROPOSED, settings.candidates)
