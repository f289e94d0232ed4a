"""Initial weights near the identity."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hwnas.networks.near_identity import NOISE, start_near_identity


@pytest.mark.parametrize("groups", [1, 16])
def test_weights_are_the_identity_and_noise(groups: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False)
    start_near_identity(convolution)
    noise = convolution.weight.detach() - nn.init.dirac_(torch.empty_like(convolution.weight), groups)
    expected = NOISE / (16 // groups * 9) ** 0.5
    assert float(noise.std()) == pytest.approx(expected, rel=0.2)
    assert abs(float(noise.mean())) < expected / 3


def test_convolutions_that_change_the_shape_keep_their_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, stride=2), nn.Linear(8, 8))
    before = [parameter.clone() for parameter in network.parameters()]
    start_near_identity(network)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_signals_pass_a_deep_chain_without_skip_connections() -> None:
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)) for _ in range(20)]
    chain, images = nn.Sequential(*layers), torch.randn(8, 8, 8, 8)

    def correlation() -> float:
        with torch.no_grad():
            return float(torch.corrcoef(torch.stack([images.flatten(), chain(images).flatten()]))[0, 1])

    assert abs(correlation()) < 0.05
    start_near_identity(chain)
    assert correlation() > 0.05
