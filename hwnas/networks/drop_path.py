"""Drop path: random edges of a network carry nothing for some images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from hwnas.compute.device import CPU, to_device


class DropPath:
    """Zero whole edges for some images of a batch and scale the others up (Larsson et al., FractalNet, 2017).

    ``rows`` [edges, N] are 0 where an edge is dropped for an image, else the scale of its value. Every call takes the
    row of the next edge.
    """

    def __init__(self, rows: Tensor) -> None:
        self.rows, self._next = rows, 0

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.factors().to(x)[:, None, None, None]

    def factors(self) -> Tensor:
        """Return the factors [N] of the next edge."""
        self._next += 1
        return self.rows[self._next - 1]


def drop_path(
    probability: float,
    generator: torch.Generator,
    edges: int,
    images: int,
    share: slice = slice(None),
    device: torch.device = CPU,
) -> DropPath:
    """Draw a drop path that drops each of ``edges`` edges with ``probability``, on ``device``.

    It is for the ``share`` of a batch of ``images``; the random numbers are drawn for the whole batch.
    """
    keep = 1 - probability
    drawn = torch.rand(edges, images, generator=generator)[:, share]
    return DropPath(to_device((drawn < keep).double() / keep, device))
