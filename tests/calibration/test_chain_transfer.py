"""Ten networks of FBNet's space, timed by others on real devices, rank all others where the device is new."""

from __future__ import annotations

import csv
import gzip
from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr

from hwnas.calibration.design_matrix import design_matrix, not_negative
from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.prior import generic_prior, prior_of_devices
from hwnas.calibration.regression import fit_posterior
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.encoding import encode
from support.paths import SHARED

FBNET = get_space("fbnet")
LATENCIES = SHARED / "fbnet_latency_ms.csv.gz"
USED = 1_500  # networks of the file

pytestmark = pytest.mark.skipif(not LATENCIES.exists(), reason="the published latencies are not beside this checkout")


@cache
def measured() -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return choices, design matrix and latencies by device."""
    with gzip.open(LATENCIES, "rt") as file:
        rows = [row for _, row in zip(range(USED), csv.DictReader(file), strict=False)]
    choices = encode(FBNET, [FBNET.parse(row["arch"]) for row in rows])
    latency_ms = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "arch"}
    return choices, design_matrix(FBNET, choices), latency_ms


def spearman(new: str, pool: list[str]) -> float:
    """Return the rank correlation of a fit to ten designed networks over all networks."""
    choices, design, latency_ms = measured()
    prior = generic_prior(SizedSpace.named(FBNET, "imagenet"))
    if pool:
        gram = design.T @ design + np.eye(design.shape[1])
        relative = np.stack([latency_ms[name] / latency_ms[name].mean() for name in pool], axis=1)
        costs = np.linalg.solve(gram, design.T @ relative).T
        prior = prior_of_devices(SizedSpace.named(FBNET, "imagenet"), pool, costs, np.full(len(pool), 0.02))
    chosen = choose_architectures(FBNET, prior, 10, among=choices)
    rows = [int(np.flatnonzero((choices == row).all(axis=1))[0]) for row in chosen]
    posterior = fit_posterior(design[rows], latency_ms[new][rows], prior, not_negative(FBNET))
    return float(spearmanr(design @ posterior.mean, latency_ms[new]).statistic)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("new", "family", "least"),
    [("titanx_64", "titanx", 0.97), ("1080ti_32", "1080ti", 0.94), ("gold_6240", "gold", 0.93)],
)
def test_devices_of_other_families_are_a_good_prior(new: str, family: str, least: float) -> None:
    assert spearman(new, [name for name in measured()[2] if not name.startswith(family)]) > least


@pytest.mark.slow
@pytest.mark.parametrize("new", ["titanx_1", "1080ti_64"])
def test_devices_of_another_kind_do_no_harm(new: str) -> None:
    """The time of a GPU that waits for launches follows neither that of phones nor that of Xeons."""
    pool = ["essential_ph_1", "pixel3", "samsung_a50", "samsung_s7", "gold_6240", "silver_4114", "silver_4210r"]
    found = spearman(new, pool)
    assert found > spearman(new, []) - 0.01
    assert found > 0.85
