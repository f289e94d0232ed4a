"""The additive accuracy model is a sum over live edges, and its front is that of a list of all architectures."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.budgets import derive, pareto
from hwnas.budgets.pareto import front
from hwnas.finalists.additive import AdditiveModel
from hwnas.spaces import DARTS, NASBENCH201, SearchSpace
from hwnas.spaces.encoding import decode, encode, every_choice, without_dead_edges
from support.searches import COSTS


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(2)


def fitted(space: SearchSpace, generator: np.random.Generator, number: int = 60, images: int = 1000) -> AdditiveModel:
    """Return a model of accuracies whose -log(error) is a sum over live edges, with some noise."""
    worth = generator.normal(0, 0.3, size=(space.num_edges, len(space.operations)))
    choices = generator.integers(len(space.operations), size=(number, space.num_edges))
    live = without_dead_edges(space, choices)
    value = 1.0 + worth[np.arange(space.num_edges), live].mean(axis=1) + generator.normal(0, 0.01, size=number)
    architectures = [decode(space, row) for row in choices]
    return AdditiveModel.fit(space, architectures, 1 - np.exp(-value), images, None)


@pytest.mark.parametrize("space", [NASBENCH201, DARTS], ids=lambda space: space.name)
def test_the_sum_over_edges_is_the_prediction(space: SearchSpace, generator: np.random.Generator) -> None:
    model = fitted(space, generator)
    choices = generator.integers(len(space.operations), size=(200, space.num_edges))
    np.testing.assert_allclose(1 - np.exp(-model.as_sum().predict_many(choices)), model.accuracies(choices), rtol=1e-9)
    low, high = model.accuracies(choices, -1.0), model.accuracies(choices, 1.0)
    assert ((low < model.accuracies(choices)) & (model.accuracies(choices) < high) & (high < 1)).all()


@pytest.mark.slow
def test_accuracies_are_learnt_with_their_error(generator: np.random.Generator) -> None:
    worth = generator.normal(0, 0.5, size=(6, 5))
    choices = without_dead_edges(NASBENCH201, every_choice(NASBENCH201))
    accuracies = 1 - np.exp(-(2 + worth[np.arange(6), choices].mean(axis=1)))
    known = generator.choice(len(choices), 60, replace=False)
    architectures = [decode(NASBENCH201, choices[i]) for i in known]
    model = AdditiveModel.fit(NASBENCH201, architectures, accuracies[known], 100_000, None)
    assert np.corrcoef(model.accuracies(choices), accuracies)[0, 1] > 0.95
    within = (model.accuracies(choices, -2.0) <= accuracies) & (accuracies <= model.accuracies(choices, 2.0))
    assert within.mean() > 0.8


def test_a_faultless_training_counts_as_half_an_error() -> None:
    architectures = [decode(NASBENCH201, row) for row in every_choice(NASBENCH201)[:2]]
    model = AdditiveModel.fit(NASBENCH201, architectures, np.array([1.0, 1.0]), 99, None)
    np.testing.assert_allclose(model.accuracies(encode(NASBENCH201, architectures)), 1 - 0.5 / 100)


@pytest.mark.parametrize("enumerated", [True, False])
def test_the_front_is_that_of_a_list_of_all(
    enumerated: bool, generator: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, costs = fitted(NASBENCH201, generator), COSTS["nasbench201"]
    limits = {"params": (costs["params"], 12_000.0)}
    choices = every_choice(NASBENCH201)
    allowed = derive.follows_rules(NASBENCH201, choices, None) & (costs["params"].predict_many(choices) <= 12_000)
    latency, accuracy = costs["latency_ms"].predict_many(choices[allowed]), model.accuracies(choices[allowed])
    if not enumerated:
        for module in (derive, pareto):
            monkeypatch.setattr(module, "ENUMERABLE", 0)
    found = front(model.worth(), costs["latency_ms"], limits)
    assert found.whole
    for point in found.points:
        ours = 1 - np.exp(-point.worth)
        assert ours == pytest.approx(accuracy[latency <= point.cost + 1e-9].max(), abs=1e-6)
    assert 1 - np.exp(-found.points[-1].worth) == pytest.approx(accuracy.max(), abs=1e-6)
    cheaper = [accuracy[latency < point.cost - 1e-4].max(initial=0) for point in found.points]
    assert (1 - np.exp(-np.array([point.worth for point in found.points])) > cheaper).all()
