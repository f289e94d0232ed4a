"""Channels that leave while the weights are trained."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.networks.channels.groups import Channels
from hwnas.networks.channels.masks import ChannelMasks
from hwnas.networks.channels.selection import least_channels, select_channels
from hwnas.networks.channels.trace import trace
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import SizedSpace
from hwnas.training.checkpoint import Checkpoint
from hwnas.training.widths import FIRST, LAST, ChannelRemoval, Limit, WidthTrainer, learn_widths
from support.searches import FEW, unlike
from support.spaces import ALL_CONV, NB201, SMALL
from support.training import recipe_of


def child() -> ChildNetwork:
    torch.manual_seed(0)
    return ChildNetwork(SizedSpace(NB201, SMALL["nasbench201"]), NB201.parse(ALL_CONV), prune=True)


def half(channels: Channels, multiple: int = 1) -> Limit:
    costs = channels.macs("fvcore")
    return Limit(costs, costs.of(channels.sizes) / 2, multiple)


def trainer(epochs: int = 2, multiple: int = 1) -> WidthTrainer:
    network = child()
    channels = Channels(trace(network))
    recipe = recipe_of("quick", epochs=epochs, batch_size=20)
    return WidthTrainer(network, FEW, recipe, channels, half(channels, multiple))


def test_the_limit_falls_from_the_whole_network_to_the_bound() -> None:
    limit = half(Channels(trace(child())))
    whole = 2 * limit.bound
    assert [limit.at(position, whole) for position in (0, FIRST)] == [whole, whole]
    assert [limit.at(position, whole) for position in (LAST, 1)] == [limit.bound, limit.bound]
    assert limit.at((FIRST + LAST) / 2, whole) == pytest.approx(1.5 * limit.bound)


@pytest.mark.parametrize("multiple", [1, 2])
def test_the_limit_is_kept_at_every_step(multiple: int) -> None:
    it = trainer(multiple=multiple)
    costs, channels, costing = it.removal.limit.costs, it.removal.masks.channels, []
    while not it.over:
        it.take_step()
        costing.append(costs.of(channels.widths(it.removal.keep())))
        assert costing[-1] <= it.removal.limit.at(it.step / it.total_steps, it.removal.whole)
    assert costing == sorted(costing, reverse=True)
    assert costing[-1] >= 0.7 * it.removal.limit.bound
    assert all(width % multiple == 0 for width in channels.widths(it.removal.keep()))


def test_channels_whose_masks_have_small_gradients_leave() -> None:
    channels = Channels(trace(child()))
    masks = ChannelMasks(channels)
    removal = ChannelRemoval(masks, half(channels), total_steps=1)
    small = np.random.default_rng(0).random(channels.count) < 0.9
    small &= ~least_channels(channels)
    masks.values.grad = torch.where(torch.from_numpy(small), 1e-3, -1.0)
    removal.step()
    assert not removal.keep().all()
    assert (small | removal.keep()).all()
    # The order goes on with the channels that are left, and begins with those that have left.
    ranks = removal.ranks()
    assert ranks[~removal.keep()].max() < ranks[removal.keep()].min()
    assert ranks[small].max() < ranks[~small].min()


def test_a_training_of_widths_resumes_to_the_bit(tmp_path: Path) -> None:
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
    assert (whole.removal.ranks() == again.removal.ranks()).all()


def test_a_child_has_no_masks_in_the_end(tmp_path: Path) -> None:
    network = child()
    channels = Channels(trace(network))
    limit, recipe = half(channels), recipe_of("quick", epochs=1, batch_size=20)
    rank = learn_widths(network, FEW, recipe, channels, limit, tmp_path, "start", lambda *a: None, lambda row: None)
    keep = select_channels(rank, channels, limit.costs, limit.bound)
    assert keep is not None
    assert 0.9 * limit.bound < limit.costs.of(channels.widths(keep)) <= limit.bound
    plain = child()
    plain.load_state_dict(network.state_dict())
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(plain.eval()(images), network.eval()(images))
