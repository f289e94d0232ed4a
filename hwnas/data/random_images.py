"""Random images, which stand in where a network is exported and no images of its shape are known."""

from __future__ import annotations

import numpy as np
import torch

from hwnas.compute.seeds import Purpose, numpy_generator
from hwnas.data.images import ImageData, Split

COUNT = 64


def random_images(shape: tuple[int, int, int], classes: int) -> ImageData:
    """Return 64 images of uniform noise, [64, *shape], as every split of a data set; the same in every run."""
    pixels = numpy_generator(0, Purpose.RANDOM_IMAGES).integers(256, size=(COUNT, *shape), dtype=np.uint8)
    split = Split(torch.from_numpy(pixels), torch.arange(COUNT) % classes)
    return ImageData("random images", tuple(map(str, range(classes))), split, split, lambda: split)
