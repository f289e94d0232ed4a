"""The beta decay of the logits, compared with finite differences of scipy's logsumexp, for all methods with logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from hwnas.errors import HwnasError
from hwnas.recipe import read_recipe
from hwnas.search.choices import CHOICES
from hwnas.search.distribution import EdgeLogits
from hwnas.search.methods.beta_darts import BetaDecay
from support.estimators import finite_differences
from support.searches import make_search, plain_recipe, searching
from support.spaces import CELL_SPACES

WITH_LOGITS = sorted(n for n, c in CHOICES["distribution"].items() if isinstance(c, type) and issubclass(c, EdgeLogits))


@pytest.mark.parametrize("name", WITH_LOGITS)
def test_the_decay_and_its_gradient_are_those_of_logsumexp(name: str) -> None:
    """In the DARTS space, with two cell kinds; an operation that is out of the search does not count."""
    without = () if name == "thresholded" else ("max_pool_3x3",)
    plain = {"logits.weight_decay": 0.0}
    recipe = read_recipe("darts/darts", {"distribution": name, "logits_std": 1.0, "without": without, **plain})
    generator = torch.Generator().manual_seed(3)
    distribution = CHOICES["distribution"][name](CELL_SPACES["darts"], recipe, generator).double()
    value = BetaDecay(weight=7.0)(distribution, 0.25)
    value.backward()

    def decay() -> float:
        rows = []
        for kind, logits in distribution.logits.items():
            values = np.where(distribution.allowed(kind).numpy(), logits.detach().numpy(), -np.inf)
            rows.extend(logsumexp(values, axis=1))
        return 7.0 * 0.25 * float(np.mean(rows))

    assert value.item() == pytest.approx(decay())
    assert len(distribution.logits) == 2
    for logits in distribution.logits.values():
        assert logits.grad is not None
        np.testing.assert_allclose(logits.grad.numpy(), finite_differences(decay, logits.data, 1e-6), atol=1e-9)


@pytest.mark.parametrize("method", ["snas", "drnas", "gdas", "advantagenas", "pc-darts", "entrannas-dst"])
def test_the_decay_is_part_of_every_methods_step(method: str) -> None:
    """Steps of SGD with and without it differ by its gradient, at the weight of the step's epoch."""
    plain = {"logits.name": "sgd", "logits.lr": 1.0, "logits.lr_end": 1.0, "logits.momentum": 0.0, "logits_std": 0.5}
    changes = {**plain, "logits.weight_decay": 0.0, "logits.clip_norm": 1e9, "epochs": 3}
    after = []
    for regulariser in (None, {"name": "beta_decay", "weight": 8.0}):
        search = searching("nasbench201", f"short/{method}", **changes, regulariser=regulariser)
        search.step = search.schedule.steps_per_epoch  # in the second of three epochs the weight is half of the last
        search.step += search.step % 2  # AdvantageNAS trains the logits in even steps
        start = search.targets[0].distribution.scores()["cell"].detach().clone()
        search.take_step()
        after.append(search.targets[0].logits["cell"].detach())
    share = torch.softmax(start, dim=-1) / len(start)
    torch.testing.assert_close(after[0] - after[1], 4.0 * share, rtol=1e-4, atol=1e-5)


def test_without_logits_there_is_no_decay() -> None:
    for method in ("enas", "random"):
        with pytest.raises(HwnasError, match="need logits"):
            searching("nasbench201", f"short/{method}", regulariser="beta_decay")
    with pytest.raises(HwnasError, match=r"beta_decay: .*weight"):
        make_search("nasbench201", plain_recipe(regulariser={"name": "beta_decay", "weight": -1}))
