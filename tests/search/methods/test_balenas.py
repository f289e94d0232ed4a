"""The posterior over logits: samples, variational Adam, Bayes' rule where that is exact; selection without training."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from hwnas.budgets.derive import follows_rules
from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.recipe import read_recipe
from hwnas.scores.score import SCORES, score_architectures
from hwnas.search.distribution import DrawContext
from hwnas.search.methods.balenas import GaussianLogits, Variational, clipped, variational_adam
from hwnas.spaces import SPACES
from hwnas.spaces.encoding import encode
from support.searches import COSTS, searching


def posterior(**changes: object) -> GaussianLogits:
    recipe = read_recipe("short/balenas", {"logits_std": 1.0, **changes})
    options = recipe.distribution.options
    return GaussianLogits(SPACES["nasbench201"], recipe, torch.Generator().manual_seed(0), **options)


def test_samples_are_normal_with_the_posteriors_mean_and_precision() -> None:
    edges = posterior(without=["none"])
    edges.precision("cell").copy_(torch.linspace(0.5, 40, 30).view(6, 5))
    generator = torch.Generator().manual_seed(1)
    drawn = torch.stack([edges.sample(generator)["cell"].detach() for _ in range(1500)]).numpy()
    none = SPACES["nasbench201"].operations.index("none")
    for e, k in np.ndindex(6, 5):
        mean, spread = edges.logits["cell"][e, k].item(), edges.precision("cell")[e, k].item() ** -0.5
        if k == none:
            assert (drawn[:, e, k] == -np.inf).all()
        else:
            assert stats.kstest(drawn[:, e, k], stats.norm(mean, spread).cdf).pvalue > 1e-3
    torch.testing.assert_close(edges.probabilities()["cell"], torch.softmax(edges.scores()["cell"], dim=-1))


def test_variational_adam_is_that_of_its_equations() -> None:
    """Three steps from two samples each, in numpy."""
    rng = np.random.default_rng(0)
    images, prior, (first, second), lr = 50, 2.0, (0.5, 0.9), 0.1
    mu, m, s = rng.normal(size=4), np.zeros(4), np.full(4, (3.0 - prior) / images)
    mean, moment, precision = torch.tensor(mu), torch.zeros(4).double(), torch.full((4,), 3.0).double()
    for taken in (1, 2, 3):
        g = rng.normal(size=(2, 4))
        change = variational_adam(mean, moment, precision, torch.tensor(g), taken, images, prior, (first, second))
        mean = mean - lr * change
        m = first * m + (1 - first) * (g.mean(0) + prior / images * mu)
        s = second * s + (1 - second) * (g**2).mean(0)
        mu = mu - lr * (m / (1 - first**taken)) / (np.sqrt(s / (1 - second**taken)) + prior / images)
        np.testing.assert_allclose(mean.numpy(), mu, rtol=1e-10)
        np.testing.assert_allclose(precision.numpy(), images * s + prior, rtol=1e-10)


class Observations:
    """Steps in which an image is a number x for every logit, its loss (alpha - x)^2 / 2: a normal likelihood.

    By Bayes' rule the posterior of alpha is normal, of precision N + lambda0 and mean sum x / (N + lambda0). Batches
    are of one image, so that the squared gradient is on average the second derivative, 1: x has variance 1.
    """

    def __init__(self, images: int, lr: float) -> None:
        x = torch.randn(images, 6, 5, generator=torch.Generator().manual_seed(4))
        self.x = (x - x.mean(dim=0)) / x.std(dim=0, unbiased=False) + 0.3
        self.posterior = posterior(distribution={"name": "gaussian", "precision": 30.0})
        group = SimpleNamespace(param_groups=[{"lr": lr}])
        self.target: Any = SimpleNamespace(
            distribution=self.posterior, memory={}, stopped="", optimizer=SimpleNamespace(optimizer=group)
        )
        self.recipe = SimpleNamespace(logits=SimpleNamespace(clip_norm=1e9, betas=(0.5, 0.99)))
        self.batches = {"logits": SimpleNamespace(images=images)}
        self.logits_trainable = True
        self.generator = torch.Generator().manual_seed(5)
        self.order = self._order()

    def _order(self) -> Iterator[int]:
        while True:
            yield from torch.randperm(len(self.x), generator=self.generator).tolist()

    def draw_context(self, purpose: Purpose) -> DrawContext:
        return DrawContext(self.generator)

    def logits_loss(self, target: Any, context: DrawContext) -> tuple[Tensor, Tensor]:
        alpha = self.posterior.sample(context.generator)["cell"]
        return 0.5 * ((alpha - self.x[next(self.order)]) ** 2).sum(), torch.zeros(())

    def gradients(self, loss: Tensor, parameters: list[Tensor]) -> list[Tensor]:
        return list(torch.autograd.grad(loss, parameters))

    def zero_grad(self, target: Any) -> None: ...

    def weights_step(self, target: Any) -> None: ...


@pytest.mark.slow
def test_the_posterior_of_a_normal_likelihood_is_that_of_bayes_rule() -> None:
    images, prior, steps = 60, 30.0, 2400
    toy, rule = Observations(images, lr=0.01), Variational(prior_precision=prior)
    mean, precision = torch.zeros(6, 5), torch.zeros(6, 5).double()
    for step in range(steps):
        rule.learn(toy, toy.target)
        if step >= steps // 2:  # the mean over many steps, around which the estimates move
            mean += toy.posterior.logits["cell"].detach() / (steps / 2)
            precision += toy.posterior.precision("cell") / (steps / 2)
    exact = toy.x.sum(dim=0) / (images + prior)
    torch.testing.assert_close(toy.x.mean(dim=0) - exact, torch.full((6, 5), 0.1))
    assert float((mean - exact).abs().max()) < 0.02
    assert float(precision.mean()) == pytest.approx(images + prior, rel=0.05)
    assert int(toy.target.memory["steps"]) == steps


def test_gradients_are_clipped_by_their_common_norm() -> None:
    small, large = [torch.ones(2), torch.ones(2)], [3 * torch.ones(2), 4 * torch.ones(2)]
    assert all(torch.equal(a, b) for a, b in zip(clipped(small, 10.0), small, strict=True))
    short = torch.cat(clipped(large, 1.0))
    assert float(short.norm()) == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(short / short[0], torch.cat(large) / 3)


@pytest.mark.slow
@pytest.mark.parametrize("space", ["nasbench201", "darts"])
def test_the_architecture_of_the_best_ranks_is_selected_within_the_budget(space: str) -> None:
    """Ranks are counted by comparisons; the architectures are those that samples of the posterior favour."""
    folder = "short" if space == "nasbench201" else space
    search = searching(space, f"{folder}/balenas-tf", "moderate", selection={"name": "untrained", "samples": 5})
    (target,) = search.targets
    chosen = search.evaluator.choose(target)
    found = list(target.scores)
    assert 1 < len(found) <= 5
    model, bound = COSTS[space]["latency_ms"], target.budget.limits["latency_ms"]
    assert max(model.predict(architecture) for architecture in found) <= bound
    assert follows_rules(search.space, encode(search.space, found), search.recipe.inputs_per_node).all()
    images, _ = search.data.train_batch(0, 32, search.recipe.seed)
    scores = score_architectures(search.sized, found, tuple(SCORES), images, search.recipe.seed)
    ranks = np.zeros(len(found))
    for values in scores.values():
        ranks += [(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values]
    np.testing.assert_allclose(list(target.scores.values()), ranks / len(SCORES) / len(found))
    assert chosen == found[int(ranks.argmax())]


def test_a_posterior_that_does_not_fit_is_one_error() -> None:
    for changes, words in (
        ({"distribution": {"name": "gaussian", "precision": -1.0}}, "precision of -1.0"),
        ({"logits.weight_decay": 1e-3}, "prior replaces weight decay"),
        ({"logits.name": "sgd"}, "variational Adam"),
        ({"learning": {"name": "variational", "prior_precision": 50.0}}, "starts with a precision of 10, the prior"),
        ({"distribution": "softmax"}, "needs a posterior"),
    ):
        with pytest.raises(HwnasError, match=words):
            searching("nasbench201", "short/balenas", **changes)
