"""First and second order gradients of DARTS, compared with finite differences and with autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.networks.mixed_cell import Mixed
from hwnas.search.evaluation import batch_statistics
from hwnas.search.methods.darts import Unrolled
from support.estimators import finite_differences, searching, without_steps


@pytest.mark.slow
def test_first_order_is_the_gradient_of_the_validation_loss() -> None:
    """Compare with finite differences at fixed weights; the step of the weights reads other images."""
    search = without_steps(searching("darts"))
    target = search.targets[0]

    def loss() -> float:
        with torch.no_grad():
            p = torch.softmax(target.logits["cell"], dim=-1)
            images, classes = search.data.train_batch(0, 8, search.recipe.seed, search.batches["logits"].subset)
            return float(
                torch.nn.functional.cross_entropy(search.supernet(images.double(), {"cell": Mixed(p)}), classes)
            )

    logits = target.logits["cell"]
    expected = finite_differences(loss, logits, 1e-6)
    search.current_step.weights_step = lambda target: None  # type: ignore
    search.learning.learn(search.current_step, target)
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-4, atol=1e-8)
    assert not set(search.batches["logits"].subset.tolist()) & set(search.batches["weights"].subset.tolist())  # type: ignore[union-attr]


def test_second_order_is_the_gradient_through_a_step_of_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare with L_val(w - xi (momentum + grad + decay w), alpha), written here and differentiated twice by autograd.

    The method's finite difference uses a short step here: the published one, meant for float32, is long.
    """
    monkeypatch.setattr("hwnas.search.methods.darts.LENGTH", 1e-6)
    search = searching("darts-second")
    for _ in range(3):  # so that there is momentum
        search.take_step()
    target, settings = search.targets[0], search.recipe.weights
    without_steps(search)
    logits, weights = target.logits["cell"], list(search.supernet.parameters())
    kept = {name: value.clone() for name, value in search.supernet.named_parameters()}
    momentum = [search.supernet_state.weights.optimizer.state[w]["momentum_buffer"].clone() for w in weights]
    rate = search.supernet_state.weights.optimizer.param_groups[0]["lr"]

    def cross_entropy(part: str, parameters: dict[str, Tensor] | None = None) -> Tensor:
        images, classes = search.data.train_batch(search.step, 8, search.recipe.seed, search.batches[part].subset)
        inputs = images.double(), {"cell": Mixed(torch.softmax(logits, dim=-1))}
        scores = torch.func.functional_call(search.supernet, parameters or {}, inputs)
        return torch.nn.functional.cross_entropy(scores, classes)

    slopes = torch.autograd.grad(cross_entropy("weights"), weights, create_graph=True)
    ahead = {
        name: w.detach() - rate * (settings.momentum * m + slope + settings.weight_decay * w.detach())
        for (name, w), slope, m in zip(search.supernet.named_parameters(), slopes, momentum, strict=True)
    }
    exact = torch.autograd.grad(cross_entropy("logits", ahead), logits)[0]
    search.current_step.zero_grad(target)
    assert isinstance(search.learning, Unrolled)
    search.learning._gradients(search.current_step, target)
    assert all(torch.equal(value, kept[name]) for name, value in search.supernet.named_parameters())
    first = torch.autograd.grad(cross_entropy("logits"), logits)[0]
    beyond = torch.linalg.vector_norm(exact - first)
    assert beyond > 0.02 * torch.linalg.vector_norm(exact)  # the second order is no rounding error
    assert torch.linalg.vector_norm(logits.grad - exact) < 1e-5 * beyond


def test_validation_statistics_do_not_disturb_the_estimators() -> None:
    """Losses in training and with validation's batch statistics are equal."""
    search = searching("darts")
    target = search.targets[0]
    with torch.no_grad(), batch_statistics(search.supernet):
        judged = float(search.current_step.logits_loss(target)[0])
    with torch.no_grad():
        assert float(search.current_step.logits_loss(target)[0]) == judged
