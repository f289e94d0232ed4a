"""Seeds: every purpose for which search and training draw random numbers, and the seed of each.

A stream of random numbers is named by the recipe's seed, a purpose and, where the purpose has several streams, an
index: the step, the epoch or the number of a target. Streams are therefore independent of each other and of what was
drawn before, which is why an interrupted run resumes bit-identical to an uninterrupted one.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@unique
class Purpose(IntEnum):
    """A use of random numbers; the value is part of the seed, so it never changes and is never used again."""

    IMAGE_ORDER = 1  # by epoch: the order in which an epoch visits the training images
    AUGMENTATION = 2  # by step, or by step and image
    SUPERNET = 3  # the supernet's initial weights
    DISTRIBUTION = 4  # by target: the distribution's initial parameters
    WEIGHTS_DRAW = 5  # by step: the draw with which weights learn, and drop path
    LOGITS_DRAW = 6  # by step: the draw with which logits learn
    CONTROLLER_SAMPLES = 7  # by step: the architectures that a controller samples
    SELECTION = 8  # by step: draws and mutations of a selection
    WIDENING = 9  # by step: the channels that are copied when a supernet is widened
    CUTOUT = 10  # by step
    CHILD_DROP_PATH = 11  # by step
    CHILD_WEIGHTS = 12  # a child's initial weights, where it starts from scratch
    AUXILIARY_HEAD = 13  # the auxiliary head's initial weights
    UNTRAINED_WEIGHTS = 14  # the weights of a target network that is exported before it is trained
    RANDOM_IMAGES = 15  # pixels of images that stand in where none are known
    SCORED_WEIGHTS = 16  # by architecture: the weights of a network that is scored untrained
    FINALIST_WEIGHTS = 17  # by architecture: the initial weights of a finalist
    CANDIDATES = 18  # by target: random architectures within a budget
    BASELINES = 19  # by target: the random architecture that the found one is compared with
    LOGITS_UPDATES = 20  # by step: the updates of the logits that a zero-order search tries
    DROPOUT = 21  # by step: the channels that the training of a network of words drops
    AUTOENCODER = 22  # the initial weights of a graph autoencoder
    HELD_OUT_GRAPHS = 23  # graphs that an autoencoder does not learn from, and the order of the others
    TRAINING_GRAPHS = 24  # by epoch: the graphs that an autoencoder learns from
    LATENT_NOISE = 25  # by epoch: the noise of an autoencoder's latents
    LATENT_DRAWS = 26  # latents that a selection draws


@unique
class SplitSeed(IntEnum):
    """Seeds by which images are divided: the same in every run, so that runs of any seed can be compared."""

    HOLD_OUT = 0  # images held out of the training images, for validation or test
    SECOND_HOLD_OUT = 1  # where both are held out: the other of the two
    SUBSET = 2  # the images that are used where a data set is shortened
    LOGITS = 3  # training images that train logits, and those that train weights


def seed_of(seed: int, purpose: Purpose, *index: int) -> int:
    """Return the 63-bit seed of one stream."""
    return int(np.random.SeedSequence((seed, purpose, *index)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_generator(seed: int, purpose: Purpose, *index: int) -> torch.Generator:
    """Return a generator on the CPU at the start of one stream."""
    import torch

    return torch.Generator().manual_seed(seed_of(seed, purpose, *index))


def numpy_generator(seed: int, purpose: Purpose, *index: int) -> np.random.Generator:
    """Return a numpy generator at the start of one stream."""
    return np.random.default_rng([seed, purpose, *index])
