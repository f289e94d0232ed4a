"""Draws follow their distributions: chi-square and Kolmogorov-Smirnov tests with fixed seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from scipy import stats

from hwnas.errors import HwnasError
from hwnas.recipe import Recipe, read_recipe
from hwnas.search.choices import CHOICES, build
from hwnas.search.distribution import Distribution, DrawContext, EdgeLogits
from hwnas.search.methods import register_builtin
from hwnas.search.methods.enas import Controller
from hwnas.spaces import SPACES, Cell, SearchSpace
from hwnas.spaces.encoding import every_choice, random_choices

# One input and two nodes, three operations: small enough to count every architecture.
TINY = replace(
    SPACES["nasbench201"],
    operations=("none", "a", "b"),
    cells={"cell": Cell(num_inputs=1, num_nodes=2, edges=((0, 1), (0, 2), (1, 2)), outputs=(2,))},
)
FREE = replace(TINY, cells={"cell": replace(TINY.cells["cell"], least_inputs=1)})  # no node is empty
register_builtin()
DRAWS = 2500
ALL = sorted(set(CHOICES["distribution"]) - {"thresholded"})  # which draws nothing: see test_entrannas


def recipe(name: str, **changes: object) -> Recipe:
    return read_recipe("snas-short", {"distribution": name, "logits_mean": 0.0, "logits_std": 1.0, **changes})


def made(name: str, space: SearchSpace = TINY, **changes: object) -> Distribution:
    asked = recipe(name, **changes)
    return build("distribution", asked.distribution, space, asked, torch.Generator().manual_seed(1))


@cache
def dirichlet_draws() -> np.ndarray:
    return draws(made("dirichlet"))


def draws(distribution: Distribution, temperature: float = 1.0, count: int = DRAWS) -> np.ndarray:
    """Return the mixtures [N, E, K] of ``count`` draws."""
    moment = DrawContext(torch.Generator().manual_seed(2), temperature)
    with torch.no_grad():
        return np.stack([distribution.draw(moment).mixture["cell"].double().numpy() for _ in range(count)])


def joint_p_value(found: np.ndarray, probability: dict[tuple[int, ...], float]) -> float:
    """Return the p-value of a chi-square test of drawn architectures, rare ones counted together."""
    counts = Counter(map(tuple, found.argmax(axis=2).tolist()))
    assert set(counts) <= set(probability)
    ordered = sorted(probability, key=lambda a: -probability[a])
    often = [a for a in ordered if probability[a] * DRAWS >= 5]
    observed = [counts[a] for a in often] + [sum(counts[a] for a in ordered[len(often) :])]
    expected = [probability[a] for a in often] + [sum(probability[a] for a in ordered[len(often) :])]
    if len(often) == len(ordered):
        observed, expected = observed[:-1], expected[:-1]
    return float(stats.chisquare(observed, np.array(expected) / sum(expected) * sum(observed)).pvalue)


@pytest.mark.parametrize(
    ("name", "temperature"), [("categorical", 1.0), ("straight_through", 10.0), ("straight_through", 0.1)]
)
def test_discrete_draws_are_independent_with_softmax_probabilities(name: str, temperature: float) -> None:
    """Test all 27 architectures at several temperatures (the Gumbel-max trick)."""
    distribution = made(name)
    assert isinstance(distribution, EdgeLogits)
    logits = distribution.logits["cell"].detach().double().numpy()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probability = {a: float(p[np.arange(3), a].prod()) for a in product(range(3), repeat=3)}
    found = draws(distribution, temperature)
    assert np.abs(found - (found > 0.5)).max() < 1e-6  # one-hot
    assert joint_p_value(found, probability) > 1e-3


@pytest.mark.parametrize("inputs", [None, 1])
@pytest.mark.parametrize("without", [(), ("b",)])
def test_uniform_draws_every_architecture_equally_often(inputs: int | None, without: tuple[str, ...]) -> None:
    operations = [o for o, op in enumerate(TINY.operations) if op not in without]
    every = [
        a
        for a in product(operations, repeat=3)
        if inputs is None or (a[0] > 0) + 0 == inputs == (a[1] > 0) + (a[2] > 0)
    ]
    assert len(every) == {(None, ()): 27, (None, ("b",)): 8, (1, ()): 8, (1, ("b",)): 2}[inputs, without]
    found = draws(made("uniform", inputs_per_node=inputs, without=without))
    assert joint_p_value(found, dict.fromkeys(every, 1 / len(every))) > 1e-3


@pytest.mark.parametrize(("without", "number"), [((), 16), (("b",), 3)])
def test_uniform_draws_leave_no_node_empty_where_the_space_says_so(without: tuple[str, ...], number: int) -> None:
    operations = [o for o, op in enumerate(TINY.operations) if op not in without]
    every = [a for a in product(operations, repeat=3) if a[0] > 0 and a[1] + a[2] > 0]
    assert len(every) == number
    found = draws(made("uniform", FREE, without=without))
    assert joint_p_value(found, dict.fromkeys(every, 1 / len(every))) > 1e-3
    choices = random_choices(FREE, DRAWS, np.random.default_rng(3))
    every = [a for a in product(range(3), repeat=3) if a[0] > 0 and a[1] + a[2] > 0]
    assert joint_p_value(np.eye(3)[choices], dict.fromkeys(every, 1 / len(every))) > 1e-3
    assert sorted(map(tuple, every_choice(FREE).tolist())) == every
    assert FREE.num_architectures == len(every)


@pytest.mark.slow
@pytest.mark.parametrize(("space", "inputs", "number"), [(TINY, None, 27), (TINY, 1, 8), (FREE, None, 16)])
def test_the_controller_draws_by_its_own_conditionals(space: SearchSpace, inputs: int | None, number: int) -> None:
    controller = made("controller", space, inputs_per_node=inputs)
    assert isinstance(controller, Controller)
    for parameter in controller.parameters():
        parameter.data = 10 * parameter.data
    with torch.no_grad():
        chosen, _, log_p = controller.sample(5000, torch.Generator().manual_seed(9))
    probability = dict(zip(map(tuple, chosen["cell"].tolist()), log_p.double().exp().tolist(), strict=True))
    assert len(probability) == number
    assert sum(probability.values()) == pytest.approx(1, abs=1e-5)
    assert max(probability.values()) > 3 * min(probability.values())
    assert joint_p_value(draws(controller), probability) > 1e-3


@pytest.mark.slow
def test_dirichlet_marginals_are_beta() -> None:
    distribution = made("dirichlet")
    assert isinstance(distribution, EdgeLogits)
    eta = distribution.logits["cell"].detach().double().numpy()
    beta = np.where(eta > 0, eta + 1, np.exp(eta))
    found = dirichlet_draws()
    np.testing.assert_allclose(found.sum(axis=2), 1, rtol=1e-5)
    for e, k in np.ndindex(3, 3):
        marginal = stats.beta(beta[e, k], beta[e].sum() - beta[e, k])
        assert stats.kstest(found[:, e, k], marginal.cdf).pvalue > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "space", "inputs"),
    [
        *((n, TINY, None) for n in ALL if n not in ("concrete", "gaussian", "softmax_edges")),
        ("uniform", TINY, 1),
        ("controller", TINY, 1),
        ("uniform", FREE, None),
        ("controller", FREE, None),
    ],
)
def test_probabilities_are_the_mean_of_the_draws(name: str, space: SearchSpace, inputs: int | None) -> None:
    """E[C] is computed with them. (The mean of a relaxed sample is no softmax of its logits.)"""
    distribution = made(name, space, inputs_per_node=inputs)
    found = dirichlet_draws() if name == "dirichlet" else draws(distribution)
    assert (found[:, 0, 0] == 0).all() == (space is FREE or inputs == 1)
    p = distribution.probabilities()["cell"].detach().numpy()
    error = found.std(axis=0) / DRAWS**0.5
    # The controller's are the mean over 64 draws of its own.
    allowed = 5 * error + (5 * found.std(axis=0) / 64**0.5 if name == "controller" else 1e-6)
    assert (np.abs(found.mean(axis=0) - p) <= allowed).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_excluded_operations_are_never_drawn(name: str) -> None:
    distribution = made(name, without=("a",))
    assert not draws(distribution, count=500)[:, :, 1].any()
    assert not distribution.probabilities()["cell"].detach()[:, 1].any()
    assert (distribution.log_probability()["cell"][:, 1] == -np.inf).all()


@pytest.mark.parametrize("name", sorted(CHOICES["distribution"]))
def test_draws_follow_from_the_generator_alone(name: str) -> None:
    """Equal seeds give equal draws, other seeds other draws, and the global generator is neither read nor changed."""
    distribution = made(name)

    def drawn(seed: int) -> torch.Tensor:
        return distribution.draw(DrawContext(torch.Generator().manual_seed(seed))).mixture["cell"].detach()

    torch.manual_seed(0)
    first, state = drawn(3), torch.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(drawn(3), first)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)
    if name not in ("softmax", "softmax_edges", "thresholded"):
        assert not all(torch.equal(drawn(seed), first) for seed in range(4, 12))


@pytest.mark.slow
@pytest.mark.parametrize("keep", [1, 2])
@pytest.mark.parametrize(
    "name", ["softmax", "dirichlet", "categorical", "concrete", "straight_through", "softmax_edges", "gaussian"]
)
def test_pruning_keeps_the_likeliest(name: str, keep: int) -> None:
    distribution = made(name)
    assert isinstance(distribution, EdgeLogits)
    before = distribution.logits["cell"].detach().clone().numpy()
    kept = np.argsort(before, axis=1)[:, -keep:]
    distribution.prune(keep)
    mask = np.zeros((3, 3), dtype=bool)
    np.put_along_axis(mask, kept, True, axis=1)
    np.testing.assert_array_equal(distribution.logits["cell"].detach().numpy(), np.where(mask, before, 0))
    p = distribution.probabilities()["cell"].detach().numpy()
    np.testing.assert_array_equal(p > 0, mask)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert not draws(distribution, count=500)[:, ~mask].any()
    distribution.prune(keep)  # pruned ones do not come back because their logits are 0
    np.testing.assert_array_equal(distribution.allowed("cell").numpy(), mask)


@pytest.mark.parametrize("name", sorted(CHOICES["distribution"]))
def test_excluding_all_operations_is_refused(name: str) -> None:
    with pytest.raises(HwnasError, match=r"unknown operation 'cake'.*use some of none, a, b"):
        made(name, without=("cake",))
    for without in (("a", "b"), ("none", "a", "b")):
        with pytest.raises(HwnasError, match="no operation to search"):
            made(name, without=without)
