"""What is done to a batch of training images beside shifting and flipping them."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.compute.device import to_device


def cutout(
    images: Tensor, side: int, generator: torch.Generator, count: int | None = None, share: slice = slice(None)
) -> Tensor:
    """Zeros, the mean of normalised images, in one square of every image [N, C, H, W] (DeVries & Taylor, 2017).

    Its centre is any pixel, so that the image's edge can cut it. Of an odd ``side`` one pixel less counts. ``images``
    are that share of a batch of ``count``, by default all of it: the random numbers are the batch's.
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
