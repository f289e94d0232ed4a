"""Dropout for networks of words: the same channels of a window are dropped at all its words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hwnas.compute.device import to_device


@dataclass(frozen=True)
class Dropout:
    """Set a share of the channels of every window to 0 and scale up the others (Gal & Ghahramani, NIPS 2016).

    Each call drops other channels. ``generator`` draws them for the whole batch of ``total`` windows, of which
    ``share`` are this process's.
    """

    rate: float
    generator: torch.Generator
    total: int
    share: slice

    def __call__(self, values: Tensor) -> Tensor:
        """Return values [N, T, C] with some channels dropped."""
        uniform = torch.rand((self.total, 1, values.shape[-1]), generator=self.generator)[self.share]
        kept = (uniform >= self.rate).to(values.dtype) / (1 - self.rate)
        return values * to_device(kept, values.device)
