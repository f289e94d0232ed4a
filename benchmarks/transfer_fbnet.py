#!/usr/bin/env python3
"""Evaluate edge costs of FBNet's space on a new device, made from few whole networks and from other kinds of devices.

    python benchmarks/transfer_fbnet.py fbnet_latency_ms.csv.gz --out result.json

fbnet_latency_ms.csv.gz has a column `arch` with 5,000 networks and one column a device setting (ms). Every kind of
device is left out in turn: the settings of the other kinds are the pool. Of each pool device all latencies are fitted
by least squares. Ten networks of the new device are chosen as `hwnas table design` does, among the 5,000, and fitted
as by `hwnas table fit --prior`. Spearman's correlation is over all 5,000 networks. `ceiling` is that of an additive
model fitted to one half of the device's own latencies, on the other half: about the best that edge costs can rank.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from hwnas.calibration.design_matrix import design_matrix, is_live
from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.prior import generic_prior, prior_of_devices
from hwnas.calibration.regression import Prior, fit_posterior
from hwnas.files import write_json
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.encoding import encode

KINDS = {
    "gpu": ("1080ti_1", "1080ti_32", "1080ti_64", "titanx_1", "titanx_32", "titanx_64"),
    "phone": ("essential_ph_1", "pixel3", "samsung_a50", "samsung_s7"),
    "xeon": ("gold_6240", "silver_4114", "silver_4210r"),
}
SPACE = get_space("fbnet")
SIZED = SizedSpace.named(SPACE, "imagenet")
NUMBER = 10
RIDGE = 1.0  # added to the normal equations of the fits to all latencies, whose columns are 0 or 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with gzip.open(arguments.latencies, "rt") as file:
        rows = list(csv.DictReader(file))
    choices = encode(SPACE, [SPACE.parse(row["arch"]) for row in rows])
    design = design_matrix(SPACE, choices)
    latency_ms = {name: np.array([float(row[name]) for row in rows]) for names in KINDS.values() for name in names}
    costs = {name: least_squares(design, ms / ms.mean()) for name, ms in latency_ms.items()}
    shares = {name: float(np.std(ms / ms.mean() - design @ costs[name])) for name, ms in latency_ms.items()}
    results = []
    for kind, names in KINDS.items():
        pool = [name for name in latency_ms if name not in names]
        prior = prior_of_devices(
            SIZED, pool, np.array([costs[name] for name in pool]), np.array([shares[name] for name in pool])
        )
        few = _rows_of(choices, choose_architectures(SPACE, prior, NUMBER, among=choices))
        alone = _rows_of(choices, choose_architectures(SPACE, generic_prior(SIZED), NUMBER, among=choices))
        for name in names:
            ms = latency_ms[name]
            found = {
                "device": name,
                "kind": kind,
                "measurements": NUMBER,
                "spearman": judge(design, few, ms, prior),
                "spearman_without_pool": judge(design, alone, ms, generic_prior(SIZED)),
                "ceiling": ceiling(design, ms),
            }
            results.append(found)
            print(json.dumps(found), flush=True)
    summary = {
        field: round(float(np.mean([r[field] for r in results])), 4)
        for field in ("spearman", "spearman_without_pool", "ceiling")
    }
    print(json.dumps(summary, indent=2))
    if arguments.out:
        write_json(arguments.out, {"mean": summary, "each": results})


def judge(design: np.ndarray, few: np.ndarray, latency_ms: np.ndarray, prior: Prior) -> float:
    """Return Spearman's correlation over all networks of a fit to the ``few`` rows."""
    posterior = fit_posterior(design[few], latency_ms[few], prior, is_live(SPACE))
    return round(float(spearmanr(design @ posterior.mean, latency_ms).statistic), 4)


def ceiling(design: np.ndarray, latency_ms: np.ndarray) -> float:
    """Return the mean of both halves' correlations with the predictions of a fit to the other half."""
    halves = np.random.default_rng(0).permutation(len(design)) % 2 == 0
    found = []
    for half in (halves, ~halves):
        predicted = design[~half] @ least_squares(design[half], latency_ms[half] / latency_ms.mean())
        found.append(spearmanr(predicted, latency_ms[~half]).statistic)
    return round(float(np.mean(found)), 4)


def least_squares(design: np.ndarray, latency: np.ndarray) -> np.ndarray:
    return np.linalg.solve(design.T @ design + RIDGE * np.eye(design.shape[1]), design.T @ latency)


def _rows_of(choices: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the row of each of the ``chosen`` architectures."""
    number_of = {tuple(row): number for number, row in enumerate(choices.tolist())}
    return np.array([number_of[tuple(row)] for row in chosen.tolist()])


if __name__ == "__main__":
    main()
