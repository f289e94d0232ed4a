"""Augmentation of a batch of training images besides shifting and flipping: cutout."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.compute.device import to_device


def cutout(
    images: Tensor, side: int, generator: torch.Generator, count: int | None = None, share: slice = slice(None)
) -> Tensor:
    """Set one square of every image [N, C, H, W] to zero, the mean of normalised images (DeVries & Taylor, 2017).

    The centre is any pixel, so the image's border can cut the square; an odd ``side`` is rounded down to an even one.
    ``images`` are the ``share`` of a batch of ``count`` images, by default all of it: random numbers are drawn for the
    whole batch.
    """
    own, _, height, width = images.shape
    count = count or own
    tops = torch.randint(height, (count, 1), generator=generator)[share] - side // 2
    lefts = torch.randint(width, (count, 1), generator=generator)[share] - side // 2
    rows, columns = torch.arange(height), torch.arange(width)
    length = side // 2 * 2
    in_rows = (rows >= tops) & (rows < tops + length)
    in_columns = (columns >= lefts) & (columns < lefts + length)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return images.masked_fill(to_device(hole, images.device), 0.0)
