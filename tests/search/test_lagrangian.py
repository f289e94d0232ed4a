"""Dual ascent brings expected cost to the budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hwnas.budgets.budget import preview
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.model import build_cost_models
from hwnas.recipe import read_recipe
from hwnas.search.distribution import DrawContext
from hwnas.search.lagrangian import dual_ascent, penalty_of, relative_costs
from hwnas.search.methods.snas import Concrete
from hwnas.spaces import SizedSpace, get_space
from hwnas.training.optimizers import make_optimizer
from support.searches import make_search, plain_recipe
from support.spaces import CELL_SPACES, SEARCH_SPACES, SMALL
from support.tables import make_table


def test_multipliers_rise_over_and_fall_within_the_budget() -> None:
    multipliers = torch.tensor([0.5, 0.01], dtype=torch.float64)
    moved = dual_ascent(multipliers, torch.tensor([1.5, 0.5]), rate=0.1)
    assert moved.tolist() == pytest.approx([0.51, 0.0])  # what is far over counts as a tenth over


@pytest.mark.slow
def test_dual_ascent_alone_brings_expected_cost_to_the_budget() -> None:
    """The task always rewards the same operation; E[C] must settle at the budget."""
    space, sizes = get_space("nasbench201"), SMALL["nasbench201"]
    model = build_cost_models(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))["latency_ms"]
    bound = preview({"latency_ms": model})["latency_ms"].percentile(25)
    logits = torch.zeros(6, 5, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.05)
    multiplier, cost = torch.zeros(1, dtype=torch.float64), ExpectedCost(model)
    history = []
    for _ in range(1500):
        relative = cost({"cell": logits.softmax(-1)}).reshape(1) / bound
        loss = -0.5 * logits.softmax(-1)[:, 3].mean() + penalty_of(multiplier, relative, damping=2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        multiplier = dual_ascent(multiplier, relative, 0.01)
        history.append(float(relative.detach()))
    assert history[0] > 1.2  # where it starts, the budget is broken
    assert np.array(history[-300:]) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
@pytest.mark.parametrize("pull", [0.5, 3.0])
@pytest.mark.parametrize(
    ("shipped", "steps", "share"),
    [
        *(("snas-short", 440, share) for share in (0.3, 0.5, 0.7, 0.95)),
        ("snas-hour", 1000, 0.3),
        ("snas-hour", 1000, 0.95),
    ],
)
def test_dual_ascent_brings_expected_cost_to_the_budget(
    name: str, pull: float, shipped: str, steps: int, share: float
) -> None:
    """Binding budgets between the least and the greatest latency, with weak and strong gradients of the task."""
    assert 0.95 < constrained(name, share, pull, shipped, steps) < 1.05


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
@pytest.mark.parametrize("pull", [0.5, 3.0])
def test_lambda_does_not_wind_up_where_the_logits_are_slow(name: str, pull: float) -> None:
    """A tight budget and few steps: E[C] is far over the budget in half of them."""
    assert 0.75 < constrained(name, 0.1, pull, "snas-short", 54) < 1.1


def constrained(name: str, share: float, pull: float, shipped: str, steps: int) -> float:
    """Return the final E[C] / B with a recipe's settings, on a noisy task that rewards every slower operation.

    The budget lies at ``share`` between the least and the greatest latency.
    """
    seed = 0
    space, sizes, recipe = CELL_SPACES[name], SMALL[name], read_recipe(shipped, {})
    model = build_cost_models(make_table(SizedSpace(space, sizes), seed), SizedSpace(space, sizes))["latency_ms"]
    spread = preview({"latency_ms": model})["latency_ms"]
    bound = spread.least + share * (spread.greatest - spread.least)
    generator = torch.Generator().manual_seed(seed)
    concrete = Concrete(space, recipe, generator)
    optimizer = make_optimizer(recipe.logits, concrete.parameters())
    multiplier, costs = torch.zeros(1, dtype=torch.float64), {"latency_ms": ExpectedCost(model)}
    penalty, history = recipe.penalty, []
    rate = penalty.total_rate / ((1 - penalty.warm_up) * steps)
    worth = {kind: torch.from_numpy(edges / edges.max()).float() for kind, edges in model.linear()[1].items()}
    for step in range(steps):
        start, end = recipe.temperature.start, recipe.temperature.end
        sample = concrete.draw(DrawContext(generator, start + (end - start) * step / (steps - 1))).mixture
        noisy = {kind: w + 0.1 * torch.randn(w.shape, generator=generator) for kind, w in worth.items()}
        task = -pull * torch.stack([(sample[kind] * noisy[kind]).sum() / len(worth[kind]) for kind in worth]).sum()
        relative = relative_costs(concrete.probabilities(), costs, {"latency_ms": bound})
        constrains = step >= penalty.warm_up * steps
        optimizer.zero_grad()
        (task + penalty_of(multiplier, relative, penalty.damping if constrains else 0.0)).backward()
        torch.nn.utils.clip_grad_norm_(concrete.parameters(), recipe.logits.clip_norm)
        if step >= recipe.logits_warm_up * steps:
            optimizer.step()
        if constrains:
            multiplier = dual_ascent(multiplier, relative, rate)
        history.append(relative.item())
    return float(np.mean(history[-max(steps // 20, 5) :]))


@pytest.mark.slow
def test_fixed_lambda_stays_and_dual_lambda_moves() -> None:
    fixed = make_search("nasbench201", plain_recipe(**{"penalty.mode": "fixed", "penalty.weight": 0.5}))
    dual = make_search("nasbench201", read_recipe("snas-short", {"batch_size": 8, "penalty.warm_up": 0.0}), ("30%",))
    for _ in range(3):
        fixed.take_step()
        dual.take_step()
    assert fixed.targets[0].multipliers.tolist() == [0.5]
    assert dual.targets[0].multipliers.tolist() != [0.0]


def test_the_total_dual_rate_does_not_depend_on_epochs_and_targets() -> None:
    """Sum the dual rate over all steps of one target: it must equal the recipe's total rate."""
    for epochs, budgets in ((4, ("mild",)), (9, ("mild", "moderate", "aggressive"))):
        changes = {"batch_size": 256, "epochs": epochs, "penalty.warm_up": 0.3, "penalty.total_rate": 7.0}
        search = make_search("nasbench201", read_recipe("snas-short", changes), budgets)
        own_steps = sum(
            search.schedule.constrains(step // search.schedule.steps_per_epoch)
            for step in range(0, search.schedule.total_steps, len(budgets))
        )  # fmt: skip
        assert own_steps * search.schedule.dual_rate == pytest.approx(7.0, rel=0.2)
