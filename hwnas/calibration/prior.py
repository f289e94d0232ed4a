"""Priors for the edge costs of a device: from the tables of other devices, or a generic one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hwnas.calibration.design_matrix import (
    REFERENCE,
    connected_choices,
    design_matrix,
    flat,
    grids,
    groups,
    num_features,
    require_additive,
)
from hwnas.calibration.physical_prior import physical_prior
from hwnas.calibration.regression import SCATTER_SHARE, SCATTER_SPREAD, Prior
from hwnas.cost.carried_head import carry_head
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import Array, build_cost_models
from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace, SizedSpace
from hwnas.tables.diff import NORMAL_95
from hwnas.tables.lacking import nearest_differences
from hwnas.tables.schema import LatencyTable
from hwnas.tables.unlike_sizes import in_words

BASE, BASE_SPREAD = 0.4, 0.3  # share of the mean latency that does not depend on the architecture
ALIKE = 0.6  # share of the variance of an operation's cost that is common to all edges
DEAD_EDGES = 0.15  # deviation, in addition to the pool's, of the share of dead edges' costs that a runtime leaves out
DIFFERENT = 0.15  # relative difference between devices where the pool is too small to show it
FEW_BLEND = 0.3  # where the pool is too small to leave devices out
LEAST_SCATTER_SPREAD = 0.5
BLENDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
COMPARED = 40  # networks on which blends are compared


def generic_prior(sized: SizedSpace) -> Prior:
    """Return a prior for an unknown device: an operation has a similar cost on every edge, a layer of a chain one that
    follows from its physical features (hwnas.calibration.physical_prior).
    """
    require_additive(sized.space)
    if sized.space.is_chain:
        return physical_prior(sized)
    space = sized.space
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
    """Return the mean and covariance of the pool's devices, the covariance blended with that of ``generic_prior``.

    The blend is the one under which each device of the pool, left out, is most likely. The generic part allows for
    costs that no device of the pool has. For a chain every device of the pool is a hypothesis beside the generic prior
    (hwnas.calibration.physical_prior): devices of different kinds have no useful mean there. A table for another
    number of classes counts with its head carried over (hwnas.cost.carried_head): the uncertainty of the constant cost
    grows by the head's error, and the device's name in the prior says so.

    Raises HwnasError, which names the sizes that differ, when no table of the pool is for the network.
    """
    space = sized.space
    require_additive(space)
    choices = connected_choices(space, REFERENCE)
    design = design_matrix(space, choices)
    costs, shares, names, heads = [], [], [], []
    for name, given in sorted(tables.items()):
        table, carried = carry_head(given, sized)
        known = carried.known if carried else sized
        if not covers(table, known):
            continue
        predicted = build_cost_models(table, sized)[LATENCY.name].predict_many(choices)
        costs.append(_edge_costs(design, predicted / predicted.mean()))
        shares.append(_scatter_share(table, known.key))
        names.append(f"{name} (for {known.setting.classes} classes)" if carried else name)
        heads.append(carried.error_ms / NORMAL_95 / predicted.mean() if carried else 0.0)
    if not names:
        raise _unknown_network(tables, sized)
    return prior_of_devices(sized, names, np.array(costs), np.array(shares), np.array(heads))


def prior_of_devices(
    sized: SizedSpace, names: Sequence[str], devices: Array, shares: Array, heads: Array | None = None
) -> Prior:
    """Return the prior of D devices with the edge costs ``devices`` [D, F], in units of their mean latencies.

    ``shares`` [D] are the relative scatters of their latencies, ``heads`` [D] the standard errors of their constant
    costs where the head was carried over, else 0.
    """
    space = sized.space
    heads = np.zeros(len(names)) if heads is None else heads
    notes = _notes(sized, heads.tolist())
    if space.is_chain:
        # Devices of another kind may scatter otherwise: the pool does not narrow the scatter.
        return replace(physical_prior(sized, devices, heads), pool=tuple(names), notes=notes)
    logs, design = np.log(shares), design_matrix(space, connected_choices(space, REFERENCE))
    generic = generic_prior(sized).covariance
    blend = _best_blend(devices, generic, design) if len(devices) > 3 else FEW_BLEND
    mean, covariance = _blended(devices, generic, design, blend)
    covariance[0, 0] += np.square(heads).mean()
    left_out = DEAD_EDGES * _dead_edges_left_out(space, mean)
    spread = max(float(logs.std()), LEAST_SCATTER_SPREAD) if len(devices) > 3 else SCATTER_SPREAD
    covariance = covariance + np.outer(left_out, left_out)
    return Prior(mean, covariance, float(np.exp(logs.mean())), spread, tuple(names), notes)


def _notes(sized: SizedSpace, heads: Sequence[float]) -> tuple[str, ...]:
    """Return a line on the carried heads of a pool, given the standard error of each, relative to the mean latency."""
    carried = [NORMAL_95 * head for head in heads if head]
    if not carried:
        return ()
    return (
        f"{len(carried)} of {len(heads)} tables of the pool are for other numbers of classes than "
        f"{sized.setting.classes}: their heads are carried over by size, with an error of up to "
        f"{max(carried):.2g} of the mean latency",
    )


def _unknown_network(tables: Mapping[str, LatencyTable], sized: SizedSpace) -> HwnasError:
    nearest = nearest_differences(tables.values(), sized)
    unlike = f" (the nearest one is for {in_words(nearest)})" if nearest else ""
    return HwnasError(
        f"no table of the pool is for network {sized.key}{unlike}",
        "give a shelf with tables of this space and these sizes, or leave out --prior and time more networks",
    )


def covers(table: LatencyTable, sized: SizedSpace) -> bool:
    """Return whether a table was made for networks of these sizes."""
    return sized.key in table.edge_costs or sized.key in table.correction


def _edge_costs(design: Array, predicted: Array) -> Array:
    """Return the smallest edge costs [F] that give these latencies."""
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
    # The mean variance between devices, in units of the mean latency.
    usual = (_mean_variance(design, spread) * (number - 1) + 2 * DIFFERENT**2) / (number + 1)
    generic = generic * (usual / _mean_variance(design, generic))
    return mean, (1 - blend) * spread + blend * generic


def _dead_edges_left_out(space: SearchSpace, costs: Array) -> Array:
    """Return the change of the edge costs [F] where a runtime leaves dead edges out."""
    base, cells = grids(space, costs)
    return flat(space, 0.0 * base, {kind: (-always - live, always + live) for kind, (always, live) in cells.items()})


def _mean_variance(design: Array, covariance: Array) -> float:
    return float(np.einsum("ij,jk,ik->i", design, covariance, design).mean())


def _best_blend(devices: Array, generic: Array, design: Array) -> float:
    """Return the blend under which the devices, each left out once, are most likely."""
    some = design[:: max(len(design) // COMPARED, 1)][:COMPARED]

    def score(blend: float) -> float:
        total = 0.0
        for number, device in enumerate(devices):
            mean, covariance = _blended(np.delete(devices, number, axis=0), generic, design, blend)
            total += _log_likelihood(mean, covariance, some, device)
        return total

    return BLENDS[int(np.argmax([score(blend) for blend in BLENDS]))]


def _log_likelihood(mean: Array, covariance: Array, some: Array, device: Array) -> float:
    """Return the log likelihood of a device's latencies; the t distribution allows for unusual devices."""
    expected, freedom = some @ mean, 5.0
    speed, scatter = 0.1**2 * np.outer(expected, expected), np.diag((SCATTER_SHARE / 2 * expected) ** 2)
    root = np.linalg.cholesky(some @ covariance @ some.T + speed + scatter)
    z = np.linalg.solve(root, some @ device - expected)
    return float(-0.5 * (freedom + len(z)) * np.log1p(z @ z / freedom) - np.log(np.diag(root)).sum())
