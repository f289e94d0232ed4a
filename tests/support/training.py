"""Small trainings on random images."""

from __future__ import annotations

import torch

from hwnas.data import ImageData, Split
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import Setting, SizedSpace
from hwnas.training.recipe import Training, read_training
from support.spaces import DARTS

TINY = Setting(channels=4, depth=3)  # its last cell, at two thirds of the depth, makes 8x8 maps as 20 cells do


def random_images(count: int, side: int = 32, classes: int = 10) -> Split:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % classes)


def no_test() -> Split:
    raise AssertionError("training read the test images")


DATA = ImageData("random", tuple("0123456789"), random_images(24), random_images(20), no_test)


def tiny_child(setting: Setting = TINY, written: str = "DARTS_V2", seed: int = 0) -> ChildNetwork:
    torch.manual_seed(seed)
    return ChildNetwork(SizedSpace(DARTS, setting), DARTS.parse(written), prune=True)


def recipe_of(name: str = "darts-cifar10", **changes: object) -> Training:
    return read_training(name, {"epochs": 5, "batch_size": 8, **changes})
