"""Zero-order updates: the exact mean in a bilevel problem, densities by scipy, and fine-tuning by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import multivariate_normal
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.search.methods.zarts import ZeroOrder, coefficients, flat, in_the_search
from hwnas.search.search import Search
from support.bilevel import DECAY, RATE, Quadratic
from support.estimators import searching, without_steps
from support.searches import unlike


def mean_update(toy: Quadratic, steps: int, temperature: float) -> Tensor:
    """Return the mean of the update under p: after n steps w is linear in alpha, so p is a normal distribution."""
    eye = torch.eye(3, dtype=torch.float64)
    left = torch.linalg.matrix_power(eye - RATE * (toy.A + DECAY * eye), steps)
    slope, rest = (eye - left) @ toy.S, left @ toy.w.detach() - toy.t
    best = torch.linalg.solve(slope.T @ slope, -slope.T @ rest - toy.c)
    return best - toy.alpha.detach()[0]


@pytest.mark.slow
@pytest.mark.parametrize("undirected", [0.0, 0.4])
def test_the_update_is_the_mean_under_the_exponential_of_the_fine_tuned_loss(undirected: float) -> None:
    toy, rule = Quadratic(), ZeroOrder(400, steps=3, sigma=0.9, temperature=0.2, undirected=undirected)
    toy.alpha.data += mean_update(toy, 3, 0.2) - torch.tensor([0.5, -0.4, 0.3])  # start near the optimum
    exact, before = mean_update(toy, 3, 0.2), [toy.w.detach().clone(), toy.alpha.detach().clone()]
    found = []
    for toy.seed in range(12):
        rule._logits_step(toy, toy.target)
        assert toy.alpha.grad is not None
        found.append(-toy.alpha.grad[0])
    error = torch.stack(found).std(dim=0) / len(found) ** 0.5
    assert (error < 0.1).all()
    assert ((torch.stack(found).mean(dim=0) - exact).abs() < 4 * error).all()
    assert torch.linalg.vector_norm(exact) > 5 * error.max()
    assert unlike(before, [toy.w.detach(), toy.alpha.detach()]) == []
    assert toy.weight_steps == 12 * 400 * 3


def test_coefficients_are_ratios_of_densities() -> None:
    generator = torch.Generator().manual_seed(0)
    deltas, slope = torch.randn(20, 4, generator=generator), torch.randn(4, generator=generator)
    losses = torch.rand(20, generator=generator, dtype=torch.float64)
    found = coefficients(deltas.double(), slope.double(), losses, 0.7, 0.3, 0.25)
    around = [multivariate_normal(mean, 0.49 * np.eye(4)).pdf(deltas.numpy()) for mean in (-slope.numpy(), np.zeros(4))]
    log_q = np.log(0.75 * around[0] + 0.25 * around[1])
    np.testing.assert_allclose(found.numpy(), softmax(-losses.numpy() / 0.3 - log_q), rtol=1e-5)
    far = coefficients(1e3 * deltas, slope, losses, 1e-3, 0.3, 0.0)  # densities that no float holds
    assert float(far.sum()) == pytest.approx(1.0)


def test_updates_come_at_every_nth_step_and_shrink_over_the_epochs() -> None:
    toy, rule = Quadratic(), ZeroOrder(samples=2, steps=1, every=4, sigma=1.0, sigma_end=1e-9)
    learnt = []
    for toy.turn in range(8):
        toy.zero_grad(toy.target)
        rule.learn(toy, toy.target)
        learnt.append(toy.alpha.grad is not None)
    assert [turn for turn, has in enumerate(learnt) if has] == [0, 4]
    toy.progress = 1.0
    rule._logits_step(toy, toy.target)
    slope = flat(toy.gradients(sum(toy.logits_loss(toy.target)), [toy.alpha]))  # type: ignore[arg-type]
    assert toy.alpha.grad is not None
    torch.testing.assert_close(toy.alpha.grad[0], slope, rtol=0, atol=1e-7)
    toy.logits_trainable, toy.alpha.grad = False, None
    rule.learn(toy, toy.target)
    assert toy.alpha.grad is None


def fresh(**changes: object) -> Search:
    search = searching("zarts", **changes)
    for _ in range(2):  # so that there is momentum
        search.take_step()
    return search


@pytest.mark.slow
def test_copies_learn_as_the_weights_would_and_everything_is_restored() -> None:
    """Compare with another search, in which the weights really take these steps."""
    search, other = fresh(), fresh()
    target, step = search.targets[0], search.current_step
    rule = ZeroOrder(samples=2, steps=3)
    before = search.state()["supernet"], search.supernet_state.weights.state_dict()["state"], target.logits["cell"]
    before = tuple(torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, b) for b in before)
    update = 0.3 * torch.randn(target.logits["cell"].numel(), generator=torch.Generator().manual_seed(5)).double()
    found = rule._loss(step, target, update)
    after = search.state()["supernet"], search.supernet_state.weights.state_dict()["state"], target.logits["cell"]
    assert unlike(before, after) == []

    first = other.step
    other.targets[0].logits["cell"].data += update.view_as(target.logits["cell"])
    for other.step in range(first, first + 3):
        other.current_step.weights_step(other.targets[0])
    other.step = first
    with torch.no_grad():
        task, penalty = other.current_step.logits_loss(other.targets[0])
    assert float(found) == float(task + penalty)
    with torch.no_grad():
        assert float(found) != float(sum(step.logits_loss(target)))  # type: ignore[arg-type]


def test_operations_out_of_the_search_have_no_part_in_an_update() -> None:
    search = without_steps(searching("zarts", without=["none"]))
    target, none = search.targets[0], search.space.operations.index("none")
    ZeroOrder(samples=2, steps=1, sigma=0.3)._logits_step(search.current_step, target)
    moved = target.logits["cell"].grad
    assert moved is not None
    assert not moved[:, none].any()
    assert moved[:, [o for o in range(5) if o != none]].all()
    assert int(in_the_search(target).sum()) == 6 * 4
    with pytest.raises(HwnasError, match="carry no gradient"):
        searching("zarts", distribution="uniform")
