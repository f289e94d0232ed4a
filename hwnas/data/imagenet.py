"""Augmentation of ImageNet's training images as in the papers (DARTS, cnn/train_imagenet.py).

A crop of 8 to 100 % of the area with an aspect ratio of 3:4 to 4:3, resized; a horizontal flip with probability 1/2;
jitter of brightness, contrast, saturation and hue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hwnas.compute.torchvision_cpu import torchvision_transforms
from hwnas.errors import HwnasError

CHANNELS = (1, 3)  # numbers of channels that the colour jitter accepts


@dataclass(frozen=True)
class ImagenetAugmentation:
    """Augment an image with a seed. Returns uint8 [C, height, width]."""

    height: int
    width: int
    flip: bool

    def __post_init__(self) -> None:
        torchvision_transforms()  # import once, before worker processes fork

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed other devices, which takes milliseconds
            torch.default_generator.manual_seed(seed)
            pixels = np.array(_transforms(self.height, self.width, self.flip)(image))
        return torch.from_numpy(pixels).view(self.height, self.width, -1).permute(2, 0, 1)


@lru_cache(maxsize=1)
def _transforms(height: int, width: int, flip: bool) -> Callable[[Image.Image], Image.Image]:
    # Pillow images as in the papers' code. Pillow uses one thread, so every process computes the same bits.
    v2 = torchvision_transforms()
    flips = [v2.RandomHorizontalFlip()] if flip else []
    jitter = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    return v2.Compose([v2.RandomResizedCrop((height, width)), *flips, jitter])


def to_pillow(image: Tensor) -> Image.Image:
    """Convert uint8 [C, H, W] to a Pillow image. Raises HwnasError unless it has 1 or 3 channels."""
    if len(image) not in CHANNELS:
        raise HwnasError(
            f"augment: imagenet needs images of 1 or 3 channels, not {len(image)}", "use augment: shift-flip"
        )
    return Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())
