"""SynFlow against sums over paths, computed with numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate2d
from torch import nn

from hwnas.networks.child import ChildNetwork
from hwnas.scores.synflow import GREATEST, LEAST, synflow
from hwnas.spaces import Architecture, SizedSpace
from support.spaces import CELL_SPACES, DARTS, NB201, SMALL, architectures

SHAPE = (3, 16, 16)


def magnitudes(layer: nn.Module) -> np.ndarray:
    return layer.weight.detach().double().abs().numpy()


def test_two_linear_layers_have_twice_the_flow_through_both() -> None:
    first, second = nn.Linear(12, 5, bias=False), nn.Linear(5, 4)
    score = synflow(nn.Sequential(nn.Flatten(), first, nn.ReLU(), second), (3, 2, 2))
    flow = (magnitudes(second) @ magnitudes(first)).sum()  # the bias carries no flow from the image
    assert score == pytest.approx(np.log(2 * flow), rel=1e-12)


def test_convolution_norm_and_classifier_have_twice_the_flow_through_all() -> None:
    conv, head = nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.Linear(3, 4)
    norm = nn.BatchNorm2d(3)
    network = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    pixels = np.ones((6, 7))
    maps = [sum(correlate2d(pixels, kernel, mode="same") for kernel in kernels) for kernels in magnitudes(conv)]
    flow = magnitudes(head).sum(axis=0) @ [m.mean() for m in maps] / np.sqrt(1 + norm.eps)
    assert synflow(network, (2, 6, 7)) == pytest.approx(np.log(2 * flow), rel=1e-12)


def test_flow_passes_shortcuts() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x.flatten(1)
            return self.outer(x + torch.relu(self.inner(x)))

    network = Residual()
    inner, outer = magnitudes(network.inner), magnitudes(network.outer)
    bias = network.inner.bias.detach().double().abs().numpy()
    through_outer = (outer @ (1 + inner.sum(axis=1) + bias)).sum()
    through_inner = (outer @ inner).sum()
    assert synflow(network, (6, 1, 1)) == pytest.approx(np.log(through_outer + through_inner), rel=1e-12)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures), st.integers(0, 2**32))
def test_signs_of_weights_do_not_matter(architecture: Architecture, seed: int) -> None:
    network = ChildNetwork(
        SizedSpace(CELL_SPACES[architecture.space], SMALL[architecture.space]), architecture, prune=True
    )
    flipped, generator = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in flipped.parameters():
            parameter *= torch.randint(2, parameter.shape, generator=generator) * 2 - 1
    assert synflow(flipped, SHAPE) == synflow(network, SHAPE)


@pytest.mark.parametrize("space", [NB201, DARTS], ids=lambda space: space.name)
def test_a_network_without_paths_has_the_least_score(space) -> None:
    def score(op: str) -> float:
        cells = tuple((op,) * len(cell.edges) for cell in space.cells.values())
        return synflow(ChildNetwork(SizedSpace(space, SMALL[space.name]), Architecture(space.name, cells)), SHAPE)

    assert score("none") == LEAST
    assert LEAST < score("skip_connect") < GREATEST


def test_a_network_without_kernels_has_the_least_score() -> None:
    assert synflow(nn.Sequential(nn.BatchNorm2d(3), nn.ReLU()), SHAPE) == LEAST
    assert synflow(nn.ReLU(), SHAPE) == LEAST


def test_a_flow_too_large_for_float64_has_the_greatest_score() -> None:
    layers = [nn.Linear(3, 3, bias=False) for _ in range(40)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1e30)
    assert synflow(nn.Sequential(nn.Flatten(), *layers), (3, 1, 1)) == GREATEST


def test_the_network_is_not_changed() -> None:
    network = ChildNetwork(SizedSpace(DARTS, SMALL["darts"]), DARTS.parse("DARTS_V2"), prune=True)
    network.parts[0].eval()
    before, modes = copy.deepcopy(network.state_dict()), [m.training for m in network.modules()]
    synflow(network, SHAPE)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert [m.training for m in network.modules()] == modes
    assert all(p.grad is None and p.dtype == torch.float32 for p in network.parameters())
