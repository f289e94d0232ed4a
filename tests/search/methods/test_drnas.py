"""Dirichlet samples, compared with closed forms and with scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hwnas.recipe import read_recipe
from hwnas.search.distribution import DrawContext
from hwnas.search.methods.drnas import DirichletEdges, DirichletKL
from hwnas.spaces import SPACES
from support.estimators import finite_difference

NB201 = SPACES["nasbench201"]
ETA = torch.tensor([1.2, -0.4, 0.3, 0.0, 2.0], dtype=torch.float64)


def dirichlet(rows: int, eta: Tensor = ETA) -> DirichletEdges:
    """Return the same Dirichlet distribution on ``rows`` edges."""
    edges = DirichletEdges(NB201, read_recipe("short/drnas", {}), torch.Generator())
    edges.logits["cell"] = torch.nn.Parameter(eta.repeat(rows, 1))
    edges.allowed_cell = edges.allowed_cell[:1].expand(rows, -1).clone()
    return edges


def test_the_pathwise_gradient_of_dirichlet_samples_is_that_of_the_expectation() -> None:
    """Compare for a quadratic f, whose expectation follows from the first and second moments in closed form."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    linear = torch.randn(5, generator=generator, dtype=torch.float64)
    eta = ETA.clone().requires_grad_()
    beta = torch.where(eta > 0, eta + 1, eta.exp())  # elu + 1
    mean = beta / beta.sum()
    covariance = (torch.diag(mean) - torch.outer(mean, mean)) / (beta.sum() + 1)
    expectation = ((covariance + torch.outer(mean, mean)) * square).sum() + mean @ linear
    exact = torch.autograd.grad(expectation, eta)[0]
    edges = dirichlet(60_000)
    theta = edges.draw(DrawContext(torch.Generator().manual_seed(1))).mixture["cell"]
    f = torch.einsum("nk,kl,nl->n", theta, square, theta) + theta @ linear
    slopes = torch.autograd.grad(f.sum(), edges.logits["cell"])[0]
    error = slopes.std(dim=0) / len(slopes) ** 0.5
    assert ((slopes.mean(dim=0) - exact).abs() < 4 * error).all()
    assert (exact.abs() > 10 * error).any()
    f, within = f.detach(), 4 * float(f.detach().std()) / len(f) ** 0.5
    assert float(f.mean()) == pytest.approx(float(expectation.detach()), abs=within)


def test_the_distance_of_a_dirichlet_distribution_from_the_uniform_one() -> None:
    """KL(Dir(beta) || Dir(1)) = -entropy(Dir(beta)) - log Gamma(K), the entropy by scipy."""
    edges = dirichlet(6)
    logits = edges.logits["cell"]

    def kl() -> float:
        rows = [stats.dirichlet(np.where(eta > 0, eta + 1, np.exp(eta))) for eta in logits.detach().numpy()]
        return sum(-row.entropy() - np.log(24) for row in rows)

    value = DirichletKL(weight=0.3)(edges, 0.5)
    value.backward()
    assert value.item() == pytest.approx(0.3 * kl())
    for k in range(5):
        expected = 0.3 * finite_difference(kl, logits.data, (2, k), 1e-6)
        assert float(logits.grad[2, k]) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert DirichletKL()(dirichlet(6, torch.zeros(5, dtype=torch.float64)), 0.0).item() == pytest.approx(0, abs=1e-12)


def test_pruned_operations_are_never_drawn_and_the_others_sum_to_one() -> None:
    """The remaining entries of a Dirichlet sample, scaled, are a Dirichlet sample."""
    edges = dirichlet(5000)
    edges.prune(3)
    left = sorted(np.argsort(ETA.numpy())[-3:].tolist())
    theta = edges.draw(DrawContext(torch.Generator().manual_seed(2))).mixture["cell"].detach()
    assert (theta > 0).all(dim=0).nonzero().flatten().tolist() == left
    assert not theta[:, [k for k in range(5) if k not in left]].any()
    torch.testing.assert_close(theta.sum(dim=1), torch.ones(5000, dtype=torch.float64))
    beta = np.where(ETA > 0, ETA + 1, ETA.exp())[left]
    for number, k in enumerate(left):
        other = beta.sum() - beta[number]
        assert stats.kstest(theta[:, k].numpy(), stats.beta(beta[number], other).cdf).pvalue > 1e-3
    p = edges.probabilities()["cell"].detach()[0]
    np.testing.assert_allclose(p[left].numpy(), beta / beta.sum())
    assert int((p > 0).sum()) == 3
