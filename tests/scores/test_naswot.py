"""NASWOT against kernels of codes that scipy computes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist
from torch import Tensor, nn

from hwnas.networks.child import ChildNetwork
from hwnas.scores.naswot import agreement, log_determinant, naswot
from hwnas.spaces import SizedSpace
from support.spaces import ALL_CONV, NB201, SMALL

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def expected(codes: np.ndarray) -> float:
    """The score of codes [N, units], by Hamming distances."""
    return float(np.linalg.slogdet(codes.shape[1] * (1 - cdist(codes, codes, "hamming")) + np.eye(len(codes)))[1])


@given(arrays(bool, st.tuples(st.integers(2, 8), st.integers(1, 40))))
def test_kernel_counts_the_units_that_agree(codes: np.ndarray) -> None:
    kernel = agreement(torch.from_numpy(codes)).double()
    np.testing.assert_array_equal(kernel, [[(a == b).sum() for b in codes] for a in codes])
    assert log_determinant(kernel) == pytest.approx(expected(codes), abs=1e-9)


def test_log_determinant_of_a_known_kernel() -> None:
    codes = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 1, 1]], dtype=torch.bool)  # agree in 3 of 5 units
    assert log_determinant(agreement(codes).double()) == pytest.approx(np.log(6 * 6 - 3 * 3))


def test_codes_of_all_layers_count() -> None:
    network = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1), nn.ReLU())
    with torch.no_grad():
        codes = [
            network[: i + 1](IMAGES).flatten(1) > 0 for i, layer in enumerate(network) if isinstance(layer, nn.ReLU)
        ]
    assert naswot(network, IMAGES) == pytest.approx(expected(torch.cat(codes, dim=1).numpy()))


def test_images_that_are_equal_leave_the_score_finite() -> None:
    assert naswot(nn.ReLU(), IMAGES[:1].repeat(5, 1, 1, 1)) == pytest.approx(np.log(1 + 5 * IMAGES[0].numel()))
    assert naswot(nn.Identity(), IMAGES) == 0


@pytest.mark.parametrize(
    "relu", [torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, nn.functional.relu, nn.ReLU(inplace=True)]
)
def test_a_relu_counts_once_however_it_is_called(relu) -> None:
    class Called(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return relu(x.clone()) * 2

    assert naswot(Called(), IMAGES) == naswot(nn.ReLU(), IMAGES)


def test_the_network_is_not_changed() -> None:
    network = ChildNetwork(SizedSpace(NB201, SMALL["nasbench201"]), NB201.parse(ALL_CONV), prune=True).eval()
    before = copy.deepcopy(network.state_dict())
    naswot(network, IMAGES)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(m.training for m in network.modules())
