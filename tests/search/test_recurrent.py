"""Searches of recurrent cells on text: each method keeps its budget and resumes to the bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.networks.dropout import Dropout
from hwnas.recipe import known_recipes, recipe_of
from hwnas.training.batches import EpochSums
from support.searches import assert_resumes, searching
from support.text import RECURRENT, small_text, text_searching

METHODS = ("advantagenas", "darts", "enas", "gdas", "random", "snas")
FEW_SCORED = {"selection": {"name": "best_of", "samples": 8}}
FEW = {"random": FEW_SCORED, "enas": {"learning": {"name": "reinforce", "samples": 3, "every": 2}, **FEW_SCORED}}


def test_every_method_has_a_recipe_for_both_spaces() -> None:
    for space in ("recurrent", "recurrent-darts"):
        assert tuple(name.split("/")[1] for name in known_recipes() if name.startswith(f"{space}/")) == METHODS
        assert recipe_of("snas", space, "text:a.txt") == f"{space}/snas"


@pytest.mark.parametrize("method", METHODS)
def test_a_search_keeps_its_budget_and_resumes_to_the_bit(tmp_path: Path, method: str) -> None:
    data = small_text(tmp_path)
    search = assert_resumes(
        lambda: text_searching(
            "recurrent", f"recurrent/{method}", "aggressive", data=data, batch_size=8, **FEW.get(method, {})
        ),
        tmp_path,
    )
    (target,) = search.targets
    chosen = search.evaluator.choose(target)
    assert all(model.predict(chosen) <= bound for model, bound in target.limits.values())
    (row,) = search.epoch_report()
    quality = search.evaluator.quality(search.evaluator.current_best(target))
    assert row.validation_perplexity == quality.perplexity
    assert f"validation perplexity {row.validation_perplexity:,.1f}" in row.describe()
    assert 0 <= row.train_accuracy <= 1


def test_perplexity_is_that_of_the_scores(tmp_path: Path) -> None:
    data = small_text(tmp_path)
    search = text_searching("recurrent", "recurrent/random", data=data, batch_size=8)
    architecture = RECURRENT.parse("|tanh~0|+|tanh~0|none~1|+|none~0|relu~1|relu~2|")
    with torch.no_grad():
        scores = search.supernet.run_architecture(data.validation.images, architecture)
    loss = torch.nn.functional.cross_entropy(scores, data.validation.targets.flatten())
    assert search.evaluator.quality(architecture).perplexity == pytest.approx(math.exp(loss), rel=1e-4)
    assert data.reward(loss, torch.tensor(0), 8) == pytest.approx(80 / math.exp(loss), rel=1e-4)


def test_shares_are_of_the_words_of_a_text_shorter_than_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, counted = small_text(tmp_path), list[int]()
    monkeypatch.setattr(EpochSums, "add", lambda sums, loss, correct, images: counted.append(images))
    text_searching("recurrent", "recurrent/random", data=data, batch_size=10_000).take_step()
    assert counted == [data.train.targets.numel()]


def test_a_search_learns(tmp_path: Path) -> None:
    """A word of the small text has two successors at most but for the ends of lines."""
    changes = {"batch_size": 8, "epochs": 12, "dropout": 0.0}
    search = text_searching("recurrent", "recurrent/advantagenas", data=small_text(tmp_path), **changes)
    before = search.evaluator.quality(search.evaluator.current_best(search.targets[0])).perplexity
    while not search.over:
        search.take_step()
    after = search.evaluator.quality(search.evaluator.current_best(search.targets[0])).perplexity
    assert before is not None
    assert after is not None
    assert after < 0.7 * before


@pytest.mark.parametrize(
    "changes", [{"drop_path": 0.3}, {"partial_channels": 2}, {"shared_features": True}, {"finalists.trainings": 4}]
)
def test_settings_of_images_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(HwnasError, match=f"{next(iter(changes)).split('.')[0]} is for networks of images"):
        text_searching("recurrent", "recurrent/snas", **changes)


def test_dropout_is_refused_for_images() -> None:
    with pytest.raises(HwnasError, match="dropout is for networks of words, and this is one of images"):
        searching("nasbench201", "snas", dropout=0.3)


def test_dropout_drops_channels_of_the_weights_batches_alone(tmp_path: Path) -> None:
    """The supernet is then the child with the same channels dropped; the logits' batches keep all."""
    search = text_searching("recurrent", "recurrent/advantagenas", data=small_text(tmp_path), batch_size=8, dropout=0.5)
    (target,), step = search.targets, search.current_step
    draw = step.draw(target, Purpose.WEIGHTS_DRAW)
    words, following = step.last_batch.read("weights", 0)
    architecture = RECURRENT.architecture(([RECURRENT.operations[o] for o in draw.chosen["cell"].tolist()],))
    child = search.supernet.child(architecture)

    def expected(drop: Dropout | None) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(child.values(words, drop)[len(child.parts) - 1], following)

    generator = torch.Generator().manual_seed(3)
    dropped = expected(Dropout(0.5, torch.Generator().manual_seed(3), len(words), slice(None)))
    with torch.no_grad():
        loss = step.task_loss(target, draw, "weights", generator).task
        whole = step.task_loss(target, draw, "weights").task
    torch.testing.assert_close(loss, dropped)
    torch.testing.assert_close(whole, expected(None))
    assert loss != whole
