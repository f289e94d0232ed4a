"""One training step of a supernet on random images."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from hwnas.networks.drop_path import drop_path
from hwnas.networks.mixed_cell import Mixed
from support.spaces import SMALL

# Sizes that fill no vector, odd images, and pooling with and without a norm.
ODD = {
    "darts": replace(SMALL["darts"], channels=6, height=15, width=17),
    "darts-extended": replace(SMALL["darts-extended"], channels=6, height=15, width=17),
    "nasbench201": replace(SMALL["nasbench201"], channels=10, height=15, width=17),
}


def step_of(
    net: nn.Module, weights: dict[str, Tensor], drop: bool, size: tuple[int, int] = (15, 17)
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the loss of a batch and the gradient of the mixture's weights. Parameters keep theirs in ``grad``."""
    images = torch.randn(4, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mine = {kind: w.clone().requires_grad_() for kind, w in weights.items()}
    dropping = drop_path(0.4, torch.Generator().manual_seed(3), 100, 4) if drop else None
    scores = net(images, {kind: Mixed(w) for kind, w in mine.items()}, None, dropping)
    loss = nn.functional.cross_entropy(10 * scores, torch.arange(4))
    loss.backward()
    return loss.detach(), {kind: w.grad for kind, w in mine.items()}  # type: ignore[misc]
