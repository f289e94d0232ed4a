"""A small latent space that is trained for some seconds: NAS-Bench-201 with three operations, 729 cells."""

from __future__ import annotations

from functools import cache

from hwnas.latent.graphs import CellGraphs
from hwnas.latent.latent_space import LatentSpace
from hwnas.latent.training import trained_autoencoder
from hwnas.recipe import Autoencoder, Optimizer
from support.spaces import NB201

GRAPHS = CellGraphs(NB201, without=("none", "avg_pool_3x3"))
ADAM = Optimizer(name="adam", lr=1e-2, lr_end=0, betas=(0.9, 0.999))
TRAINED = Autoencoder(latent=16, width=24, epochs=20, batch_size=32, optimizer=ADAM)


@cache
def small_latent_space() -> LatentSpace:
    return trained_autoencoder(GRAPHS, TRAINED, 0)
