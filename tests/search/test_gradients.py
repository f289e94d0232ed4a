"""Gradients of a real search step against finite differences."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch

from hwnas.compute.seeds import Purpose, seed_of
from hwnas.cost.model import CostModel
from hwnas.search.evaluation import batch_statistics
from hwnas.search.resources import ResourcePenalty
from hwnas.search.search import Search
from hwnas.spaces import SizedSpace
from support.searches import make_search, plain_recipe
from support.spaces import SEARCH_SPACES, SMALL


def logits_after_a_step(
    name: str, multipliers: list[float], budgets: tuple[str, ...], damping: float
) -> tuple[Search, dict, dict]:
    return a_step(make_search(name, plain_recipe(**{"penalty.damping": damping}), budgets), multipliers)


@cache
def logits_without_cost(name: str, budget: str) -> dict:
    """Return the logits after a step whose multipliers are 0."""
    return logits_after_a_step(name, [0.0] * (budget.count(",") + 1), (budget,), 0.0)[2]


def a_step(search: Search, multipliers: list[float], closed: float = 0.0) -> tuple[Search, dict, dict]:
    """Take one step in float64 from random logits; return the search and the logits before and after.

    ``closed`` is added to the logit of ``none`` on the first edge of every cell kind.
    """
    search.supernet.double()
    target = search.targets[0]
    for kind, values in target.logits.items():
        generator = torch.Generator().manual_seed(len(kind))
        values.data = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        values.data[0, search.space.operations.index("none")] += closed
    search.targets[0].optimizer.optimizer.param_groups[0]["params"] = target.parameters
    target.multipliers = torch.tensor(multipliers, dtype=torch.float64)
    before = {kind: values.detach().clone() for kind, values in target.logits.items()}
    search.take_step()
    return search, before, {kind: values.detach() for kind, values in target.logits.items()}


def assert_slopes(
    slopes: np.ndarray, function: Callable[[np.ndarray], float], at: np.ndarray, **tolerance: float
) -> None:
    """Compare slopes of a function by each of its arguments with central differences."""
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = 1e-5
        assert slopes[index] == pytest.approx((function(at + step) - function(at - step)) / 2e-5, **tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
@pytest.mark.parametrize("budget", ["moderate", "moderate,60%-macs,70%-params"])
@pytest.mark.parametrize("damping", [0.0, 2.0])
def test_cost_gradient_through_the_training_step_equals_finite_differences(
    name: str, budget: str, damping: float
) -> None:
    """Compare the difference of two real steps, with and without multipliers, with the finite differences of a penalty
    that is written in plain numpy.
    """
    multipliers = [0.7, 1.3, 0.4][: budget.count(",") + 1]
    search, before, with_cost = logits_after_a_step(name, multipliers, (budget,), damping)
    without = logits_without_cost(name, budget)
    limits = search.targets[0].budget.limits

    def penalty(logits: dict[str, np.ndarray]) -> float:
        total = 0.0
        for weight, (metric, bound) in zip(multipliers, limits.items(), strict=True):
            base, edges = search.targets[0].objective.costs[metric].linear()
            p = {k: np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for k, v in logits.items()}
            excess = (base + sum((p[k] * edges[k]).sum() for k in p)) / bound - 1
            total += (
                (max(0, weight + damping * excess) ** 2 - weight**2) / (2 * damping) if damping else weight * excess
            )
        return total

    start = {kind: values.numpy() for kind, values in before.items()}
    for kind, values in start.items():
        actual = (without[kind] - with_cost[kind]).numpy()
        assert np.abs(actual).max() > 1e-4
        assert_slopes(actual, lambda moved, kind=kind: penalty({**start, kind: moved}), values, rel=1e-5, abs=1e-9)


RESOURCES = {"params": 0.86, "macs": 0.43 / 4000, "memory_access_bytes": 0.43 / 400}  # of the linear form


def step_with_resources(name: str, form: str, costs_of: str, weight: float) -> tuple[Search, dict, dict]:
    changes = {"mode": "fixed", "weight": weight, "form": form, "resources": tuple(RESOURCES), "costs_of": costs_of}
    recipe = plain_recipe(**{f"penalty.{key}": value for key, value in changes.items()})
    return a_step(make_search(name, recipe), [0.0], closed=20.0)


@cache
def logits_without_resources(name: str) -> dict:
    """Return the logits after a step in which the weight of the resources, in either form, is 0."""
    return step_with_resources(name, "log", "probabilities", 0.0)[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
@pytest.mark.parametrize("form", ["log", "linear"])
@pytest.mark.parametrize("costs_of", ["probabilities", "sample"])
def test_resource_gradient_through_the_training_step_equals_finite_differences(
    name: str, form: str, costs_of: str
) -> None:
    """Compare what SNAS's own penalty adds to a real step with the finite differences of the released code's formulas,
    written in numpy; one edge is closed, where the clamp of the logarithm cuts the gradient.
    """
    weight = 0.3 if form == "log" else 1e-3
    search, before, with_cost = step_with_resources(name, form, costs_of, weight)
    without = logits_without_resources(name)
    network = SizedSpace(search.space, SMALL[name]).network
    generator = torch.Generator().manual_seed(seed_of(search.recipe.seed, Purpose.WEIGHTS_DRAW, 0))
    uniform = {k: torch.rand(v.shape, generator=generator).double().numpy() for k, v in before.items()}
    temperature = search.recipe.temperature.start

    def penalty(logits: dict[str, np.ndarray]) -> tuple[float, int]:
        total, clamped = 0.0, 0
        for kind, values in logits.items():
            scores = (values - np.log(-np.log(uniform[kind]))) / temperature if costs_of == "sample" else values
            w = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            for metric in RESOURCES:
                model = search.targets[0].objective.costs[metric]
                assert isinstance(model, CostModel)
                _, edges = model.linear()
                r = (w * edges[kind] / len(network.cell_instances(kind))).sum(axis=1)
                clamped += int((r < 1).sum())
                if form == "log":
                    total += np.log(np.maximum(r / (4 if metric == "memory_access_bytes" else 1), 1)).sum() / 3
                else:
                    total += RESOURCES[metric] * r.sum()
        return weight * total, clamped

    start = {kind: values.numpy() for kind, values in before.items()}
    assert penalty(start)[1] > 0
    for kind, values in start.items():
        actual = (without[kind] - with_cost[kind]).numpy()
        assert np.abs(actual).max() > 1e-4
        assert_slopes(actual, lambda moved, kind=kind: penalty({**start, kind: moved})[0], values, rel=1e-4, abs=1e-8)


def test_resource_penalty_is_that_of_the_released_code() -> None:
    """Costs of two edges from the released code (operations.py: 16 channels at 32x32); penalties computed by hand."""
    ops = {"none": (0, 0, 0), "sep_conv_3x3": (800, 819_200, 131_872), "avg_pool_3x3": (0, 147_456, 32_768)}
    edges = np.array([list(ops.values())] * 2, dtype=float)  # [E, K, resource]
    two = 2  # cells of the kind

    @dataclass
    class Linear:
        edges: np.ndarray

        def linear(self) -> tuple[float, dict[str, np.ndarray]]:
            return 5e9, {"normal": self.edges}

    names = ("params", "macs", "memory_access_bytes")
    costs = {m: Linear(edges[:, :, i] * two * (4 if i == 2 else 1)) for i, m in enumerate(names)}
    w = {"normal": torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], dtype=torch.float64)}
    log = ResourcePenalty(costs, {"normal": two}, "log", names)(w)  # type: ignore[arg-type]
    pool_only = (np.log(147_456) + np.log(32_768)) / 3  # its parameters are 0 and clamped
    mixed = (np.log(200) + np.log(204_800 + 36_864) + np.log(32_968 + 8192)) / 3
    assert log.item() == pytest.approx(mixed + pool_only)
    linear = ResourcePenalty(costs, {"normal": two}, "linear", names)(w)  # type: ignore[arg-type]
    by_hand = 0.43 * (2 * 200 + (204_800 + 36_864 + 147_456) / 4000 + (32_968 + 8192 + 32_768) / 100)
    assert linear.item() == pytest.approx(by_hand)


def test_the_penalty_of_the_paper_ignores_the_budget() -> None:
    """Steps under different budgets change the logits equally, and the multipliers stay 0."""
    changes = {"mode": "fixed", "weight": 0.1, "form": "log", "resources": tuple(RESOURCES)}
    recipe = plain_recipe(**{f"penalty.{key}": value for key, value in changes.items()})
    moved = []
    for budget in ("mild", "aggressive"):
        search = make_search("nasbench201", recipe, (budget,))
        for _ in range(2):
            search.take_step()
        assert search.targets[0].multipliers.tolist() == [0.0]
        moved.append(search.targets[0].logits["cell"].detach())
    assert torch.equal(*moved)
    (row,) = search.epoch_report()
    assert row.resource_penalty > 0
    assert "resource penalty" in row.describe()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
def test_task_gradient_of_the_logits_equals_finite_differences(name: str) -> None:
    search = make_search(name, plain_recipe())
    search.supernet.double()
    target = search.targets[0]
    for values in target.logits.values():
        values.data = values.data.double()
    with batch_statistics(search.supernet):
        loss, _ = search.current_step.loss(target)
        loss.backward()
        for values in target.logits.values():
            for index in [(0, 1), (2, 3), (5, 2)]:
                gradient = float(values.grad[index])  # type: ignore[index]
                both = []
                for sign in (1, -1):
                    with torch.no_grad():
                        values[index] += sign * 1e-5
                        both.append(float(search.current_step.loss(target)[0]))
                        values[index] -= sign * 1e-5
                assert gradient == pytest.approx((both[0] - both[1]) / 2e-5, rel=1e-3, abs=1e-7)
