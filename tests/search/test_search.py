"""A search step by step: temperature, turns of targets, warm-up, evaluation."""

from __future__ import annotations

import json

import pytest
import torch

from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.recipe import read_recipe
from hwnas.search.distribution import DrawContext
from hwnas.search.epoch_row import EpochRow
from hwnas.search.methods.snas import Concrete
from hwnas.spaces import SPACES
from support.searches import DATA, make_search, searching


def test_concrete_samples_choose_by_the_probabilities() -> None:
    """The most likely entry of a concrete sample is distributed as softmax(logits) (Maddison et al. 2017, prop. 1)."""
    from scipy.stats import chisquare

    concrete = Concrete(SPACES["nasbench201"], read_recipe("snas-short", {}), torch.Generator())
    concrete.logits["cell"] = torch.nn.Parameter(torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]]).repeat(20_000, 1))
    concrete.allowed_cell = concrete.allowed_cell[:1].expand(20_000, -1)
    sample = concrete.draw(DrawContext(torch.Generator().manual_seed(0), 0.5)).mixture["cell"].detach()
    torch.testing.assert_close(sample.sum(dim=1), torch.ones(20_000))
    counts = torch.bincount(sample.argmax(dim=1), minlength=5).numpy()
    expected = torch.softmax(concrete.logits["cell"][0].detach(), dim=0).double().numpy()
    assert chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3
    cold = concrete.draw(DrawContext(torch.Generator().manual_seed(0), 0.01)).mixture["cell"]
    assert float((cold.max(dim=1).values > 0.99).float().mean()) > 0.95


def test_temperature_is_linear_in_the_epoch() -> None:
    search = make_search("nasbench201", read_recipe("snas-short", {"epochs": 4, "batch_size": 1078}))
    temperatures = []
    for epoch in range(4):
        search.step = epoch * search.schedule.steps_per_epoch
        temperatures.append(search.current_step.draw_context(Purpose.WEIGHTS_DRAW).temperature)
    assert temperatures == pytest.approx([1.0, 0.7, 0.4, 0.1])


def test_several_budgets_take_turns_and_share_the_weights() -> None:
    recipe = read_recipe("snas-short", {"batch_size": 8, "logits_warm_up": 0.0})
    search = make_search("nasbench201", recipe, ("mild", "aggressive"))
    first, second = ({k: v.detach().clone() for k, v in t.logits.items()} for t in search.targets)
    search.take_step()
    assert not torch.equal(search.targets[0].logits["cell"], first["cell"])
    assert torch.equal(search.targets[1].logits["cell"], second["cell"])
    search.take_step()
    assert not torch.equal(search.targets[1].logits["cell"], second["cell"])


def test_a_target_without_a_step_in_an_epoch_has_no_loss() -> None:
    search = searching("nasbench201", "snas-short", "mild", "aggressive", batch_size=100, epochs=2)
    assert search.schedule.steps_per_epoch == 1
    for trained in (0, 1):
        search.take_step()
        for index, row in enumerate(search.epoch_report()):
            written = row.to_json()
            again = EpochRow.model_validate(json.loads(json.dumps(written)))
            assert again.describe() == row.describe()
            if index == trained:
                assert written["train_loss"] > 0
                assert f"loss {written['train_loss']:.3f}  validation" in row.describe()
            else:
                assert written["train_loss"] is None
                assert written["train_accuracy"] is None
                assert "  no step in this epoch  validation" in row.describe()
                older = written | {"train_loss": 0.0, "train_accuracy": 0.0}
                assert EpochRow.model_validate(older).describe() == row.describe()


@pytest.mark.slow
def test_logits_wait_for_the_weights() -> None:
    recipe = read_recipe("snas-short", {"batch_size": 539, "epochs": 4, "logits_warm_up": 0.5})
    search = make_search("nasbench201", recipe)
    assert search.schedule.steps_per_epoch == 2
    start = search.targets[0].logits["cell"].detach().clone()
    weights = [p.detach().clone() for p in search.supernet.parameters()]
    for _ in range(4):
        search.take_step()
        assert torch.equal(search.targets[0].logits["cell"], start)
    assert not all(torch.equal(a, b) for a, b in zip(weights, search.supernet.parameters(), strict=True))
    search.take_step()
    assert not torch.equal(search.targets[0].logits["cell"], start)


def test_validation_changes_nothing_in_the_supernet() -> None:
    search = make_search("nasbench201", read_recipe("snas-short", {"batch_size": 8}))
    search.take_step()
    before = {k: v.clone() for k, v in search.supernet.state_dict().items()}
    search.evaluator.validate(search.evaluator.choose(search.targets[0]))
    assert all(torch.equal(v, before[k]) for k, v in search.supernet.state_dict().items())


@pytest.mark.slow
def test_a_search_never_reads_the_test_images() -> None:
    def forbidden() -> None:
        raise AssertionError("the search read the test images")

    recipe = read_recipe("snas-short", {"batch_size": 256, "epochs": 1})
    data = type(DATA)(DATA.name, DATA.labels, DATA.train, DATA.validation, forbidden, DATA.flip)  # type: ignore[arg-type]
    search = make_search("nasbench201", recipe, data=data)
    while search.step < search.schedule.total_steps:
        search.take_step()
    assert search.epoch_report()[0].validation_accuracy > 0


def test_a_loss_that_is_not_finite_stops_the_search() -> None:
    search = make_search("nasbench201", read_recipe("snas-short", {"batch_size": 8}))
    with torch.no_grad():
        next(search.supernet.parameters()).fill_(float("nan"))
    with pytest.raises(HwnasError, match="loss became nan"):
        search.take_step()
