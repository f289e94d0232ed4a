"""Masks of channels, trained together with the weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.networks.channels.groups import Channels
from hwnas.networks.channels.trace import trace
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import SizedSpace
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.widths import Limit, WidthTrainer, learn_widths
from support.searches import FEW, unlike
from support.spaces import ALL_CONV, NB201, SMALL
from support.training import recipe_of


def child() -> ChildNetwork:
    torch.manual_seed(0)
    return ChildNetwork(SizedSpace(NB201, SMALL["nasbench201"]), NB201.parse(ALL_CONV), prune=True)


def trainer(epochs: int = 2) -> WidthTrainer:
    network = child()
    channels = Channels(trace(network))
    costs = channels.macs("fvcore")
    recipe = recipe_of("quick", epochs=epochs, batch_size=20)
    return WidthTrainer(network, FEW, recipe, channels, Limit(costs, costs.of(channels.sizes) / 2))


def test_the_penalty_is_the_squared_distance_from_the_limit() -> None:
    it = trainer()
    costs, sizes = it.limit.costs, it.masks.channels.sizes
    widths = torch.tensor(sizes, dtype=torch.float64, requires_grad=True)
    penalty = it.limit.penalty(widths)
    assert penalty.item() == pytest.approx(1)  # (2 - 1)^2
    (gradient,) = torch.autograd.grad(penalty, widths)
    for group in range(len(sizes)):
        more = np.array(sizes, dtype=float)
        more[group] += 1e-3
        less = 2 * np.array(sizes) - more
        ends = [(costs.of_tensor(torch.tensor(end)) / it.limit.bound - 1) ** 2 for end in (more, less)]
        assert float(gradient[group]) == pytest.approx(float(ends[0] - ends[1]) / 2e-3, rel=1e-5)


def test_masks_reach_the_limit() -> None:
    it = trainer(epochs=4)
    while not it.over:
        it.take_step()
    left = it.limit.costs.of(it.masks.channels.widths(it.masks.keep()))
    assert left / it.limit.bound == pytest.approx(1, abs=0.15)


def test_a_training_of_masks_resumes_to_the_bit(tmp_path: Path) -> None:
    whole, checkpoint = trainer(), Checkpoint(tmp_path / "train.pt", "digest")
    while not whole.over:
        if whole.step == 4:
            checkpoint.save(copy.deepcopy(whole.state()))
        whole.take_step()
    torch.manual_seed(99)
    again, state = trainer(), checkpoint.load()
    assert state
    again.load_state(state)
    while not again.over:
        again.take_step()
    assert unlike(whole.state(), again.state()) == []


def test_a_child_has_no_masks_in_the_end(tmp_path: Path) -> None:
    network = child()
    channels = Channels(trace(network))
    costs = channels.macs("fvcore")
    limit = Limit(costs, costs.of(channels.sizes) / 2)
    recipe = recipe_of("quick", epochs=1, batch_size=20)
    latent = learn_widths(network, FEW, recipe, channels, limit, tmp_path, "start", lambda *a: None, lambda row: None)
    assert latent.shape == (channels.count,)
    assert not np.allclose(latent, 1)
    plain = child()
    plain.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), network.eval()(images))
