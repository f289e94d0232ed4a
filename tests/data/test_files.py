"""Fit: the central crop equals torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hwnas.compute.torchvision_cpu import torchvision_transforms
from hwnas.data.files import Fit


@pytest.mark.parametrize(("height", "width"), [(300, 200), (201, 333), (64, 64), (30, 199), (256, 341), (1000, 61)])
def test_central_crop_equals_torchvisions(height: int, width: int) -> None:
    generator = np.random.default_rng(height)
    image = Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))
    v2 = torchvision_transforms()
    for side, shorter in ((224, 256), (28, 32), (56, 64)):
        expected = v2.Compose([v2.Resize(shorter), v2.CenterCrop(side)])(image)
        assert np.array_equal(np.array(Fit(side, side, "crop")(image)), np.array(expected))
