"""Finalists that are proposed in a latent space: within the budget, recorded, trained once, and better than draws."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from hwnas.budgets.budget import limits_of, parse_budget
from hwnas.cost.counts import count_metrics
from hwnas.finalists.candidates import Candidates
from hwnas.finalists.evidence import Advance, Evidence
from hwnas.finalists.finalist import DIVERGED, FinalistResult, FinalistTraining, Start
from hwnas.finalists.judge import Contender, Judge
from hwnas.finalists.judgement import Judgement
from hwnas.finalists.latent import AutoencoderTraining
from hwnas.finalists.pool import Pool, Scoring
from hwnas.jobs.in_process import InProcess
from hwnas.latent import proposals, training
from hwnas.latent.graphs import CellGraphs
from hwnas.recipe import Autoencoder, Finalists, read_recipe
from hwnas.scores import score
from hwnas.spaces import NASBENCH201, SizedSpace
from hwnas.spaces.encoding import encode
from hwnas.training.recipe import training_of
from support.searches import FEW, PREVIEWS
from support.spaces import SMALL

SIZED = SizedSpace(NASBENCH201, SMALL["nasbench201"])
SETTINGS = Finalists(trainings=12, rounds=3, candidates=20, last=2)
AUTOENCODER = Autoencoder(latent=8, width=8, graphs=500, epochs=2)
WORTH = np.random.default_rng(5).normal(size=(6, 5))


@pytest.fixture(autouse=True)
def counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score by counts alone: the other scores take most of the time."""
    monkeypatch.setattr(score, "SCORES", {name: score.SCORES[name] for name in ("params", "macs")})
    monkeypatch.setattr("hwnas.finalists.pool.SCORES", score.SCORES)
    monkeypatch.setattr(training, "_last", {})
    monkeypatch.setattr(proposals, "MOST_DRAWS", 1)
    monkeypatch.setattr(proposals, "DRAWN", 200)
    monkeypatch.setattr(proposals, "AROUND", 100)


@dataclass(frozen=True)
class Oracle(Evidence):
    """Trainings whose validation loss is minus the sum of the operations' worth; those in ``diverging`` diverge."""

    diverging: tuple[str, ...] = ()
    asked: list[str] = field(default_factory=list)

    def train(self, stage, shared, starts: Mapping[str, Start]) -> Generator[Advance, None, dict[str, FinalistResult]]:
        self.asked.extend(starts)
        yield Advance(stage, len(starts), len(starts))
        choices = encode(NASBENCH201, [start.architecture for start in starts.values()])
        values = WORTH[np.arange(6), choices].sum(axis=1).tolist()
        found = {name: FinalistResult(0.0, -value, 0.0, {}) for name, value in zip(starts, values, strict=True)}
        return found | {name: DIVERGED for name in starts if name in self.diverging}


def judged(oracle: Oracle, *budgets: str, autoencoder: Autoencoder = AUTOENCODER) -> tuple[Judgement, list[Advance]]:
    previews = PREVIEWS["nasbench201"]
    limits = [limits_of(previews, parse_budget(budget, previews)) for budget in budgets]
    own = [Candidates(NASBENCH201, limit, None) for limit in limits]
    shared = FinalistTraining.of(SIZED, FEW, training_of(read_recipe("snas-short", {}).child, 0, "cpu"), None)
    judge = Judge(
        SETTINGS,
        [Contender(budget, candidates, []) for budget, candidates in zip(budgets, own, strict=True)],
        {name: count_metrics(SIZED)[name] for name in ("params", "macs")},
        Pool(Scoring(SIZED, FEW.normalise(FEW.train.images[:8]), 0)),
        shared,
        shared,
        oracle,
        [np.random.default_rng(number) for number in range(len(budgets))],
        AutoencoderTraining(CellGraphs(NASBENCH201), autoencoder, 0),
    )
    advances = list(judge.advances())
    return judge.judgement(), advances


@pytest.mark.slow
def test_later_rounds_are_proposed_in_the_latent_space_within_every_budget() -> None:
    oracle = Oracle(InProcess(), "run")
    judgement, advances = judged(oracle, "mild", "aggressive")
    assert [a.done for a in advances if a.stage == "training the graph autoencoder"] == [1, 2, 2]
    record = judgement.record()
    assert record.autoencoder is not None
    assert 0 <= record.autoencoder.reconstructed <= 1
    assert judgement.report().splitlines()[-1].startswith("graph autoencoder: ")
    first = [row for row in record.trainings if row.stage == "first"]
    for budget in ("mild", "aggressive"):
        own = [row for row in first if budget in row.targets]
        assert len(own) == SETTINGS.trainings
        limits = limits_of(PREVIEWS["nasbench201"], parse_budget(budget, PREVIEWS["nasbench201"]))
        candidates = Candidates(NASBENCH201, limits, None)
        assert candidates.within(encode(NASBENCH201, [NASBENCH201.parse(row.architecture) for row in own])).all()
    later = [row for row in first if (row.round or 0) > 1]
    assert later
    assert all(row.predicted is not None and (row.deviation or 0) > 0 for row in later)
    assert len({row.architecture for row in first}) == len(first)


@pytest.mark.slow
def test_an_interrupted_run_trains_no_autoencoder_again_and_ends_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, advances = judged(Oracle(InProcess(), "run"), "moderate")
    files = {name: content for advance in advances for name, content in advance.files.items()}
    (name,) = files
    assert name.startswith("autoencoder-")
    monkeypatch.setattr(training, "_last", {})  # as in another process
    again, resumed = judged(Oracle(InProcess(), "run", files), "moderate")
    assert not [a for a in resumed if "autoencoder" in a.stage]
    assert again.record() == whole.record()


def test_a_proposal_that_diverged_is_not_trained_again() -> None:
    plain = Oracle(InProcess(), "run")
    judged(plain, "moderate")
    diverging = tuple(plain.asked[4:6])  # of the second round
    oracle = Oracle(InProcess(), "run", diverging=diverging)
    judgement, _ = judged(oracle, "moderate")
    first = [row.architecture for row in judgement.record().trainings if row.stage == "first"]
    assert set(diverging) <= set(first)
    assert len(first) == len(set(first)) == SETTINGS.trainings
