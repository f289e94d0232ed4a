"""The sandwich rule and in-place distillation: members, losses and gradients, resumption, recipes that do not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.search.methods.bignas import extreme_members
from hwnas.search.search import Search
from hwnas.spaces import Architecture
from support.searches import assert_resumes, chain_searching, searching

FEW = {"selection": {"name": "evolution", "population": 4, "generations": 2, "parents": 2}}


def fresh(**changes: object) -> Search:
    return chain_searching("chain/bignas", "aggressive", epochs=2, **FEW, **changes)


def members(search: Search) -> list[Architecture]:
    """Return the smallest and the largest member."""
    operations = search.space.operations
    draws = (draw.chosen for draw in extreme_members(search.targets[0]))
    return [search.space.architecture((tuple(operations[o] for o in d["chain"].tolist()),)) for d in draws if d]


def test_the_extreme_members_have_the_fewest_and_the_most_macs() -> None:
    search = fresh()
    smallest, largest = members(search)
    assert search.space.format(smallest) == "k3_e2 skip skip k3_e2 skip"
    assert search.space.format(largest) == "k5_e3 k5_e3 k5_e3 k5_e3 k5_e3"
    model = search.targets[0].objective.costs["macs"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        context = search.current_step.schedule.draw_context(0, 0, generator)  # type: ignore[arg-type]
        chosen = search.targets[0].distribution.draw(context).chosen
        assert chosen
        drawn = search.space.architecture((tuple(search.space.operations[o] for o in chosen["chain"].tolist()),))
        assert model.predict(smallest) <= model.predict(drawn) <= model.predict(largest)


def test_a_step_adds_the_gradients_of_four_members() -> None:
    """The others learn the largest member's scores, which carry no gradient; the sum is by hand, on a copy."""
    search, other = fresh(), fresh()
    drawn: list[Tensor] = []
    distribution = search.targets[0].distribution
    draw = distribution.draw

    def recorded(context: object) -> object:
        found = draw(context)  # type: ignore[arg-type]
        assert found.chosen
        drawn.append(found.chosen["chain"])
        return found

    distribution.draw = recorded  # type: ignore[assignment, method-assign]
    gradients: dict[str, Tensor] = {}

    def stop() -> None:
        gradients.update({n: p.grad.clone() for n, p in search.supernet.named_parameters() if p.grad is not None})

    search.current_step.step_weights = stop  # type: ignore[method-assign]
    images, classes = search.batches["weights"].batch(0)
    search.take_step()
    assert len(drawn) == 2
    operations, supernet = search.space.operations, other.supernet.train()
    paths = [search.space.architecture((tuple(operations[o] for o in row.tolist()),)) for row in drawn]
    smallest, largest = members(search)
    scores = supernet.run_architecture(images, largest)
    nn.functional.cross_entropy(scores, classes).backward()
    target = torch.from_numpy(softmax(scores.detach().double().numpy(), axis=1)).float()
    for path in (smallest, *paths):
        log_p = torch.log_softmax(supernet.run_architecture(images, path), dim=1)
        (-(target * log_p).sum(dim=1).mean()).backward()
    expected = {name: p.grad for name, p in supernet.named_parameters() if p.grad is not None}
    assert set(gradients) == set(expected)
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)
    hard = -log_softmax(scores.detach().double().numpy(), axis=1)[np.arange(len(classes)), classes.numpy()].mean()
    assert float(search.targets[0].sums.loss) == pytest.approx(float(hard), rel=1e-5)


@pytest.mark.slow
def test_a_resumed_search_ends_in_the_same_bits_and_keeps_its_budget(tmp_path: Path) -> None:
    search = assert_resumes(fresh, tmp_path)
    target = search.targets[0]
    chosen = search.evaluator.choose(target)
    for metric, bound in target.budget.limits.items():
        assert target.objective.costs[metric].predict(chosen) <= bound


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distribution": {"name": "categorical"}}, "learning sandwich trains no logits; use distribution: uniform"),
        ({"runs": {"name": "all"}}, "learning sandwich runs one member at a time; use runs: sampled"),
        ({"learning": {"name": "sandwich", "random": -1}}, "random: "),
    ],
)
def test_recipes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(HwnasError, match=message):
        fresh(**changes).take_step()


def test_spaces_of_cells_are_refused() -> None:
    with pytest.raises(HwnasError, match="learning sandwich needs a chain of layers, and nasbench201"):
        searching("nasbench201", "short/random", learning={"name": "sandwich"})
