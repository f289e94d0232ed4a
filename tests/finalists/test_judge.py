"""Judging by evidence: with trainings whose results are known, and with real ones."""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.budgets.budget import limits_of, parse_budget
from hwnas.cost.counts import count_metrics
from hwnas.errors import HwnasError
from hwnas.finalists.candidates import Candidates
from hwnas.finalists.evidence import Advance, Evidence, read_trainings
from hwnas.finalists.finalist import DIVERGED, FinalistResult, FinalistTraining, Start, train_finalist
from hwnas.finalists.judge import Contender, Judge
from hwnas.finalists.judgement import Judgement
from hwnas.finalists.of_search import judge_of
from hwnas.finalists.pool import Pool, Scoring
from hwnas.jobs.choose import choose_executor
from hwnas.jobs.in_process import InProcess
from hwnas.recipe import Finalists, read_recipe, recorded_recipe
from hwnas.scores import score
from hwnas.spaces import NASBENCH201, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode, every_choice
from hwnas.training.recipe import training_of
from support.searches import FEW, PREVIEWS, searching, unlike
from support.spaces import SMALL

SIZED = SizedSpace(NASBENCH201, SMALL["nasbench201"])
SHORT = {"trainings": 4, "rounds": 2, "candidates": 10, "last": 2, "epochs": 1, "last_epochs": 1, "batch_size": 16}
WORTH = np.random.default_rng(5).normal(size=(6, 5))


@pytest.fixture(autouse=True)
def counts_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Score by counts alone: the other scores take most of the time."""
    monkeypatch.setattr(score, "SCORES", {name: score.SCORES[name] for name in ("params", "macs")})
    monkeypatch.setattr("hwnas.finalists.pool.SCORES", score.SCORES)


def true_value(choices: np.ndarray) -> np.ndarray:
    return WORTH[np.arange(6), choices].sum(axis=1)


@dataclass(frozen=True)
class Oracle(Evidence):
    """Trainings whose validation loss is minus the sum of the operations' worth; ``asked`` counts them by stage.

    Those that are ``diverging`` do so in the stages ``diverging_in``.
    """

    diverging: Collection[str] = ()
    diverging_in: tuple[str, ...] = ("first", "last")
    asked: dict[str, list[str]] = field(default_factory=dict)

    def train(self, stage, shared, starts: Mapping[str, Start]) -> Generator[Advance, None, dict[str, FinalistResult]]:
        self.asked.setdefault(stage, []).extend(starts)
        yield Advance(stage, len(starts), len(starts))
        values = [true_value(encode(NASBENCH201, [start.architecture]))[0] for start in starts.values()]
        found = {name: FinalistResult(0.0, -value, 0.0, {}) for name, value in zip(starts, values, strict=True)}
        diverging = self.diverging if stage in self.diverging_in else ()
        return found | {name: DIVERGED for name in starts if name in diverging}


def judged(
    budgets: tuple[str, ...], settings: Finalists, baselines: tuple[str, ...] = (), **changes: Any
) -> tuple[Judgement, list[Candidates], Oracle]:
    previews = PREVIEWS["nasbench201"]
    limits = [limits_of(previews, parse_budget(budget, previews)) for budget in budgets]
    own = [Candidates(NASBENCH201, limit, None) for limit in limits]
    oracle = Oracle(InProcess(), **changes)
    extra = {text: NASBENCH201.parse(text) for text in baselines}
    training = FinalistTraining.of(SIZED, FEW, training_of(read_recipe("snas-short", {}).child, 0, "cpu"), None)
    images = FEW.normalise(FEW.train.images[:8])
    judge = Judge(
        settings,
        [Contender(budget, candidates, [], extra) for budget, candidates in zip(budgets, own, strict=True)],
        {name: count_metrics(SIZED)[name] for name in ("params", "macs")},
        Pool(Scoring(SIZED, images, 0)),
        training,
        training,
        oracle,
        [np.random.default_rng(number) for number in range(len(budgets))],
    )
    return finished(judge), own, oracle


def finished(judge: Judge, folder: Path | None = None) -> Judgement:
    for advance in judge.advances():
        if folder:
            advance.write(folder)
    return judge.judgement()


@pytest.mark.slow
def test_the_best_within_each_budget_are_found_with_few_trainings() -> None:
    settings = Finalists(trainings=20, rounds=4, candidates=60, last=3)
    judgement, own, oracle = judged(("mild", "moderate", "aggressive"), settings)
    everything = every_choice(NASBENCH201)
    for candidates in own:
        best, value = next(judgement.ranking(candidates))
        choice = encode(NASBENCH201, [best])
        assert candidates.within(choice).all()
        within = everything[candidates.within(everything)]
        assert (true_value(within) > true_value(choice)[0]).mean() < 0.01
        assert value == pytest.approx(true_value(choice)[0], abs=0.5)
    assert len(oracle.asked["first"]) == len(set(oracle.asked["first"])) <= 3 * 20
    assert set(oracle.asked["last"]) <= set(oracle.asked["first"])
    assert len(oracle.asked["last"]) <= 3 * 3
    assert judgement.agreement["first stage"] == 1.0


def test_tighter_limits_are_kept_from_the_same_evidence() -> None:
    judgement, (own,), _ = judged(("mild",), Finalists(trainings=8, rounds=2, candidates=60))
    tighter = Candidates(NASBENCH201, {m: (model, 0.9 * bound) for m, (model, bound) in own.limits.items()}, None)
    found = [architecture for architecture, _ in judgement.ranking(tighter)]
    assert 0 < len(found) < len(list(judgement.ranking(own)))
    assert tighter.within(encode(NASBENCH201, found)).all()


BEST = NASBENCH201.format(decode(NASBENCH201, WORTH.argmax(axis=1)), all_edges=True)
WORST = "|skip_connect~0|+|none~0|none~1|+|skip_connect~0|none~1|none~2|"
FEW_TRAININGS = Finalists(trainings=6, rounds=2, candidates=20, last=2)


def test_baselines_change_no_finalist_and_the_worst_are_no_evidence() -> None:
    alone, (own,), without = judged(("moderate",), FEW_TRAININGS)
    beside, _, compared = judged(("moderate",), FEW_TRAININGS, baselines=(WORST,))
    assert compared.asked["first"] == [*without.asked["first"], WORST]
    assert compared.asked["last"] == [*without.asked["last"], WORST]
    assert next(beside.ranking(own))[0] == next(alone.ranking(own))[0]
    rows = beside.record().trainings
    assert [row.evidence for row in rows if row.architecture == WORST] == [False, False]
    assert all(row.evidence for row in rows if row.architecture != WORST)
    assert [row.baselines for row in rows if row.architecture == WORST] == [[f"moderate: {WORST}"]] * 2
    order = [NASBENCH201.format(architecture, all_edges=True) for architecture, _ in beside.ranking(own)]
    assert order.index(WORST) >= len(without.asked["last"])


def test_a_baseline_that_beats_the_finalists_is_chosen() -> None:
    few = Finalists(trainings=2, rounds=1, candidates=2, last=2)
    alone, (own,), _ = judged(("mild",), few)
    assert own.within(encode(NASBENCH201, [NASBENCH201.parse(BEST)])).all()
    beside, _, _ = judged(("mild",), few, baselines=(BEST,))
    assert NASBENCH201.format(next(alone.ranking(own))[0], all_edges=True) != BEST
    assert NASBENCH201.format(next(beside.ranking(own))[0], all_edges=True) == BEST


@pytest.mark.parametrize("stage", ["first", "last"])
def test_a_finalist_that_diverges_is_named_and_ranks_last(stage: str) -> None:
    alone, (own,), _ = judged(("moderate",), FEW_TRAININGS)
    name = NASBENCH201.format(next(alone.ranking(own))[0], all_edges=True)
    found, _, oracle = judged(("moderate",), FEW_TRAININGS, diverging=(name,), diverging_in=(stage,))
    order = [NASBENCH201.format(architecture, all_edges=True) for architecture, _ in found.ranking(own)]
    assert order[-1] == name
    assert order[0] in oracle.asked["last"]
    assert f"1 of them diverged (their loss was not finite) and rank last: {name}" in found.report()
    (row,) = [row for row in found.record().trainings if row.architecture == name and row.stage == stage]
    assert (row.training_loss, row.validation_loss, row.validation_accuracy, row.value) == (None,) * 4
    json.dumps(found.record().to_json(), allow_nan=False)
    assert found.result_of(NASBENCH201.parse(name)) is None


@pytest.mark.parametrize("stage", ["first", "last"])
def test_where_all_finalists_of_a_target_diverge_there_is_one_error(stage: str) -> None:
    everything = [NASBENCH201.format(decode(NASBENCH201, c), all_edges=True) for c in every_choice(NASBENCH201)]
    with pytest.raises(HwnasError, match="finalists of moderate diverged: their loss was not finite") as error:
        judged(("moderate",), FEW_TRAININGS, diverging=set(everything), diverging_in=(stage,))
    assert error.value.fix == "lower finalists.optimizer.lr in the recipe (now 0.1)"


def test_a_training_at_a_wild_learning_rate_diverges() -> None:
    wild = {"child.epochs": 1, "child.optimizer.lr": 1e30, "child.optimizer.clip_norm": 1e30}
    recipe = read_recipe("snas-short", wild)
    shared = FinalistTraining.of(SIZED, FEW, training_of(recipe.child, 0, "cpu"), None)
    result = train_finalist(shared, Start(NASBENCH201.parse(WORST)))
    assert result.diverged
    assert not result.weights


@pytest.mark.slow
def test_real_trainings_resume_and_do_not_depend_on_workers(tmp_path: Path) -> None:
    search = searching(
        "nasbench201", "snas-short", "mild", "aggressive", finalists={**SHORT, "rounds": 1, "trainings": 2}
    )
    whole = finished(judge_of(search, Evidence(choose_executor("local", 2), "run"), SIZED), tmp_path)
    files = sorted((tmp_path / "finalists").iterdir())
    assert len(files) == sum(len(results) for results in whole.trained.values())
    for file in files[::2]:  # as if interrupted
        file.unlink()
    kept = {file: file.stat().st_mtime_ns for file in files[1::2]}
    kept_files = Evidence(InProcess(), "run", read_trainings(tmp_path, "run"))
    again = finished(judge_of(search, kept_files, SIZED), tmp_path)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert sorted((tmp_path / "finalists").iterdir()) == files
    assert again.record() == whole.record()
    for stage, results in whole.trained.items():
        assert not unlike([r.weights for r in results.values()], [r.weights for r in again.trained[stage].values()])
    target = search.targets[0]
    best, _ = next(whole.ranking(Candidates(search.space, target.limits, None)))
    weights = whole.weights_of(best, search.sized)
    child = search.supernet.child(best)
    child.load_state_dict(weights)  # those of a child of the same sizes
    assert whole.weights_of(best, SizedSpace.named(NASBENCH201)) is None


def test_a_damaged_training_is_one_clear_error(tmp_path: Path) -> None:
    Advance("training", 1, 1, {"first-1.pt": b"no tensors"}).write(tmp_path)
    with pytest.raises(HwnasError, match=r"first-1\.pt is truncated"):
        read_trainings(tmp_path, "run")


def test_no_test_images_and_no_random_state_reach_a_training() -> None:
    training = training_of(read_recipe("snas-short", {"child.epochs": 1}).child, 0, "cpu")
    shared = FinalistTraining.of(SIZED, FEW, training, None)
    with pytest.raises(ValueError, match="test images were not sent"):
        shared.data.load_test()
    architecture = NASBENCH201.parse("|nor_conv_3x3~0|+|none~0|skip_connect~1|+|none~0|none~1|nor_conv_1x1~2|")
    torch.manual_seed(1)
    first = train_finalist(shared, Start(architecture))
    torch.manual_seed(2)
    second = train_finalist(pickle.loads(pickle.dumps(shared)), Start(architecture))
    assert first.validation_loss == second.validation_loss
    assert not unlike(first.weights, second.weights)
    longer = train_finalist(shared, Start(architecture, first.weights))
    assert longer.validation_loss < first.validation_loss


def test_recipes_without_finalists_are_written_as_before() -> None:
    none = read_recipe("snas-short", {}).model_copy(update={"finalists": None})
    assert "finalists" not in none.model_dump(mode="json")
    assert recorded_recipe(none.model_dump(mode="json")) == none
    assert read_recipe("snas-short", {"finalists.trainings": 5}).model_dump()["finalists"]["trainings"] == 5


OWN = """
name: own
operations: [none, skip_connect, nor_conv_3x3]
cells:
  cell: {nodes: 2}
network:
  stages: [{cell: cell}]
settings:
  small: {channels: 4, depth: 1, height: 16, width: 16}
"""


@pytest.mark.parametrize("spec", ["nasbench201", "darts", "own.yaml"])
def test_a_space_is_sent_to_another_process_by_its_definition(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(OWN)
    sized = SizedSpace.named(get_space(spec))
    content = pickle.dumps(sized)
    Path("own.yaml").unlink()
    sent = pickle.loads(content)
    assert sent == sized
    assert sent.network == sized.network
