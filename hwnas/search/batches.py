"""The batches of a search."""

from __future__ import annotations

import torch

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
        subsets = [
            torch.from_numpy(part) for part in divide(data.train.targets.cpu().numpy(), shares, SplitSeed.LOGITS)
        ]
    return {
        name: Batches(data, recipe.batch_size, recipe.seed, processes, subset)
        for name, subset in zip(("weights", "logits"), subsets, strict=True)
    }
