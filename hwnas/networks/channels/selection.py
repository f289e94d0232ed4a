"""Order the channels of a network by how little they matter for what they cost, and select those that a limit leaves.

Channels leave in blocks of ``multiple`` of one group, which so keeps a multiple of it or all of its channels. At least
``multiple`` channels of a group stay (all, where it has no more).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hwnas.networks.channels.groups import Channels, Costs, Floats
from hwnas.networks.channels.recording import Ids


def removals(
    importance: Floats, keep: NDArray[np.bool_], channels: Channels, costs: Costs, multiple: int = 1
) -> Iterator[Ids]:
    """Yield, one after another, the blocks that leave a network of the channels ``keep``, down to the narrowest one.

    The next block is the one of the least ``importance`` [channels] for the cost that it saves.
    """
    waiting = [blocks[:0:-1] for blocks in _blocks_of_groups(importance, keep, channels, multiple)]
    widths = channels.widths(keep)
    value = np.array([_next_value(importance, blocks) for blocks in waiting])
    while np.isfinite(value).any():
        group = int(np.argmin(value / np.maximum(costs.of_one_more(widths), np.finfo(float).tiny)))
        block = waiting[group].pop(0)
        widths[group] -= len(block)
        value[group] = _next_value(importance, waiting[group])
        yield block


def select_channels(
    rank: Floats, channels: Channels, costs: Costs, limit: float, multiple: int = 1
) -> NDArray[np.bool_] | None:
    """Return which channels to keep [channels] so that ``costs`` are at most ``limit``; None where that is impossible.

    The channels of the lowest ``rank`` [channels] leave until the limit is kept, and those of the highest rank that fit
    return.
    """
    blocks = _Blocks(rank, channels, multiple)
    kept = np.ones(len(blocks.values), dtype=bool)
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


def _blocks_of_groups(values: Floats, keep: NDArray[np.bool_], channels: Channels, multiple: int) -> list[list[Ids]]:
    """Return the blocks of every group's kept channels, those of the highest ``values`` [channels] first."""
    found = []
    for start, size in zip(channels.starts, channels.sizes, strict=False):
        own = start + np.argsort(-values[start : start + size], kind="stable")
        own = own[keep[own]]
        found.append([own[place : place + multiple] for place in range(0, len(own), multiple)])
    return found


def _next_value(importance: Floats, blocks: list[Ids]) -> float:
    """Return the importance of a channel of the first block, in the mean; infinity where no block is left."""
    return float(importance[blocks[0]].mean()) if blocks else np.inf


class _Blocks:
    """All blocks of all groups.

    ``values`` [blocks] are the means of their channels' ranks, ``least`` [blocks] is true for the first block of a
    group, which stays.
    """

    def __init__(self, rank: Floats, channels: Channels, multiple: int) -> None:
        groups = _blocks_of_groups(rank, np.ones(channels.count, dtype=bool), channels, multiple)
        self.members = [members for blocks in groups for members in blocks]
        self.group_of = np.repeat(np.arange(len(groups)), [len(blocks) for blocks in groups])
        self.least = np.array([number == 0 for blocks in groups for number in range(len(blocks))])
        self.sizes = np.array([len(members) for members in self.members])
        self.values = np.array([rank[members].mean() for members in self.members])
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
