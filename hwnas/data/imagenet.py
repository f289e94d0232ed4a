"""What the papers do to each of ImageNet's training images (DARTS, cnn/train_imagenet.py): a crop of 8 to 100 % of the
area and of 3:4 to 4:3, resized; a horizontal flip of every other one; jitter of brightness, contrast, saturation, hue.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hwnas.data.torchvision_cpu import torchvision_transforms
from hwnas.errors import HwnasError

CHANNELS = (1, 3)  # of images whose colours can be jittered


@dataclass(frozen=True)
class ImagenetAugmentation:
    """A function of an image and a seed, to uint8 [C, height, width]."""

    height: int
    width: int
    flip: bool

    def __post_init__(self) -> None:
        torchvision_transforms()  # imported once, before processes are forked

    def __call__(self, image: Image.Image, seed: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed takes milliseconds, for other devices
            pixels = np.array(_transforms(self.height, self.width, self.flip)(image))
        return torch.from_numpy(pixels).view(self.height, self.width, -1).permute(2, 0, 1)


@lru_cache(maxsize=1)
def _transforms(height: int, width: int, flip: bool) -> Callable[[Image.Image], Image.Image]:
    # On Pillow's images as there, which one thread computes: the same bits in every process.
    v2 = torchvision_transforms()
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    jitter = v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2)
    return v2.Compose([v2.RandomResizedCrop((height, width)), *mirror, jitter])


def as_picture(image: Tensor) -> Image.Image:
    """uint8 [C, H, W] with 1 or 3 channels. Raises HwnasError where it has others."""
    if len(image) not in CHANNELS:
        raise HwnasError(
            f"augment imagenet takes images of 1 or 3 channels, not {len(image)}", "use augment shift-flip"
        )
    return Image.fromarray(image.permute(1, 2, 0).squeeze(-1).numpy())
