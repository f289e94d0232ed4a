"""Folders of random images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(
    folder: Path, count: int, side: int | None = 12, mode: str = "RGB", classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    """Write ``count`` random PNG images a class and return the folder. Sides vary from 14 to 39 if ``side`` is None."""
    generator = np.random.default_rng(count)
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            height, width = (side, side) if side else generator.integers(14, 40, 2)
            pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / label / f"{number}.png")
    return folder
