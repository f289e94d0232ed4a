#!/usr/bin/env python3
"""Evaluate edge costs of FBNet's space on a new device, made from ten whole networks and from other devices.

    python benchmarks/transfer_fbnet.py fbnet_latency_ms.csv.gz --out result.json

fbnet_latency_ms.csv.gz has a column `arch` with 5,000 networks and one column a device setting (ms). The pool are the
settings of other devices (`device`: all settings of the same model or maker's line are left out) or of other kinds of
devices (`kind`: all GPUs, phones or Xeons are left out), or there is none (`everything`). Of each pool device all
latencies are fitted by least squares. Ten networks of the new device are chosen as `hwnas table design` does, among the
5,000, and fitted as by `hwnas table fit --prior`. Spearman's correlation is over all 5,000 networks. `ceiling` is that
of an additive model fitted to one half of the device's own latencies, on the other half: about the best that edge costs
can rank; where it is at least 0.94 the device counts as additive. `ceiling_of_pairs` is that of a model with a term for
every pair of layers, too, by kernel ridge regression: what costs that do not add up could gain. The prior's numbers
were aimed at other devices, but its form was chosen with these correlations in sight
(hwnas/calibration/physical_prior.py): take them as optimistic.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge

from hwnas.calibration.design_matrix import design_matrix, not_negative
from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.prior import generic_prior, prior_of_devices
from hwnas.calibration.regression import fit_posterior
from hwnas.files import write_json
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.encoding import encode

FAMILIES = {
    "gpu": {"1080ti": ("1080ti_1", "1080ti_32", "1080ti_64"), "titanx": ("titanx_1", "titanx_32", "titanx_64")},
    "phone": {"essential": ("essential_ph_1",), "pixel": ("pixel3",), "samsung": ("samsung_a50", "samsung_s7")},
    "xeon": {"gold": ("gold_6240",), "silver": ("silver_4114", "silver_4210r")},
}
NAMES = tuple(name for families in FAMILIES.values() for names in families.values() for name in names)
SPACE = get_space("fbnet")
SIZED = SizedSpace.named(SPACE, "imagenet")
NUMBER = 10
PAIRS_RIDGE = 1.0  # of the pairs, whose similarity is 1 at most
RIDGE = 1.0  # added to the normal equations of the fits to all latencies, whose columns are 0 or 1
LEAST_SCATTER = 1e-3  # as for tables of a pool
ADDITIVE = 0.94  # ceiling from which on edge costs can rank a device's networks


@dataclass(frozen=True)
class Measured:
    """All latencies: ``choices`` [N, edges], their ``design`` [N, F], and [N] in ms by device setting."""

    choices: np.ndarray
    design: np.ndarray
    latency_ms: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    measured = read(arguments.latencies)
    found = {name: {"device": name, "measurements": NUMBER} for name in NAMES}
    for left_out, names, pool in groups():
        for name, spearman in judge(measured, names, pool).items():
            found[name][f"spearman_left_out_{left_out}"] = spearman
    for name in NAMES:
        found[name] |= ceilings(measured, measured.latency_ms[name])
        print(json.dumps(found[name]), flush=True)
    each = list(found.values())
    summary = {
        "all": summarise(each),
        "additive": summarise([result for result in each if result["ceiling"] >= ADDITIVE]),
    }
    print(json.dumps(summary, indent=2))
    if arguments.out:
        write_json(arguments.out, {"mean": summary, "each": each})


def read(path: Path) -> Measured:
    with gzip.open(path, "rt") as file:
        rows = list(csv.DictReader(file))
    choices = encode(SPACE, [SPACE.parse(row["arch"]) for row in rows])
    latency_ms = {name: np.array([float(row[name]) for row in rows]) for name in NAMES}
    return Measured(choices, design_matrix(SPACE, choices), latency_ms)


def groups() -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Return what is left out, the settings to evaluate, and the settings of the pool."""
    result: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [("everything", NAMES, ())]
    for families in FAMILIES.values():
        kind = tuple(name for names in families.values() for name in names)
        result.append(("kind", kind, tuple(name for name in NAMES if name not in kind)))
        result += [("device", one, tuple(name for name in NAMES if name not in one)) for one in families.values()]
    return result


def judge(measured: Measured, names: Sequence[str], pool: Sequence[str]) -> dict[str, float]:
    """Return Spearman's correlation over all networks for each device, fitted to ten of its latencies."""
    prior = generic_prior(SIZED)
    if pool:
        relative = {name: measured.latency_ms[name] / measured.latency_ms[name].mean() for name in pool}
        costs = np.array([least_squares(measured.design, relative[name]) for name in pool])
        errors = np.array([relative[name] - measured.design @ c for name, c in zip(pool, costs, strict=True)])
        prior = prior_of_devices(SIZED, pool, costs, np.maximum(errors.std(axis=1), LEAST_SCATTER))
    few = _rows_of(measured.choices, choose_architectures(SPACE, prior, NUMBER, among=measured.choices))
    result = {}
    for name in names:
        latency_ms = measured.latency_ms[name]
        posterior = fit_posterior(measured.design[few], latency_ms[few], prior, not_negative(SPACE))
        result[name] = round(float(spearmanr(measured.design @ posterior.mean, latency_ms).statistic), 4)
    return result


def summarise(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    fields = ["spearman_left_out_device", "spearman_left_out_kind", "spearman_left_out_everything"]
    fields += ["ceiling", "ceiling_of_pairs"]
    means = {field: round(float(np.mean([result[field] for result in results])), 4) for field in fields}
    return {"settings": len(results), **means}


def ceilings(measured: Measured, latency_ms: np.ndarray) -> dict[str, float]:
    """Return the mean of both halves' correlations with what fits to the other half predict: of sums, and of pairs."""
    halves = np.random.default_rng(0).permutation(len(latency_ms)) % 2 == 0
    found = []
    for half in (halves, ~halves):
        known = latency_ms[half] / latency_ms.mean()
        costs = least_squares(measured.design[half], known)
        sums, rest = measured.design[~half] @ costs, known - measured.design[half] @ costs
        pairs = KernelRidge(alpha=PAIRS_RIDGE, kernel="precomputed").fit(similarity(measured.choices[half]), rest)
        both = sums + pairs.predict(similarity(measured.choices[~half], measured.choices[half]))
        found.append([spearmanr(predicted, latency_ms[~half]).statistic for predicted in (sums, both)])
    return dict(zip(("ceiling", "ceiling_of_pairs"), np.mean(found, axis=0).round(4).tolist(), strict=True))


def similarity(choices: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Return the squared share of layers [N, M] that networks [N, layers] have in common with others [M, layers]."""
    others = choices if others is None else others
    return np.mean(choices[:, None] == others, axis=2) ** 2


def least_squares(design: np.ndarray, latency: np.ndarray) -> np.ndarray:
    return np.linalg.solve(design.T @ design + RIDGE * np.eye(design.shape[1]), design.T @ latency)


def _rows_of(choices: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the row of each of the ``chosen`` architectures."""
    number_of = {tuple(row): number for number, row in enumerate(choices.tolist())}
    return np.array([number_of[tuple(row)] for row in chosen.tolist()])


if __name__ == "__main__":
    main()
