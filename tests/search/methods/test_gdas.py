"""Gradients of GDAS, compared with finite differences and with operations that run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hwnas.networks.mixed_cell import Mixed
from hwnas.search.distribution import DrawContext, one_hot
from hwnas.spaces import CellInstance
from support.estimators import finite_differences, searching
from support.spaces import SEARCH_SPACES


def test_straight_through_is_one_hot_with_the_gradient_of_the_relaxed_sample() -> None:
    search = searching("gdas")
    distribution = search.targets[0].distribution
    logits, temperature = search.targets[0].logits["cell"], 2.5
    worth = torch.randn(6, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    draw = distribution.draw(DrawContext(torch.Generator().manual_seed(4), temperature))
    z = draw.mixture["cell"]
    torch.testing.assert_close(z.detach(), one_hot(draw.chosen["cell"], z), atol=1e-15, rtol=0)  # type: ignore[index]
    (worth * z).sum().backward()
    uniform = torch.rand(6, 5, generator=torch.Generator().manual_seed(4)).double()

    def soft() -> float:
        scores = (
            logits.detach() - torch.logsumexp(logits.detach(), 1, True) - torch.log(-torch.log(uniform))
        ) / temperature
        assert torch.equal(scores.argmax(dim=1), draw.chosen["cell"])  # type: ignore[index]
        return float((worth * torch.softmax(scores, dim=1)).sum())

    expected = finite_differences(soft, logits.data, 1e-6)
    np.testing.assert_allclose(logits.grad.numpy(), expected, rtol=1e-6, atol=1e-9)


class Ones(nn.Module):
    """An operation with an output of ones."""

    def __init__(self, operation: nn.Module) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, x: Tensor) -> Tensor:
        return torch.ones_like(self.operation(x))


@pytest.mark.parametrize("space", sorted(SEARCH_SPACES))
def test_ghosts_learn_as_if_their_outputs_were_ones(space: str) -> None:
    """The gradient of an operation that does not run is that of one that runs and outputs ones, also where ``none`` was
    drawn; the loss and the gradients of operations that run do not change.
    """
    search = searching("gdas", space)
    supernet, target = search.supernet, search.targets[0]
    kind, none = next(iter(search.space.cells)), search.space.operations.index("none")
    chosen = target.distribution.draw(DrawContext(torch.Generator().manual_seed(0), 1.0)).chosen
    assert chosen is not None
    chosen[kind][1] = none
    weights = {k: one_hot(c, target.logits[k]).requires_grad_() for k, c in chosen.items()}
    images, classes = search.data.train_batch(0, 8, 0)

    def loss(active: dict[str, list[list[int]]], ghosts: bool) -> Tensor:
        mixture = {k: Mixed(w, active[k], ghosts=ghosts) for k, w in weights.items()}
        return torch.nn.functional.cross_entropy(supernet(images.double(), mixture), classes)

    alone = {k: [[o] for o in c.tolist()] for k, c in chosen.items()}
    plain, haunted = loss(alone, False), loss(alone, True)
    torch.testing.assert_close(haunted, plain, atol=1e-12, rtol=0)
    slopes = torch.autograd.grad(haunted, weights[kind])[0]
    before = torch.autograd.grad(plain, weights[kind])[0]
    both = {k: [row.copy() for row in rows] for k, rows in alone.items()}
    for e, k in enumerate(chosen[kind].tolist()):
        other = next(o for o in range(len(search.space.operations)) if o not in (k, none))
        both[kind][e].append(other)
        for part, cell in zip(supernet.network.parts, supernet.parts, strict=True):
            if isinstance(part, CellInstance) and part.kind == kind:
                op = search.space.operations[other]
                cell.edges[e][op] = Ones(cell.candidate(e, op))  # type: ignore[index,operator]
    expected = torch.autograd.grad(loss(both, False), weights[kind])[0]
    for e, (k, other) in enumerate(both[kind]):
        assert float(slopes[e, k]) == pytest.approx(float(before[e, k]), abs=1e-12)
        others = [o for o in range(len(search.space.operations)) if o != k]
        assert slopes[e, others].tolist() == pytest.approx([float(expected[e, other])] * len(others), abs=1e-10)
    assert (slopes.abs().sum(dim=1) > 1e-9).all()
