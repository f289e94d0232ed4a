"""The batches of a search."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from hwnas.compute.seeds import SplitSeed
from hwnas.data import ImageData
from hwnas.data.images import divide
from hwnas.recipe import Recipe
from hwnas.training.batches import Batches
from hwnas.training.processes import Processes


def training_batches(data: ImageData, recipe: Recipe, processes: Processes) -> dict[str, Batches]:
    """Return the batches that train weights and logits: all training images for both, or a separate subset for each."""
    subsets: list[torch.Tensor | None] = [None, None]
    if recipe.logits_share:
        shares = (1 - recipe.logits_share, recipe.logits_share)
        subsets = [torch.from_numpy(part) for part in divide(data.train.strata, shares, SplitSeed.LOGITS)]
    return {
        name: Batches(data, recipe.batch_size, recipe.seed, processes, subset)
        for name, subset in zip(("weights", "logits"), subsets, strict=True)
    }


class LastBatch:
    """Reads batches, and keeps the last one for a step that reads it for several members."""

    def __init__(self, batches: Mapping[str, Batches]) -> None:
        self.batches = batches
        self._kept: tuple[str, int, tuple[Tensor, Tensor]] | None = None

    def read(self, subset: str, step: int) -> tuple[Tensor, Tensor]:
        """Return the images [N, C, H, W] and classes [N] of a step's batch of a subset."""
        if self._kept is None or self._kept[:2] != (subset, step):
            self._kept = subset, step, self.batches[subset].batch(step)
        return self._kept[2]
