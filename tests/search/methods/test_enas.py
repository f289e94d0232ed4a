"""The controller's gradient, compared with enumeration and finite differences."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from hwnas.recipe import read_recipe
from hwnas.search.axes import BatchResult
from hwnas.search.distribution import one_hot
from hwnas.search.lagrangian import relative_costs
from hwnas.search.methods.enas import Controller, Reinforce
from hwnas.spaces import SPACES
from support.estimators import finite_difference, searching, without_steps

NB201 = SPACES["nasbench201"]
TWO = [NB201.operations.index(op) for op in ("skip_connect", "nor_conv_3x3")]
SEQUENCES = torch.tensor(list(product(TWO, repeat=6)))
NOT_TWO = tuple(op for o, op in enumerate(NB201.operations) if o not in TWO)


def forced(monkeypatch: pytest.MonkeyPatch, sequences: Tensor) -> None:
    """Let the controller choose ``sequences`` [N, E], whatever its probabilities."""
    steps = iter(range(10**9))

    def multinomial(p: Tensor, number: int, generator: torch.Generator) -> Tensor:
        return sequences[:, next(steps) % sequences.shape[1]][:, None]

    monkeypatch.setattr(torch, "multinomial", multinomial)


def test_reinforce_estimates_the_gradient_of_the_expected_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """The expectation over all 64 sequences of the gradient of a step with one sequence is minus the finite difference
    of E[R], where R includes the cost of the architecture, as in the module's equation.
    """
    search = without_steps(searching("enas", without=NOT_TWO, **{"penalty.weight": 0.7}))
    search.learning = Reinforce(samples=1)
    target = search.targets[0]
    controller = target.distribution
    assert isinstance(controller, Controller)
    for parameter in controller.parameters():  # from ones that tell operations apart
        parameter.data = 10 * parameter.data
    right = np.random.default_rng(0).integers(0, 9, len(SEQUENCES))
    number = {tuple(s): n for n, s in enumerate(SEQUENCES.tolist())}
    search.current_step.task_loss = lambda target, draw, part: BatchResult(  # type: ignore[method-assign]
        torch.zeros(()), int(right[number[tuple(draw.chosen["cell"].tolist())]])
    )
    forced(monkeypatch, SEQUENCES)

    def probabilities() -> Tensor:
        with torch.no_grad():
            return controller.sample(len(SEQUENCES), torch.Generator())[2].exp()

    with torch.no_grad():
        p = controller.sample(len(SEQUENCES), torch.Generator())[1]["cell"]
    entropy = -(p.clamp_min(1e-30).log() * p).sum(dim=(1, 2))
    relative = [
        float(relative_costs({"cell": one_hot(s, p)}, target.expected, target.objective.penalised)[0])
        for s in SEQUENCES
    ]
    rewards = torch.tensor(right / 8 - 0.7 * (np.array(relative) - 1)) + 1e-4 * entropy
    assert np.ptp(relative) > 0.1
    weight = probabilities()
    assert float(weight.sum()) == pytest.approx(1, abs=1e-12)

    estimate = {name: torch.zeros_like(value) for name, value in controller.named_parameters()}
    for n in range(len(SEQUENCES)):
        forced(monkeypatch, SEQUENCES[n : n + 1])
        target.memory["reward"] = torch.tensor(0.25)
        search.learning._controller_step(search.current_step, target)
        for name, value in controller.named_parameters():
            estimate[name] += weight[n] * value.grad  # type: ignore[operator]
        assert float(target.memory["reward"]) == pytest.approx(0.25 + 0.01 * (float(rewards[n]) - 0.25), abs=1e-6)
    forced(monkeypatch, SEQUENCES)
    places = {"head.bias": (TWO[0],), "lstm.weight_hh": (40, 7), "lstm.bias_ih": (70,), "embedding.weight": (TWO[1], 5)}
    for name, index in places.items():
        parameter = controller.get_parameter(name)
        exact = finite_difference(lambda: float((probabilities() * rewards).sum()), parameter, index, 1e-5)
        assert float(estimate[name][index]) == pytest.approx(-exact, rel=1e-4, abs=1e-8)
        assert abs(exact) > 1e-7


@pytest.mark.parametrize(("space", "inputs"), [("nasbench201", None), ("nasbench201", 1), ("darts", 2)])
def test_log_probability_of_the_controller_is_the_product_of_its_conditionals(space: str, inputs: int | None) -> None:
    recipe = read_recipe("short/enas", {"inputs_per_node": inputs})
    controller = Controller(SPACES[space], recipe, torch.Generator().manual_seed(0)).double()
    for parameter in controller.parameters():
        parameter.data = 10 * parameter.data
    with torch.no_grad():
        chosen, conditional, log_p = controller.sample(200, torch.Generator().manual_seed(0))
    total = np.zeros(200)
    for kind, cell in SPACES[space].cells.items():
        p = conditional[kind].numpy()
        np.testing.assert_allclose(p.sum(axis=2), 1)
        total += np.log(np.take_along_axis(p, chosen[kind].numpy()[:, :, None], axis=2)).sum(axis=(1, 2))
        used = chosen[kind].numpy() != SPACES[space].operations.index("none")
        if inputs is not None:
            for node in cell.inner_nodes:
                assert (used[:, cell.edges_into(node)].sum(axis=1) == inputs).all()
    np.testing.assert_allclose(log_p.numpy(), total, rtol=1e-9)
