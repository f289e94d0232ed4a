"""Which architectures to measure: those that tell most about all the others, given what devices are like.

Greedy optimal design: each next one reduces most the mean variance of the space's relative latencies (I-optimality;
Chaloner & Verdinelli, Statistical Science 10, 1995). Every third is drawn at random: the telling ones are extremes, and
cannot show by how much typical ones scatter. A broken architecture (no path through a cell) is never chosen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.calibration.design_matrix import CANDIDATES, REFERENCE, connected_choices, design_matrix
from hwnas.calibration.regression import SCALE_SPREAD, Prior
from hwnas.spaces import SearchSpace

COMMON = 0.3  # weight of what all latencies have in common, the device's speed: any measurement tells it
RANDOM = 3  # every so many-th is drawn at random


def choose_architectures(space: SearchSpace, prior: Prior, number: int) -> NDArray[np.intp]:
    """``number`` architectures [n, edges of all cells], the most telling first."""
    candidates = connected_choices(space, CANDIDATES)
    reference = design_matrix(space, connected_choices(space, REFERENCE, seed=1))
    reference = reference / (reference @ prior.mean)[:, None]
    moment = reference.T @ reference / len(reference)
    design = design_matrix(space, candidates)
    scatter = (prior.scatter_share * (design @ prior.mean)) ** 2
    covariance = prior.covariance + SCALE_SPREAD**2 * np.outer(prior.mean, prior.mean)
    chosen: list[int] = []
    generator = np.random.default_rng(0)
    for _ in range(min(number, len(candidates))):
        known = design @ covariance  # [N, F]
        variance = np.einsum("ij,ij->i", known, design) + scatter
        common = (reference.mean(axis=0) @ known.T) ** 2
        squared = np.einsum("ij,ij->i", known @ moment, known)  # mean over the reference of squared covariances
        gain = (squared - (1 - COMMON) * common) / variance
        gain[chosen] = -np.inf
        best = int(gain.argmax())
        if len(chosen) % RANDOM == RANDOM - 1:
            best = int(generator.choice(np.setdiff1d(np.arange(len(candidates)), chosen)))
        chosen.append(best)
        covariance = covariance - np.outer(known[best], known[best]) / variance[best]
    return candidates[chosen]
