"""Splits are disjoint, batches depend on seed and step only, and training images are normalised."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hwnas.data import ImageData, Split, load_data
from hwnas.data.images import divide
from support.images import write_images


@given(st.lists(st.integers(0, 4), min_size=30, max_size=200), st.integers(0, 9))
def test_divided_parts_are_disjoint_and_keep_the_classes(labels: list[int], seed: int) -> None:
    targets = np.array(labels)
    parts = divide(targets, (0.5, 0.3, 0.2), seed)
    assert sorted(np.concatenate(parts)) == list(range(len(targets)))
    for label in np.unique(targets):
        assert abs((targets[parts[0]] == label).sum() - 0.5 * (targets == label).sum()) <= 1
    again = divide(targets, (0.5, 0.3, 0.2), seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_batches_depend_on_seed_and_step_only() -> None:
    data = load_data("digits?size=8")
    first, again, other = (data.train_batch(5, 32, seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    steps = data.steps_per_epoch(32)
    for epoch in range(2):
        seen = torch.cat([data.train_batch(epoch * steps + i, 32, 0)[1] for i in range(steps)])
        counts = torch.bincount(data.train.targets, minlength=10) - torch.bincount(seen, minlength=10)
        assert int(counts.min()) >= 0
        assert int(counts.sum()) == len(data.train) - 32 * steps


def test_augmentation_shifts_and_flips_and_nothing_else() -> None:
    images = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).repeat(64, 1, 1, 1) + 1
    split = Split(images, torch.zeros(64, dtype=torch.long))
    data = ImageData("test", ("a",), split, split, lambda: split)
    augmented = data._augment(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images[0, 0], (1, 1, 1, 1))
    crops = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {tuple(v.flatten().tolist()) for crop in crops for v in (crop, crop.flip(-1))}
    seen = {tuple(image.flatten().tolist()) for image in augmented}
    assert seen <= allowed
    assert len(seen) > 10
    flipped = data._augment(images, torch.Generator().manual_seed(0), shift=False)
    seen = {tuple(image.flatten().tolist()) for image in flipped}
    assert seen == {tuple(v.flatten().tolist()) for v in (images[0, 0], images[0, 0].flip(-1))}


def test_normalised_training_images_have_zero_mean_and_unit_deviation() -> None:
    data = load_data("digits?size=8")
    normalised = data.normalise(data.train.images)
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-3)
    assert float(normalised.std()) == pytest.approx(1, abs=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["no", "yes"])
def test_shares_of_a_batch_make_up_the_batch(tmp_path: Path, stream: str) -> None:
    """Several processes share a step's images, and the batches that score a network."""
    data = load_data(f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?size=12&stream={stream}")
    shares = (slice(0, 2), slice(2, 5))
    for augment in ("shift-flip", "flip", "imagenet"):
        for step in range(2):
            whole = data.train_batch(step, 5, 3, None, augment)
            first, second = (data.train_batch(step, 5, 3, None, augment, share) for share in shares)
            for one, other, both in zip(first, second, whole, strict=True):
                assert torch.equal(torch.cat([one, other]), both)
    batches = list(data.batches(data.validation, 3))
    for rank in range(len(batches) + 1):
        own_batches = list(data.batches(data.validation, 3, slice(rank, None, len(batches))))
        assert len(own_batches) == (rank < len(batches))
        for batch in own_batches:
            assert all(torch.equal(a, b) for a, b in zip(batch, batches[rank], strict=True))


@pytest.mark.parametrize("stream", ["no", "yes"])
def test_a_data_set_is_sent_to_other_processes_without_its_test_images(tmp_path: Path, stream: str) -> None:
    """Also one that decodes images in advance, in processes of its own."""
    data = load_data(f"imagefolder:{write_images(tmp_path / 'images', 20)}?size=8&stream={stream}")
    images, targets = data.train_batch(3, 4, 0)
    sent: ImageData = pickle.loads(pickle.dumps(data.without_test()))
    assert sent.fingerprint == data.fingerprint
    there = sent.train_batch(3, 4, 0)
    assert torch.equal(there[0], images)
    assert torch.equal(there[1], targets)
    with pytest.raises(ValueError, match="the test images were not sent"):
        _ = sent.test
    assert len(data.test)
