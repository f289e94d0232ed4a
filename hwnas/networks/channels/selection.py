"""Select the channels that a budget leaves, by the latent values of their masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.networks.channels.groups import Channels, Costs, Floats
from hwnas.networks.channels.masks import THRESHOLD


def select_channels(
    latent: Floats, channels: Channels, costs: Costs, limit: float, multiple: int = 1
) -> NDArray[np.bool_] | None:
    """Return which channels to keep [channels] so that ``costs`` are at most ``limit``; None where that is impossible.

    Those above THRESHOLD are kept at first. Then the channels of the lowest ``latent`` values [channels] leave until
    the limit is kept, and those of the highest values that fit return: the threshold moves to where the limit is. With
    ``multiple`` channels leave and return by so many of a group, which keeps a multiple of it or all of its channels.
    At least ``multiple`` channels of a group stay (all, where it has no more).
    """
    blocks = _Blocks(latent, channels, multiple)
    kept = blocks.values > THRESHOLD
    kept |= blocks.least
    order = np.lexsort((-np.arange(len(kept)), blocks.values))  # of equal blocks of a group the last leaves first
    for block in order:
        if costs.of(blocks.widths(kept)) <= limit:
            break
        kept[block] &= blocks.least[block]
    if costs.of(blocks.widths(kept)) > limit:
        return None
    for block in order[::-1]:
        if not kept[block]:
            kept[block] = True
            if not blocks.is_orderly(kept, block) or costs.of(blocks.widths(kept)) > limit:
                kept[block] = False
    return blocks.channels(kept)


def least_channels(channels: Channels, multiple: int = 1) -> NDArray[np.bool_]:
    """Return the channels of the narrowest network [channels]."""
    blocks = _Blocks(np.ones(channels.count), channels, multiple)
    return blocks.channels(blocks.least.copy())


class _Blocks:
    """The channels of every group in the order of their latent values, cut into blocks of ``multiple``.

    ``values`` [blocks] are the means of the latent values, ``least`` [blocks] is true for the first block of a group,
    which stays.
    """

    def __init__(self, latent: Floats, channels: Channels, multiple: int) -> None:
        self.members: list[NDArray[np.int64]] = []
        groups, first = [], []
        for group, (start, size) in enumerate(zip(channels.starts, channels.sizes, strict=False)):
            own = start + np.argsort(-latent[start : start + size], kind="stable")
            for place in range(0, size, multiple):
                self.members.append(own[place : place + multiple])
                groups.append(group)
                first.append(place == 0)
        self.group_of, self.least = np.array(groups), np.array(first)
        self.sizes = np.array([len(members) for members in self.members])
        self.values = np.array([latent[members].mean() for members in self.members])
        self.count, self.num_groups = channels.count, len(channels.sizes)

    def widths(self, kept: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return the widths [groups] that some blocks make."""
        return np.bincount(self.group_of[kept], self.sizes[kept], self.num_groups).astype(np.int64)

    def is_orderly(self, kept: NDArray[np.bool_], block: int) -> bool:
        """Return whether the blocks of a group before ``block``, of higher values, are kept too."""
        return bool(self.least[block] or kept[block - 1])

    def channels(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the channels [channels] of some blocks."""
        keep = np.zeros(self.count, dtype=bool)
        for members, is_kept in zip(self.members, kept, strict=True):
            keep[members] |= is_kept
        return keep
