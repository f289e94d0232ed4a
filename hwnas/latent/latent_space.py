"""The latent space of a trained graph autoencoder, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hwnas.cost.model import Array
from hwnas.latent.autoencoder import GraphAutoencoder
from hwnas.latent.graphs import CellGraphs, Choices

AT_ONCE = 4096  # graphs that are encoded or decoded together


@dataclass(frozen=True)
class LatentSpace:
    """A trained autoencoder of the graphs of a space."""

    graphs: CellGraphs
    autoencoder: GraphAutoencoder

    @property
    def dimensions(self) -> int:
        return self.autoencoder.encoder.mean.out_features

    def encode(self, choices: Choices) -> Array:
        """Return the mean latents [N, dimensions] of graphs [N, edges]."""
        parts = torch.from_numpy(choices).split(AT_ONCE)
        return np.concatenate([self.autoencoder.encode(part).double().numpy() for part in parts])

    def decode(self, latents: Array) -> Choices:
        """Return the graphs [N, edges] that latents [N, dimensions] stand for: of the two built, the likelier.

        Where only the other one is a valid architecture, it is returned.
        """
        parts = [self.autoencoder.decode(part) for part in torch.from_numpy(latents).float().split(AT_ONCE)]
        likelier, other = (np.concatenate([pair[n].numpy() for pair in parts]) for n in range(2))
        valid = self.graphs.valid
        return np.where((~valid(likelier) & valid(other))[:, None], other, likelier)
