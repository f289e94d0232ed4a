"""Error bars: prediction intervals for the latency of a network that is timed once."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from hwnas.calibration.design_matrix import design_matrix
from hwnas.cost.carried_head import carry_head
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import Array, build_cost_models
from hwnas.spaces import SizedSpace
from hwnas.spaces.encoding import encode
from hwnas.tables.diff import NORMAL_95
from hwnas.tables.schema import EdgeCosts, LatencyTable

LEVEL = 0.9
ERROR_DEGREES = 4.0  # degrees of freedom of a latency's error, Student's t, as in hwnas.calibration.regression
LEAST_NETWORKS = 19  # held out; fewer do not determine the error that one in ten exceeds


def half_intervals(
    table: LatencyTable, sized: SizedSpace, choices: NDArray[np.intp], level: float = LEVEL
) -> Array | None:
    """Return half the interval [N] in ms that holds a network's latency with probability ``level``, or None.

    For fitted edge costs it follows from their covariance and the scatter of single latencies. For measured entries it
    follows from the relative errors of held-out networks (split conformal prediction; Lei et al., J. Am. Stat. Assoc.
    113, 2018); None where the table has too few of them. A head that is carried over widens either.
    """
    if carried := carry_head(table, sized)[1]:
        known = half_intervals(table, carried.known, choices, level)
        head_ms = carried.error_ms * ndtri(0.5 + level / 2) / NORMAL_95
        return None if known is None else np.asarray(np.hypot(known, head_ms))
    space, key = sized.space, sized.key
    predicted = build_cost_models(table, sized)[LATENCY.name].predict_many(choices)
    if found := table.edge_costs.get(key):
        return _of_edge_costs(found, design_matrix(space, choices), predicted, level)
    unseen = [network for network in table.networks.get(key, []) if not network.fitted]
    if len(unseen) < LEAST_NETWORKS:
        return None
    held_out = encode(space, [space.parse(network.architecture) for network in unseen])
    expected = build_cost_models(table, sized)[LATENCY.name].predict_many(held_out)
    errors = np.sort(np.abs(np.array([network.latency_ms for network in unseen]) / expected - 1))
    number = math.ceil((len(errors) + 1) * level)
    return None if number > len(errors) else np.asarray(errors[number - 1] * predicted)


def error_scales(table: LatencyTable, sized: SizedSpace, choices: NDArray[np.intp]) -> Array | None:
    """Return the scale [N] in ms of the t distribution that has the intervals of ``half_intervals``."""
    half = half_intervals(table, sized, choices)
    return None if half is None else half / float(stdtrit(ERROR_DEGREES, 0.5 + LEVEL / 2))


def _of_edge_costs(found: EdgeCosts, design: Array, predicted: Array, level: float) -> Array:
    triangle = np.zeros((len(found.covariance),) * 2)
    for row, values in enumerate(found.covariance):
        triangle[row, : row + 1] = values
    covariance = triangle + triangle.T - np.diag(np.diag(triangle))
    variance = np.maximum(np.einsum("ij,ij->i", design @ covariance, design), 0.0)
    scale = np.hypot(found.scatter_ms, found.scatter_share * np.abs(predicted))
    single = stdtrit(found.degrees_of_freedom, 0.5 + level / 2) * scale
    return np.asarray(np.hypot(single, ndtri(0.5 + level / 2) * np.sqrt(variance)))
