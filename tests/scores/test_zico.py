"""ZiCo against the gradients of a linear classifier, computed with numpy."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from hwnas.networks.child import ChildNetwork
from hwnas.scores.zico import zico
from hwnas.spaces import Architecture, SizedSpace
from support.spaces import ALL_CONV, NB201, SMALL

GENERATOR = torch.Generator().manual_seed(0)
IMAGES, LABELS = torch.randn(8, 3, 16, 16, generator=GENERATOR), torch.arange(8)
SIZED = SizedSpace(NB201, SMALL["nasbench201"])


def test_score_of_a_linear_classifier() -> None:
    classifier = nn.Linear(3 * 16 * 16, 10).double()
    x, classes = IMAGES.double().flatten(1).numpy(), np.eye(10)[LABELS]
    weight, bias = (p.detach().numpy() for p in (classifier.weight, classifier.bias))
    error = softmax(x @ weight.T + bias, axis=1) - classes
    sizes = np.abs([error[half].T @ x[half] / 4 for half in (slice(4), slice(4, 8))])
    expected = np.log((sizes.mean(axis=0) / sizes.std(axis=0)).sum())
    assert zico(nn.Sequential(nn.Flatten(), classifier), IMAGES.double(), LABELS) == pytest.approx(expected, rel=1e-6)


def test_gradients_that_do_not_vary_are_left_out() -> None:
    same = IMAGES[:4].repeat(2, 1, 1, 1)
    assert zico(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 10)), same, LABELS % 4) == 0
    assert zico(nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()), IMAGES, LABELS) == 0
    nothing = Architecture("nasbench201", (("none",) * 6,))
    assert zico(ChildNetwork(SIZED, nothing), IMAGES, LABELS) == 0


def test_the_network_is_not_changed() -> None:
    network = ChildNetwork(SIZED, NB201.parse(ALL_CONV), prune=True).eval()
    before = copy.deepcopy(network.state_dict())
    assert zico(network, IMAGES, LABELS) > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert not any(m.training for m in network.modules())
