"""Training of networks of words: dropout, the best epoch by perplexity, bit-identical resumption."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hwnas.networks.child import ChildNetwork
from hwnas.training.child import Trainer, best_of
from hwnas.training.evaluation import quality_of
from hwnas.training.quality import perplexity_of
from hwnas.training.recipe import read_training
from hwnas.training.training_row import TrainingRow
from support.text import RECURRENT, small_sized, small_text

RECIPE = read_training("text", {"epochs": 3, "batch_size": 16, "compute": "cpu"})


def trainer(folder: Path) -> Trainer:
    torch.manual_seed(0)
    child = ChildNetwork(small_sized(), RECURRENT.parse("|tanh~0|+|relu~0|none~1|+|none~0|identity~1|sigmoid~2|"))
    return Trainer(child, small_text(folder), RECIPE)


def test_training_with_dropout_resumes_bit_identically(tmp_path: Path) -> None:
    whole, begun, resumed = (trainer(tmp_path) for _ in range(3))
    assert whole.total_steps > 5
    while not whole.over:
        whole.take_step()
    for _ in range(whole.total_steps - 2):
        begun.take_step()
    resumed.load_state(begun.state())
    while not resumed.over:
        resumed.take_step()
    assert resumed.history == whole.history
    for name, tensor in whole.child.state_dict().items():
        assert torch.equal(tensor, resumed.child.state_dict()[name])


def test_evaluation_drops_nothing(tmp_path: Path) -> None:
    """Twice the same perplexity, that of the history."""
    done = trainer(tmp_path)
    while not done.over:
        done.take_step()
    found = [quality_of(done.evaluated.eval(), done.data, done.data.validation) for _ in range(2)]
    assert found[0] == found[1] == done.history[-1].quality


def test_the_best_epoch_has_the_least_perplexity() -> None:
    rows = [
        TrainingRow(
            epoch=epoch, loss=1.0, learning_rate=1.0, drop_path=0.0, train_accuracy=0.5,
            validation_accuracy=accuracy, validation_perplexity=perplexity,
        )
        for epoch, accuracy, perplexity in ((1, 0.3, 120.0), (2, 0.2, 90.0), (3, 0.4, 100.0))
    ]  # fmt: skip
    assert best_of(rows).epoch == 2
    assert rows[1].quality.bound(2) == "perplexity below the 90.00"
    assert "training 50.0% of words  validation perplexity 90.0" in rows[1].describe()


def test_a_loss_that_is_not_a_number_is_the_worst() -> None:
    assert perplexity_of(float("nan")) == perplexity_of(float("inf")) > perplexity_of(600.0)
    assert perplexity_of(0.0) == pytest.approx(1.0)
