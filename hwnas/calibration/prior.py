"""What edge costs of a device usually look like: from the tables of other devices, or from nothing at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hwnas.calibration.design_matrix import (
    REFERENCE,
    connected_choices,
    design_matrix,
    flat,
    grids,
    groups,
    num_features,
)
from hwnas.calibration.regression import SCATTER_SHARE, SCATTER_SPREAD, Prior
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import Array, build_cost_models
from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace, SizedSpace
from hwnas.tables.schema import LatencyTable

BASE, BASE_SPREAD = 0.4, 0.3  # of the mean latency: what does not depend on the architecture
ALIKE = 0.6  # of the spread of an operation's cost is common to all edges
DEAD_EDGES = 0.15  # the deviation, beside the pool's, of the share of dead edges' costs that a runtime leaves out
DIFFERENT = 0.15  # by such a share of a latency devices differ, when there are too few to tell
FEW_BLEND = 0.3  # with so few devices that none can be left out
LEAST_SCATTER_SPREAD = 0.5
BLENDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
JUDGED = 40  # networks on which a blend is judged


def generic_prior(space: SearchSpace) -> Prior:
    """Of a device of which nothing is known: operations cost something, about the same on every edge."""
    mean, covariance = np.zeros(num_features(space)), np.zeros((num_features(space),) * 2)
    mean[0], covariance[0, 0] = BASE, BASE_SPREAD**2
    used = design_matrix(space, connected_choices(space, REFERENCE))[:, 1:].mean(axis=0).sum() / 2
    usual = (1 - BASE) / used  # a used edge's share of the latency
    for columns in groups(space):
        covariance[np.ix_(columns, columns)] += ALIKE * (2 * usual) ** 2
        covariance[columns, columns] += (1 - ALIKE) * (2 * usual) ** 2
        mean[columns] = usual / 2  # half of it where the edge is live
    return Prior(mean, covariance)


def pool_prior(tables: Mapping[str, LatencyTable], sized: SizedSpace) -> Prior:
    """The mean and the covariance of the pool's devices, the covariance blended with that of ``generic_prior``.

    How much of the latter is what describes each device of the pool best when it is left out. It keeps what no device
    of the pool shows possible.

    Raises HwnasError when no table of the pool knows the network.
    """
    space = sized.space
    choices = connected_choices(space, REFERENCE)
    design = design_matrix(space, choices)
    costs, shares, names = [], [], []
    for name, table in sorted(tables.items()):
        if not knows(table, sized):
            continue
        predicted = build_cost_models(table, sized)[LATENCY.name].predict_many(choices)
        costs.append(_edge_costs(design, predicted / predicted.mean()))
        shares.append(_scatter_share(table, sized.key))
        names.append(name)
    if not names:
        raise HwnasError(
            f"no table of the pool knows network {sized.key}",
            "give a shelf with tables of this space and these sizes",
        )
    devices, logs = np.array(costs), np.log(shares)
    generic = generic_prior(space).covariance
    blend = _best_blend(devices, generic, design) if len(devices) > 3 else FEW_BLEND
    mean, covariance = _blended(devices, generic, design, blend)
    left_out = DEAD_EDGES * _dead_edges_left_out(space, mean)
    spread = max(float(logs.std()), LEAST_SCATTER_SPREAD) if len(devices) > 3 else SCATTER_SPREAD
    return Prior(mean, covariance + np.outer(left_out, left_out), float(np.exp(logs.mean())), spread, tuple(names))


def knows(table: LatencyTable, sized: SizedSpace) -> bool:
    """Whether the table says what networks of these sizes take: it was made for them."""
    return sized.key in table.edge_costs or sized.key in table.correction


def _edge_costs(design: Array, predicted: Array) -> Array:
    """Edge costs [F] that give these latencies; of several, the smallest."""
    size = 1e-6 * len(design)
    return np.asarray(np.linalg.solve(design.T @ design + size * np.eye(design.shape[1]), design.T @ predicted))


def _scatter_share(table: LatencyTable, key: str) -> float:
    if key in table.edge_costs:
        return max(table.edge_costs[key].scatter_share, 1e-3)
    report = table.quality.additivity.get(key)
    return max(report.mape / 100, 1e-3) if report else SCATTER_SHARE


def _blended(devices: Array, generic: Array, design: Array, blend: float) -> tuple[Array, Array]:
    number = len(devices)
    mean = devices.mean(axis=0)
    off = devices - mean
    spread = off.T @ off / max(number - 1, 1)
    # So much do latencies of different devices differ, on average, in units of the mean latency.
    usual = (_mean_variance(design, spread) * (number - 1) + 2 * DIFFERENT**2) / (number + 1)
    generic = generic * (usual / _mean_variance(design, generic))
    return mean, (1 - blend) * spread + blend * generic


def _dead_edges_left_out(space: SearchSpace, costs: Array) -> Array:
    """What changes [F] when a runtime comes to leave dead edges out, and all is paid for live ones only."""
    base, cells = grids(space, costs)
    return flat(space, 0.0 * base, {kind: (-always - live, always + live) for kind, (always, live) in cells.items()})


def _mean_variance(design: Array, covariance: Array) -> float:
    return float(np.einsum("ij,jk,ik->i", design, covariance, design).mean())


def _best_blend(devices: Array, generic: Array, design: Array) -> float:
    """The blend under which each device, left out, is the most likely one, judged on some networks' latencies."""
    some = design[:: max(len(design) // JUDGED, 1)][:JUDGED]

    def score(blend: float) -> float:
        total = 0.0
        for number, device in enumerate(devices):
            mean, covariance = _blended(np.delete(devices, number, axis=0), generic, design, blend)
            total += _log_likelihood(mean, covariance, some, device)
        return total

    return BLENDS[int(np.argmax([score(blend) for blend in BLENDS]))]


def _log_likelihood(mean: Array, covariance: Array, some: Array, device: Array) -> float:
    """Of a device's latencies, by a t distribution: devices of other kinds are to be expected."""
    expected, freedom = some @ mean, 5.0
    speed, scatter = 0.1**2 * np.outer(expected, expected), np.diag((SCATTER_SHARE / 2 * expected) ** 2)
    root = np.linalg.cholesky(some @ covariance @ some.T + speed + scatter)
    z = np.linalg.solve(root, some @ device - expected)
    return float(-0.5 * (freedom + len(z)) * np.log1p(z @ z / freedom) - np.log(np.diag(root)).sum())
