"""Seeds: every purpose has streams of its own, and the streams of recorded runs."""

from __future__ import annotations

import torch

from hwnas.compute.seeds import Purpose, SplitSeed, numpy_generator, seed_of, torch_generator

PURPOSES = {  # recorded runs depend on these numbers
    "IMAGE_ORDER": 1,
    "AUGMENTATION": 2,
    "SUPERNET": 3,
    "DISTRIBUTION": 4,
    "WEIGHTS_DRAW": 5,
    "LOGITS_DRAW": 6,
    "CONTROLLER_SAMPLES": 7,
    "SELECTION": 8,
    "WIDENING": 9,
    "CUTOUT": 10,
    "CHILD_DROP_PATH": 11,
    "CHILD_WEIGHTS": 12,
    "AUXILIARY_HEAD": 13,
    "UNTRAINED_WEIGHTS": 14,
    "RANDOM_IMAGES": 15,
    "SCORED_WEIGHTS": 16,
    "FINALIST_WEIGHTS": 17,
    "CANDIDATES": 18,
    "BASELINES": 19,
    "LOGITS_UPDATES": 20,
    "DROPOUT": 21,
    "AUTOENCODER": 22,
    "HELD_OUT_GRAPHS": 23,
    "TRAINING_GRAPHS": 24,
    "LATENT_NOISE": 25,
    "LATENT_DRAWS": 26,
}


SPLITS = {"HOLD_OUT": 0, "SECOND_HOLD_OUT": 1, "SUBSET": 2, "LOGITS": 3}


def test_purposes_keep_their_numbers() -> None:
    assert {purpose.name: purpose.value for purpose in Purpose} == PURPOSES
    assert {split.name: split.value for split in SplitSeed} == SPLITS


def test_no_two_purposes_share_a_stream() -> None:
    """At any step, and for any seed: also not where a seed is the number of another purpose."""
    streams = [(seed, purpose, step) for seed in range(20) for purpose in Purpose for step in range(20)]
    assert len({seed_of(*stream) for stream in streams}) == len(streams)
    torch_numbers = {int(torch.randint(2**62, (), generator=torch_generator(0, purpose))) for purpose in Purpose}
    numpy_numbers = {int(numpy_generator(0, purpose).integers(2**62)) for purpose in Purpose}
    assert len(torch_numbers) == len(numpy_numbers) == len(Purpose)


def test_streams_are_those_of_recorded_runs() -> None:
    assert seed_of(0, Purpose.SUPERNET) == 3291213472928352369
    assert seed_of(7, Purpose.WEIGHTS_DRAW, 3) == 4633231845053684815
    assert numpy_generator(0, Purpose.IMAGE_ORDER, 2).permutation(6).tolist() == [5, 1, 4, 0, 3, 2]
