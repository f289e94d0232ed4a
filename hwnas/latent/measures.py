"""Measures of a latent space: reconstruction, validity, and smoothness in numbers of edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.latent.graphs import Choices
from hwnas.latent.latent_space import LatentSpace

STEPS = (0.05, 0.1, 0.2, 0.5, 1.0)  # lengths of steps, in mean distances between the latents of two architectures
STOPS = 11  # latents on a line between two architectures, both ends included


@dataclass(frozen=True)
class Measures:
    """Measures on some held-out graphs, with as many random latents.

    ``reconstructed``: share of the graphs that are decoded to the letter. ``valid``: share of latents from N(0, I)
    that are decoded to an architecture which a search may propose; ``distinct``: number of different ones among these.

    The edit distance of two graphs is the number of edges with different operations. ``edges_between`` is its mean
    between two different held-out graphs, ``distance_correlation`` Spearman's correlation between it and the distance
    of the latents. ``edges_changed`` is the mean edit distance after a step in a random direction, by the length of the
    step (STEPS). On straight lines between two graphs, decoded at STOPS latents, ``path_valid`` is the share of valid
    ones, ``path_detour`` the number of changed edges along the line divided by the edit distance of its ends (1: every
    change leads towards the end), and ``path_jump`` the mean of the largest change at once. None where no two different
    graphs are held out.
    """

    graphs: int
    reconstructed: float
    valid: float
    distinct: int
    edges_between: float | None
    distance_correlation: float | None
    edges_changed: dict[str, float]
    path_valid: float | None
    path_detour: float | None
    path_jump: float | None

    def describe(self) -> str:
        """Return one line for people."""
        return (
            f"graph autoencoder: {self.reconstructed:.1%} of {self.graphs:,} held-out graphs reconstructed, "
            f"{self.valid:.1%} of as many random latents valid"
        )


def measure(space: LatentSpace, seed: int = 0) -> Measures:
    """Measure a latent space on its held-out graphs, with random numbers that follow from ``seed``."""
    generator = np.random.default_rng(seed)
    graphs = space.graphs.held_out
    latents = space.encode(graphs)
    drawn = space.decode(generator.normal(size=latents.shape))
    valid = space.graphs.valid(drawn)
    others = generator.permutation(len(graphs))
    edits, distances = _edits(graphs, graphs[others]), np.linalg.norm(latents - latents[others], axis=1)
    pairs = np.flatnonzero(edits)
    size = _mean(distances[pairs]) or 1.0
    directions = generator.normal(size=latents.shape)
    directions *= size / np.linalg.norm(directions, axis=1, keepdims=True)
    path = [
        space.decode(latents[pairs] + share * (latents[others[pairs]] - latents[pairs]))
        for share in np.linspace(0, 1, STOPS)
    ]
    changes = np.stack([_edits(before, after) for before, after in pairwise(path)])
    return Measures(
        graphs=len(graphs),
        reconstructed=float((space.decode(latents) == graphs).all(axis=1).mean()),
        valid=float(valid.mean()),
        distinct=len(np.unique(drawn[valid], axis=0)),
        edges_between=_mean(edits[pairs]),
        distance_correlation=_correlation(edits[pairs], distances[pairs]),
        edges_changed={
            f"{step:g}": float(_edits(graphs, space.decode(latents + step * directions)).mean()) for step in STEPS
        },
        path_valid=_mean(np.array([space.graphs.valid(stop) for stop in path])),
        path_detour=_mean(changes.sum(axis=0) / edits[pairs]),
        path_jump=_mean(changes.max(axis=0, initial=0)),
    )


def _edits(first: Choices, second: Choices) -> NDArray[np.intp]:
    """Return the number of edges [N] with different operations."""
    return np.asarray((first != second).sum(axis=1))


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None


def _correlation(edits: NDArray[np.intp], distances: NDArray[np.float64]) -> float | None:
    """Return Spearman's correlation; None where the edit distances do not vary."""
    from scipy.stats import spearmanr  # takes most of a second to import

    return float(spearmanr(edits, distances).statistic) if len(set(edits.tolist())) > 1 else None
