"""Train a graph autoencoder. Equal graphs, settings and seed give equal weights, so a training can be repeated."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from torch import nn

from hwnas.compute.seeds import Purpose, seed_of, torch_generator
from hwnas.latent.autoencoder import GraphAutoencoder
from hwnas.latent.graphs import CellGraphs, require_cells
from hwnas.latent.latent_space import LatentSpace
from hwnas.recipe import Autoencoder
from hwnas.training.optimizers import make_optimizer, set_learning_rate

_last: dict[Any, LatentSpace] = {}  # the one that this process trained last, by what decides it


def train_autoencoder(graphs: CellGraphs, settings: Autoencoder, seed: int) -> Generator[int, None, LatentSpace]:
    """Train on the graphs that are not held out, on the CPU; yield the number of epochs done, return the latent space.

    A repeated call with equal arguments returns the same without training.

    Raises HwnasError for a space that is not of cells, or hardly any of whose architectures follows the rules.
    """
    require_cells(graphs.space)
    key = (graphs.key, settings, seed)
    if key not in _last:
        model = new_autoencoder(graphs, settings, seed)
        optimizer = make_optimizer(settings.optimizer, model.parameters())
        for epoch in range(settings.epochs):
            set_learning_rate(optimizer, settings.optimizer, epoch, settings.epochs)
            noise = torch_generator(seed, Purpose.LATENT_NOISE, epoch)
            for batch in torch.from_numpy(graphs.training(settings.graphs, seed, epoch)).split(settings.batch_size):
                loss = model.loss(batch, torch.randn(len(batch), settings.latent, generator=noise))
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), settings.optimizer.clip_norm)
                optimizer.step()
            yield epoch + 1
        _last.clear()
        _last[key] = LatentSpace(graphs, model.eval())
    return _last[key]


def trained_autoencoder(graphs: CellGraphs, settings: Autoencoder, seed: int) -> LatentSpace:
    """Train to the end as ``train_autoencoder`` does."""
    training = train_autoencoder(graphs, settings, seed)
    while True:
        try:
            next(training)
        except StopIteration as end:
            space: LatentSpace = end.value
            return space


def new_autoencoder(graphs: CellGraphs, settings: Autoencoder, seed: int) -> GraphAutoencoder:
    """Return an autoencoder with random weights that follow from the seed; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed_of(seed, Purpose.AUTOENCODER))
        return GraphAutoencoder(graphs, settings)
