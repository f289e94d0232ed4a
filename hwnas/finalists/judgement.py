"""The result of judging: all trainings, and what is expected of every candidate."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from hwnas.cost.model import Array
from hwnas.finalists.candidates import Candidates
from hwnas.finalists.finalist import FinalistResult, FinalistTraining
from hwnas.finalists.pool import Pool
from hwnas.finalists.record import AutoencoderRow, FinalistRow, FinalistsFile
from hwnas.latent.measures import Measures
from hwnas.spaces import Architecture, SizedSpace
from hwnas.training.child import Weights

FIRST, LAST = "first", "last"  # stages of training


@dataclass
class Proposal:
    """Why an architecture is trained: the round and the targets that proposed it, and the baselines that it is.

    ``predicted`` and ``deviation`` are what the accuracy model expected before the training; None in the first round.
    """

    round: int | None
    predicted: float | None
    deviation: float | None
    targets: list[str] = field(default_factory=list)
    baselines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Judgement:
    """The pool, and the value [N] that is expected of each member after the last stage.

    ``training`` is the last stage's, ``epochs`` are those of every stage. ``trained`` are the results of every stage,
    by index in the pool, and ``aside`` those that are no evidence. ``proposals`` are by index, too, ``baselines``
    indices by target and name.
    ``agreement`` is Kendall's tau of each source of evidence with the values that the last stage measured; None where
    these are too few. ``latent`` are the measures of the latent space in which finalists were proposed; None without
    one.
    """

    training: FinalistTraining
    epochs: Mapping[str, int]
    pool: Pool
    expected: Array
    trained: Mapping[str, Mapping[int, FinalistResult]]
    aside: Mapping[str, Collection[int]]
    proposals: Mapping[int, Proposal]
    baselines: Mapping[str, Mapping[str, int]]
    agreement: Mapping[str, float | None]
    latent: Measures | None = None

    @property
    def sized(self) -> SizedSpace:
        """The network that was trained."""
        return self.training.sized

    @property
    def diverged(self) -> set[int]:
        """The indices of the finalists with a training that diverged."""
        return {i for results in self.trained.values() for i, result in results.items() if result.diverged}

    def summary(self) -> FinalistsFile:
        """Return what ``finalists.json`` holds, without the trainings."""
        latent: dict[str, Any] = {"autoencoder": AutoencoderRow(**asdict(self.latent))} if self.latent else {}
        return FinalistsFile(
            setting=asdict(self.sized.setting),
            candidates=len(self.expected),
            trained={stage: len(results) for stage, results in self.trained.items()},
            agreement=dict(self.agreement),
            round_agreement=self._round_agreement(),
            validation_images=len(self.training.data.validation),
            epochs=dict(self.epochs),
            **latent,
        )

    def record(self) -> FinalistsFile:
        """Return what ``finalists.json`` holds."""
        rows = [
            self._row(stage, index, result)
            for stage, results in self.trained.items()
            for index, result in results.items()
        ]
        return self.summary().model_copy(update={"trainings": rows})

    def _row(self, stage: str, index: int, result: FinalistResult) -> FinalistRow:
        proposal = self.proposals[index]
        numbers = (result.training_loss, result.validation_loss, result.validation_accuracy, value_of(result))
        training_loss, loss, accuracy, value = (None if result.diverged else number for number in numbers)
        return FinalistRow(
            stage=stage,
            architecture=self.name_of(index),
            training_loss=training_loss,
            validation_loss=loss,
            validation_accuracy=accuracy,
            value=value,
            predicted=proposal.predicted if stage == FIRST else None,
            deviation=proposal.deviation if stage == FIRST else None,
            round=proposal.round,
            targets=proposal.targets,
            baselines=proposal.baselines,
            evidence=index not in self.aside[stage],
        )

    def name_of(self, index: int) -> str:
        """Return the text of an architecture of the pool."""
        return self.pool.space.format(self.pool.architectures[index], all_edges=True)

    def _round_agreement(self) -> list[float | None]:
        """Return Kendall's tau of the model's predictions before each round with the values of its trainings."""
        rounds: dict[int, list[tuple[float, float]]] = {}
        for index, proposal in self.proposals.items():
            result = self.trained[FIRST][index]
            if proposal.round is not None:
                own = rounds.setdefault(proposal.round, [])
                if proposal.predicted is not None and not result.diverged:
                    own.append((proposal.predicted, value_of(result)))
        return [tau(np.array([p for p, _ in rounds[r]]), [v for _, v in rounds[r]]) for r in sorted(rounds)]

    def report(self) -> str:
        """Return what the user should know, in lines."""
        own = {index for index, proposal in self.proposals.items() if proposal.round is not None}
        first, last = (len(own & self.trained[stage].keys()) for stage in (FIRST, LAST))
        found = {name: value for name, value in self.agreement.items() if value is not None}
        taus = ", ".join(f"{name} {value:+.2f}" for name, value in found.items())
        agreement = f"; Kendall's tau with the longer trainings: {taus}" if found else ""
        line = f"{first} finalists trained, {last} of them longer, out of {len(self.expected)} candidates{agreement}"
        if diverged := sorted(self.diverged):
            names = ", ".join(self.name_of(index) for index in diverged)
            line += f"\n{len(diverged)} of them diverged (their loss was not finite) and rank last: {names}"
        if self.latent:
            line += f"\n{self.latent.describe()}"
        return line

    def result_of(self, architecture: Architecture) -> FinalistResult | None:
        """Return the result of an architecture's last stage; None where it did not reach it, or diverged."""
        index = self.pool.index(architecture)
        result = None if index is None else self.trained[LAST].get(index)
        return None if result is None or result.diverged else result

    def weights_of(self, architecture: Architecture, sized: SizedSpace) -> Weights | None:
        """Return the weights of an architecture after the last stage; None for other sizes, or without such weights."""
        result = self.result_of(architecture) if sized == self.sized else None
        return result.weights if result else None

    def ranking(self, candidates: Candidates) -> Iterator[tuple[Architecture, float]]:
        """Yield the members of the pool that are candidates, with what is expected of each.

        Those whose last stage is evidence come first, and those that diverged last, each group with the best first.
        """
        within, diverged = np.flatnonzero(candidates.within(self.pool.choices)), self.diverged
        first = self.trained[LAST].keys() - self.aside[LAST]
        order = sorted(within, key=lambda index: (index in diverged, index not in first, -self.expected[index]))
        for index in order:
            yield self.pool.architectures[index], float(self.expected[index])


def value_of(result: FinalistResult) -> float:
    """Return the value of a training, larger is better: the mean log probability of the right validation classes."""
    return -result.validation_loss


def tau(values: Array, truth: Sequence[float]) -> float | None:
    """Return Kendall's tau; None for fewer than four values, or where either does not vary."""
    from scipy.stats import kendalltau  # takes most of a second to import

    if len(truth) < 4:
        return None
    found = float(kendalltau(values, truth).statistic)
    return found if np.isfinite(found) else None
