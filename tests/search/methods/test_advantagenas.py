"""Gradients of AdvantageNAS and of the score function, compared with enumeration and finite differences.

The loss is linear in every edge's output: a polynomial of the gates without squares.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.compute.seeds import Purpose
from hwnas.search.axes import BatchResult
from hwnas.search.distribution import Draw
from hwnas.search.methods.advantagenas import Advantage
from hwnas.search.search import Search
from support.estimators import finite_difference, finite_differences, searching, without_steps
from support.spaces import CELL_SPACES, SEARCH_SPACES

NB201 = CELL_SPACES["nasbench201"]
THREE = ("none", "skip_connect", "nor_conv_1x1")  # of nasbench201's five operations these
OTHERS = tuple(op for op in NB201.operations if op not in THREE)


class Toy:
    """L(Z) = sum of c[e, k] Z[e, k] + sum over pairs of edges of Z[e] M Z[f]; ``none`` may contribute nothing."""

    def __init__(self, none_gives_nothing: bool) -> None:
        generator = torch.Generator().manual_seed(5)
        self.alone = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        self.pairs = 0.3 * torch.randn(6, 5, 6, 5, generator=generator, dtype=torch.float64)
        for e in range(6):
            self.pairs[e, :, : e + 1] = 0
        if none_gives_nothing:
            none = NB201.operations.index("none")
            self.alone[:, none] = 0
            self.pairs[:, none] = 0
            self.pairs[:, :, :, none] = 0

    def __call__(self, z: Tensor) -> Tensor:
        return (self.alone * z).sum() + torch.einsum("ek,ekfl,fl->", z, self.pairs, z)


def estimates(search: Search, toy: Toy, before: Callable[[], None]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the probability [N] and the estimator's gradient [N, 6, 5] of every architecture over three operations,
    and the exact gradient of the expected loss, the derivative of the sum of P(Z) L(Z).
    """
    target = without_steps(search).targets[0]
    search.current_step.task_loss = lambda target, draw, part: BatchResult(toy(draw.mixture["cell"]), 0)  # type: ignore[method-assign]
    columns = [NB201.operations.index(op) for op in THREE]
    logits = target.logits["cell"]
    p = torch.softmax(logits[:, columns], dim=1)
    chosen = torch.tensor(list(product(range(3), repeat=6)))
    probability = p[torch.arange(6), chosen].prod(dim=1)
    z = torch.nn.functional.one_hot(torch.tensor(columns)[chosen], 5).double()
    expected = (probability * torch.stack([toy(one) for one in z])).sum()
    exact = torch.autograd.grad(expected, logits)[0]
    found = []
    for one in z:
        search.current_step.draw = lambda target, purpose, one=one: Draw({"cell": one}, {"cell": one.argmax(-1)})  # type: ignore
        logits.grad = None
        before()
        search.learning._logits_step(search.current_step, target)
        found.append(logits.grad)
    assert abs(float(probability.sum().detach()) - 1) < 1e-12
    return probability.detach(), torch.stack(found), exact


@pytest.mark.parametrize("baseline", ["none", "edge"])
def test_advantage_estimates_the_gradient_without_bias(baseline: str) -> None:
    """A baseline that does not depend on the draw adds no bias."""
    search = searching("advantagenas", without=OTHERS)
    search.learning = Advantage(baseline=baseline)  # type: ignore[arg-type]
    means = torch.linspace(-1, 1, 6, dtype=torch.float64)

    def before() -> None:
        search.targets[0].memory["advantage_cell"] = means.clone()

    probability, found, exact = estimates(search, Toy(none_gives_nothing=True), before)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(torch.einsum("n,nek->ek", probability, found), exact, atol=1e-12, rtol=0)


@pytest.mark.slow
def test_advantage_varies_less_than_the_score_function() -> None:
    """The score function gets the exact mean loss as its baseline, the limit of a moving average."""
    toy, totals = Toy(none_gives_nothing=False), {}
    for credit in ("edge", "loss"):
        search = searching("advantagenas", without=OTHERS)
        search.learning = Advantage(credit=credit)  # type: ignore[arg-type]
        memory = search.targets[0].memory
        p = search.targets[0].distribution.probabilities()["cell"].detach()
        mean = toy(p)  # E[L], for edges are independent and no product has an edge twice

        def before(memory: dict[str, Tensor] = memory, mean: Tensor = mean) -> None:
            memory["loss"] = mean

        probability, found, exact = estimates(search, toy, before)
        average = torch.einsum("n,nek->ek", probability, found)
        torch.testing.assert_close(average, exact, atol=1e-12, rtol=0)  # both are unbiased
        totals[credit] = float((probability[:, None, None] * (found - average) ** 2).sum())
    assert totals["edge"] < 0.5 * totals["loss"]


def test_the_score_function_remembers_the_mean_loss() -> None:
    search = without_steps(searching("advantagenas"))
    search.learning = Advantage(credit="loss")
    losses = iter([3.0, 5.0, 1.0])
    search.current_step.task_loss = lambda target, draw, part: BatchResult(  # type: ignore[method-assign]
        next(losses) + 0 * draw.mixture["cell"].sum(), 0
    )
    for mean in (3.0, 3.0 + 0.05 * 2, 3.1 + 0.05 * (1 - 3.1)):
        search.learning._logits_step(search.current_step, search.targets[0])
        assert float(search.targets[0].memory["loss"].detach()) == pytest.approx(mean)


@pytest.mark.slow
@pytest.mark.parametrize("space", sorted(SEARCH_SPACES))
def test_the_advantage_of_an_edge_is_the_slope_of_its_gate(space: str) -> None:
    """In the real supernet, the logits' gradient over a - p is the finite difference of the loss by the gate."""
    search = without_steps(searching("advantagenas", space))
    target = search.targets[0]
    draw = search.current_step.draw(target, Purpose.LOGITS_DRAW)
    search.learning._logits_step(search.current_step, target)

    def loss() -> float:
        with torch.no_grad():
            return float(search.current_step.task_loss(target, draw, "logits").task)

    p, checked = target.distribution.probabilities(), 0
    for kind, a in draw.mixture.items():
        by_edge = target.logits[kind].grad / (a - p[kind]).detach()
        for e, k in enumerate(a.argmax(dim=-1).tolist()):
            expected = finite_difference(loss, a, (e, k), 1e-6)
            allowed = target.distribution.allowed(kind)[e]
            assert by_edge[e, allowed].tolist() == pytest.approx([expected] * int(allowed.sum()), rel=1e-4, abs=1e-8)
            checked += abs(expected) > 1e-4
    assert checked > 3


def test_a_drawn_none_gets_the_worst_credit_of_its_edge() -> None:
    """Compare with moving averages of the slopes, each updated when its operation was drawn, computed by hand."""
    search = without_steps(searching("advantagenas", without=()))
    search.learning = Advantage(zero_credit=True)
    target, toy, none = search.targets[0], Toy(none_gives_nothing=True), NB201.operations.index("none")
    search.current_step.task_loss = lambda target, draw, part: BatchResult(toy(draw.mixture["cell"]), 0)  # type: ignore[method-assign]
    p = target.distribution.probabilities()["cell"].detach()
    table = np.zeros((6, 5))
    generator = torch.Generator().manual_seed(1)
    seen = 0
    for _ in range(12):
        a = torch.nn.functional.one_hot(torch.randint(5, (6,), generator=generator), 5).double()
        search.current_step.draw = lambda target, purpose, a=a: Draw({"cell": a}, {"cell": a.argmax(-1)})  # type: ignore
        target.logits["cell"].grad = None
        search.learning._logits_step(search.current_step, target)
        slopes = finite_differences(lambda a=a: float(toy(a)), a, 1e-3)  # type: ignore[misc]
        for e, k in enumerate(a.argmax(dim=-1).tolist()):
            table[e, k] += 0.05 * (slopes[e, k] - table[e, k])
            credit = max(table[e, o] for o in range(5) if o != none) if k == none else slopes[e, k]
            seen += k == none
            got = target.logits["cell"].grad[e]
            assert got.tolist() == pytest.approx((credit * (a - p)[e]).tolist(), abs=1e-7)
    assert seen > 5
