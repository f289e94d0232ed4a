"""Made-up devices of known costs, and tables fitted from networks timed on them."""

from __future__ import annotations

from contextlib import nullcontext
from unittest.mock import patch

import numpy as np

from hwnas.calibration.design_matrix import (
    design_matrix,
    flat,
)
from hwnas.calibration.fit import MeasurementOrigin, fit_table
from hwnas.calibration.prior import generic_prior
from hwnas.calibration.regression import Prior
from hwnas.cost.model import Array, build_cost_models
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import LatencyTable
from support.spaces import NB201

CIFAR = NB201.setting("cifar")


def made_up_device(seed: int, dead_edges_are_free: bool = False, usual: tuple[float, ...] = (2, 5, 15, 3)) -> Array:
    """Return edge costs [F] in ms. An operation costs about the same on all edges; their ratios vary by device."""
    generator = np.random.default_rng(seed)
    ops = np.array(usual) * generator.lognormal(0, 0.25, size=4) / 10
    cost = ops * generator.lognormal(0, 0.1, size=(6, 4))
    always, live = np.zeros((6, 5)), np.zeros((6, 5))
    used = [NB201.operations.index(op) for op in NB201.operations if op != "none"]
    (live if dead_edges_are_free else always)[:, used] = cost
    return flat(NB201, generator.uniform(1, 4), {"cell": (always, live)}) * generator.lognormal(0, 1)


def timed(costs: Array, choices: np.ndarray, scatter: float, seed: int = 0) -> Array:
    exact = design_matrix(NB201, choices) @ costs
    return np.asarray(exact * np.random.default_rng(seed).lognormal(0, scatter, size=len(choices)))


def fitted(
    choices: np.ndarray,
    latency_ms: Array,
    prior: Prior | None = None,
    name: str = "made up",
    report: bool = False,
) -> LatencyTable:
    """Return a table fitted to the latencies, without the cross-validation (most of the time) unless ``report``."""
    known, sized = prior or generic_prior(SizedSpace(NB201, CIFAR)), SizedSpace(NB201, CIFAR)
    with nullcontext() if report else patch("hwnas.calibration.fit._left_out", lambda *_: latency_ms):
        return fit_table(sized, choices, latency_ms, known, MeasurementOrigin(name), lambda *_: None).table


def predictions(table: LatencyTable, choices: np.ndarray) -> Array:
    return build_cost_models(table, SizedSpace(NB201, CIFAR))["latency_ms"].predict_many(choices)
