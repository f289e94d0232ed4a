"""Quantise a trained network to 8-bit integers, with activation ranges from training images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hwnas.data import ImageData
from hwnas.runtimes.int8 import Feeds
from hwnas.runtimes.registry import int8_of

CALIBRATION_IMAGES = 200
BATCH = 50


def quantize_network(source: Path, path: Path, data: ImageData, images: int = CALIBRATION_IMAGES) -> None:
    """Quantise the file of ``export_network`` with a number of training images, or all where there are fewer.

    ``path`` is NAME.onnx for ONNX Runtime, NAME.tflite for LiteRT.
    """
    int8_of(path).quantize(source, path, _batches(data, images))


def _batches(data: ImageData, images: int) -> Iterator[Feeds]:
    """Yield training images, not augmented, in random order by a fixed seed, because image folders are sorted."""
    chosen = np.random.default_rng(0).permutation(len(data.train))[:images]
    for start in range(0, len(chosen), BATCH):
        yield {"image": data.normalise(data.train.images[chosen[start : start + BATCH]]).numpy()}
