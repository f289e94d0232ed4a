"""The augmentation of ImageNet's training images follows the published distributions."""

from __future__ import annotations

import colorsys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import kstest

from hwnas.compute.seeds import Purpose, seed_of
from hwnas.compute.torchvision_cpu import torchvision_transforms
from hwnas.data import ImageData, Split, load_data
from hwnas.data.imagenet import ImagenetAugmentation
from hwnas.data.images import choose_batch
from hwnas.errors import HwnasError


@pytest.mark.slow
def test_crops_have_uniform_areas_and_published_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crops of up to 3/4 of the area fit into a square at any aspect ratio: their areas are uniform from 0.08."""
    v2, crops = torchvision_transforms(), []
    real = v2.RandomResizedCrop.transform

    def spy(self: object, image: Image.Image, params: dict[str, int]) -> Image.Image:
        crops.append((params["height"], params["width"], params["top"], params["left"]))
        return real(self, image, params)

    monkeypatch.setattr(v2.RandomResizedCrop, "transform", spy)
    augment, image = ImagenetAugmentation(8, 8, flip=True), Image.new("RGB", (600, 600))
    for seed in range(800):
        augment(image, seed)
    height, width, top, left = np.array(crops, dtype=float).T
    area, ratio = height * width / 600**2, width / height
    small = area < 0.75
    assert kstest(area[small], "uniform", (0.08, 0.67)).pvalue > 0.01
    assert kstest(np.log(ratio[small]) / np.log(4 / 3), "uniform", (-1, 2)).pvalue > 0.01
    assert kstest(((top + 0.5) / (601 - height))[small], "uniform").pvalue > 0.01
    assert kstest(((left + 0.5) / (601 - width))[small], "uniform").pvalue > 0.01
    assert area.max() > 0.9


def test_half_of_the_images_are_flipped() -> None:
    ramp = Image.fromarray(np.tile(np.linspace(40, 200, 64).astype(np.uint8)[None, :, None], (64, 1, 3)))
    for flip, expected in ((True, 300), (False, 0)):
        augment = ImagenetAugmentation(16, 16, flip)
        columns = [augment(ramp, seed).float().mean(dim=(0, 1)) for seed in range(600)]
        assert abs(sum(bool(c[0] > c[-1]) for c in columns) - expected) <= (
            40 if flip else 0
        )  # over 3 standard deviations


def test_colours_are_jittered_as_published() -> None:
    """Brightness of a uniform grey is scaled by 0.6 to 1.4; the hue of a colour moves by at most 0.2."""
    augment = ImagenetAugmentation(4, 4, flip=True)
    grey = Image.new("RGB", (20, 20), (120, 120, 120))
    levels = np.array([augment(grey, seed)[0, 0, 0].item() for seed in range(500)])
    assert kstest(levels / 120, "uniform", (0.6, 0.8)).pvalue > 0.01
    colour = Image.new("RGB", (20, 20), (110, 70, 70))
    hues = []
    for seed in range(500):
        red, green, blue = (augment(colour, seed)[:, 0, 0] / 255).tolist()
        hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
        hues.append((hue + 0.5) % 1 - 0.5)
        assert saturation > 0
    assert kstest(hues, "uniform", (-0.2, 0.4)).pvalue > 0.01


def test_images_of_a_batch_have_their_own_crops_of_the_full_size_image(tmp_path: Path) -> None:
    """Images of one batch have different crops, taken from the file's image, not from the resized one in memory."""
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(10):
            pixels = np.random.default_rng(0).integers(0, 256, (90, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    data = load_data(f"imagefolder:{tmp_path}?size=8")
    assert data.train.files is not None
    images, _ = data.train_batch(0, 8, 0, augment="imagenet")
    assert len({tuple(image.flatten().tolist()) for image in images}) == 8
    number = int(choose_batch(len(data.train), 0, 8, 0)[0])
    whole = ImagenetAugmentation(8, 8, flip=True)(
        data.train.files.open(number), seed_of(0, Purpose.AUGMENTATION, 0, number)
    )
    assert torch.equal(data.normalise(whole[None])[0], images[0])
    assert data.train.files.open(number).size == (30, 90)


def test_grey_images_in_memory_are_augmented() -> None:
    images = torch.randint(256, (8, 1, 10, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    split = Split(images, torch.arange(8) % 2)
    batch, _ = ImageData("grey", ("a", "b"), split, split, lambda: split).train_batch(0, 4, 0, augment="imagenet")
    assert batch.shape == (4, 1, 10, 12)


def test_images_of_five_channels_are_refused() -> None:
    split = Split(torch.zeros(4, 5, 8, 8, dtype=torch.uint8), torch.arange(4) % 2)
    with pytest.raises(HwnasError, match="1 or 3 channels"):
        ImageData("five", ("a", "b"), split, split, lambda: split).train_batch(0, 2, 0, augment="imagenet")
