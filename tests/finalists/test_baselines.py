"""Baselines agree with a list of all architectures, and are trained by default where they are cheap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from hwnas.budgets import derive
from hwnas.budgets.budget import limits_of, parse_budget
from hwnas.budgets.derive import largest
from hwnas.cost.model import CostModel
from hwnas.finalists.baselines import find_baselines, plan_baselines
from hwnas.finalists.candidates import LEAST_USED, Candidates
from hwnas.spaces import DARTS, NASBENCH201, SPACES
from hwnas.spaces.encoding import encode, every_choice, without_dead_edges
from support.searches import COSTS, PREVIEWS, searching

SHORT = {"trainings": 4, "rounds": 2, "candidates": 10, "last": 2, "epochs": 1, "last_epochs": 1}


def candidates_of(space: str, budget: str, inputs_per_node: int | None = None) -> Candidates:
    previews = PREVIEWS[space]
    return Candidates(SPACES[space], limits_of(previews, parse_budget(budget, previews)), inputs_per_node)


def live_counts(model: CostModel, choices: np.ndarray) -> np.ndarray:
    return model.predict_many(without_dead_edges(model.space, choices))


@pytest.mark.parametrize("enumerated", [True, False])
@pytest.mark.parametrize("metric", ["macs", "params"])
def test_the_largest_is_that_of_a_list_of_all(metric: str, enumerated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    own, model = candidates_of("nasbench201", "aggressive,60%-params"), COSTS["nasbench201"][metric]
    choices = every_choice(NASBENCH201)
    most = live_counts(model, choices[own.within(choices)]).max()
    if not enumerated:
        monkeypatch.setattr(derive, "ENUMERABLE", 0)
    found = encode(NASBENCH201, [largest(model, own.limits)])
    assert own.within(found).all()
    assert live_counts(model, found) == most


@pytest.mark.slow
@pytest.mark.parametrize("inputs_per_node", [None, 2])
def test_in_a_large_space_no_change_of_an_edge_is_larger(inputs_per_node: int | None) -> None:
    own, model = candidates_of("darts", "aggressive", inputs_per_node), COSTS["darts"]["macs"]
    found = encode(DARTS, [largest(model, own.limits, inputs_per_node)])
    changed = np.repeat(found, DARTS.num_edges * len(DARTS.operations), axis=0)
    edges = np.repeat(np.arange(DARTS.num_edges), len(DARTS.operations))
    changed[np.arange(len(edges)), edges] = np.tile(np.arange(len(DARTS.operations)), DARTS.num_edges)
    allowed = changed[own.within(changed)]
    assert len(allowed) > 1
    assert live_counts(model, allowed).max() == live_counts(model, found)[0]


def test_a_model_that_is_no_sum_over_edges_is_refused() -> None:
    with pytest.raises(ValueError, match="latency_ms is not a sum over edges"):
        largest(COSTS["nasbench201"]["latency_ms"], {})


@pytest.mark.parametrize(("space", "budget"), [("nasbench201", "moderate"), ("darts", "mild")])
def test_the_random_one_is_any_within_the_budget(space: str, budget: str) -> None:
    """Its operations on the first edge are as frequent as among all within the budget, however little these use."""
    own = candidates_of(space, budget)
    everything = (
        every_choice(own.space)
        if own.space is NASBENCH201
        else np.random.default_rng(1).integers(len(own.space.operations), size=(20_000, own.space.num_edges))
    )
    within = everything[own.within(everything)]
    drawn = [own.draw(np.random.default_rng(seed)) for seed in range(60)]
    choices = encode(own.space, [architecture for architecture in drawn if architecture])
    assert len(choices) == 60
    assert own.within(choices).all()
    kinds = len(own.space.operations)
    expected = np.bincount(within[:, 0], minlength=kinds) / len(within)
    assert chisquare(np.bincount(choices[:, 0], minlength=kinds), 60 * expected).pvalue > 0.001
    assert (own.shares(choices) < LEAST_USED).any()


@pytest.mark.slow
def test_where_too_few_are_within_there_is_no_random_one() -> None:
    own = candidates_of("darts", "mild")
    (limit,) = own.limits.values()
    tight = {"latency_ms": (limit[0], 1.0001 * limit[0].predict(derive.cheapest(limit[0])))}
    found = find_baselines(Candidates(DARTS, tight, None), COSTS["darts"], np.random.default_rng(0))
    assert set(found) == {"most MACs", "most parameters"}


@pytest.mark.slow
def test_they_are_trained_by_default_where_they_are_cheap() -> None:
    many = searching("nasbench201", "snas-short", "mild", "moderate", finalists={**SHORT, "trainings": 12})
    few = searching("nasbench201", "snas-short", "mild", "moderate", finalists=SHORT)
    for search, number in ((many, 3), (few, 0)):
        assert [len(own) for own in plan_baselines(search).baselines] == [number, number]
    assert "at most 28 epochs of 100 images in all" in plan_baselines(many).lines[0]
    assert plan_baselines(few).lines[1].endswith("--baselines trains them")
    asked = searching("nasbench201", "snas-short", "mild", finalists={**SHORT, "baselines": True})
    assert len(plan_baselines(asked).baselines[0]) == 3
    refused = searching("nasbench201", "snas-short", "mild", finalists={**SHORT, "trainings": 50, "baselines": False})
    assert plan_baselines(refused).baselines == [{}]
    assert len(plan_baselines(refused).lines) == 1
