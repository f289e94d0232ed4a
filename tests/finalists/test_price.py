"""The price of finalists: no timing enters it, its MACs are those of real modules, and deep networks are dear."""

from __future__ import annotations

import pytest

from hwnas.finalists.price import MACS_PER_S, START_S, Images, price
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.recipe import Finalists
from hwnas.spaces import SizedSpace
from support.spaces import ALL_CONV, DARTS, NB201, SMALL

SETTINGS = Finalists(trainings=7, rounds=3, epochs=2, last=2, last_epochs=5)
EPOCHS = 9 * 2 + 2 * 5  # every round has three trainings
SIZED = SizedSpace(NB201, SMALL["nasbench201"])
DIGITS = Images(1078, 360)


def test_another_validation_image_costs_one_pass_of_the_largest_network() -> None:
    """The modules of the network of convolutions count the multiply-accumulates."""
    one, other = (price(SETTINGS, SIZED, [{}], Images(100, n), None) for n in (10, 11))
    macs = count_network(ChildNetwork(SIZED, NB201.parse(ALL_CONV))).macs(NB201.macs_convention)
    assert other - one == pytest.approx(EPOCHS * macs / MACS_PER_S, rel=1e-6)


def test_a_training_image_costs_three_passes() -> None:
    base, trained, validated = (price(SETTINGS, SIZED, [{}], Images(*n), None) for n in ((99, 9), (100, 9), (99, 10)))
    assert trained - base == pytest.approx(3 * (validated - base))


def test_targets_add_up() -> None:
    starts = (SETTINGS.rounds + 2) * START_S
    one, two = (price(SETTINGS, SIZED, [{}] * n, DIGITS, None) for n in (1, 2))
    assert two - starts == pytest.approx(2 * (one - starts))


def test_the_default_finalists_are_cheap_for_digits_and_dear_for_twenty_cells_of_darts() -> None:
    """The limit of the default is 10 minutes; 40,000 images are those of CIFAR-10 without validation images."""
    small = SizedSpace.named(NB201, "cifar", channels=8, depth=1)
    assert price(Finalists(), small, [{}] * 3, DIGITS, None) < 10 * 60
    deep = SizedSpace.named(DARTS, None, depth=20)
    assert price(Finalists(), deep, [{}], Images(40_000, 10_000), 2) > 5 * 3600
