"""The implicit hypergradient, compared with closed forms of a bilevel problem and with autograd in a real supernet."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hwnas.networks.mixed_cell import Mixed
from hwnas.search.methods.idarts import Implicit
from support.bilevel import DECAY, RATE, Quadratic
from support.estimators import searching, without_steps
from support.searches import unlike


@pytest.mark.parametrize("terms", [0, 1, 2, 5])
def test_some_terms_are_those_of_the_neumann_series(terms: int) -> None:
    """A central difference of a linear gradient has no error but that of rounding."""
    toy = Quadratic()
    before = toy.w.detach().clone()
    Implicit(terms=terms).learn(toy, toy.target)
    step = torch.eye(3) - RATE * (toy.A + DECAY * torch.eye(3))
    series = sum(torch.linalg.matrix_power(step, k) for k in range(terms + 1)) @ (before - toy.t)
    expected = toy.c + RATE * toy.B.T @ toy.A @ series
    assert toy.alpha.grad is not None
    torch.testing.assert_close(toy.alpha.grad[0], expected, rtol=1e-9, atol=1e-9)
    assert toy.weight_steps == 1


def test_many_terms_at_the_optimum_of_the_weights_give_the_exact_hypergradient() -> None:
    toy = Quadratic()
    alpha = toy.alpha.detach()[0]
    toy.w.data = toy.S @ alpha
    Implicit(terms=400).learn(toy, toy.target)

    def outer(logits: Tensor) -> Tensor:
        return 0.5 * ((toy.S @ logits - toy.t) ** 2).sum() + toy.c @ logits

    exact = torch.func.grad(outer)(alpha)
    assert toy.alpha.grad is not None
    torch.testing.assert_close(toy.alpha.grad[0], exact, rtol=1e-8, atol=1e-8)
    assert not torch.allclose(exact, toy.c, rtol=0.1)  # what the logits do to the weights is not negligible


def test_the_logits_learn_at_every_nth_step_of_the_weights() -> None:
    toy = Quadratic()
    learnt = []
    for toy.turn in range(6):
        toy.zero_grad(toy.target)
        Implicit(every=3).learn(toy, toy.target)
        learnt.append(toy.alpha.grad is not None)
    assert learnt == [True, False, False, True, False, False]
    assert toy.weight_steps == 6


@pytest.mark.slow
def test_the_gradient_in_a_supernet_is_that_of_autograd_and_everything_is_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compare with products of second derivatives by autograd; the differences use short steps here, for float64."""
    monkeypatch.setattr("hwnas.search.methods.idarts.LENGTH", 1e-6)
    search = searching("idarts", **{"weights.weight_decay": 0.01})
    for _ in range(2):  # so that there is momentum
        search.take_step()
    without_steps(search)
    target, step = search.targets[0], search.current_step
    logits, weights = target.logits["cell"], list(search.supernet.parameters())
    rate = step.weights.optimizer.param_groups[0]["lr"]
    before = {name: value.clone() for name, value in search.supernet.state_dict().items()}
    momentum = [step.weights.optimizer.state[w]["momentum_buffer"].clone() for w in weights]

    def cross_entropy(part: str) -> Tensor:
        images, classes = search.data.train_batch(search.step, 8, search.recipe.seed, search.batches[part].subset)
        scores = search.supernet(images.double(), {"cell": Mixed(torch.softmax(logits, dim=-1))})
        return torch.nn.functional.cross_entropy(scores, classes)

    monkeypatch.setattr(step, "weights_step", lambda target: None)
    search.learning.learn(step, target)
    assert unlike(before, search.supernet.state_dict()) == []
    assert unlike(momentum, [step.weights.optimizer.state[w]["momentum_buffer"] for w in weights]) == []

    direct, *term = torch.autograd.grad(cross_entropy("logits"), [logits, *weights])
    slopes = torch.autograd.grad(cross_entropy("weights"), weights, create_graph=True)
    total = list(term)
    for _ in range(2):
        bent = torch.autograd.grad(slopes, weights, term, retain_graph=True)
        term = [t - rate * (h + 0.01 * t) for t, h in zip(term, bent, strict=True)]
        total = [a + t for a, t in zip(total, term, strict=True)]
    implicit = rate * torch.autograd.grad(slopes, logits, total)[0]
    assert torch.linalg.vector_norm(implicit) > 0.01 * torch.linalg.vector_norm(direct)
    error = torch.linalg.vector_norm(logits.grad - (direct - implicit))
    assert error < 1e-5 * torch.linalg.vector_norm(implicit)
