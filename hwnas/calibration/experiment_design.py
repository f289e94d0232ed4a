"""Experiment design: select the architectures to measure on a new device, given a prior from other devices.

Greedy optimal design: each choice reduces most the mean variance of the space's relative latencies (I-optimality;
Chaloner & Verdinelli, Statistical Science 10, 1995). Every third is drawn at random, because the informative ones are
extreme and do not show how much typical latencies scatter. Architectures without a path through a cell are left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hwnas.calibration.design_matrix import CANDIDATES, REFERENCE, connected_choices, design_matrix
from hwnas.calibration.regression import SCALE_SPREAD, Prior
from hwnas.spaces import SearchSpace

COMMON = 0.3  # weight of the part common to all latencies, the speed of the device: any measurement shows it
RANDOM = 3  # every third is drawn at random


def choose_architectures(
    space: SearchSpace, prior: Prior, number: int, among: NDArray[np.intp] | None = None
) -> NDArray[np.intp]:
    """Return ``number`` architectures [n, edges of all cells], the most informative first.

    They are from ``among`` [N, edges of all cells], by default random architectures.
    """
    candidates = connected_choices(space, CANDIDATES) if among is None else among
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
