#!/usr/bin/env python3
"""Evaluate latency tables of a new device made from few measurements of whole networks and tables of other devices.

    python benchmarks/transfer.py LATENCIES.csv.gz --out result.json

LATENCIES.csv.gz has a column `arch` with all NAS-Bench-201 architectures and one column a device (ms). Nine devices are
the pool; their tables are fitted on all their latencies. New devices are the others and, left out of the pool in turn,
each of the nine. `hwnas table design` selects the networks to measure, `hwnas table fit --prior` makes the table, and
its predictions are compared with the latencies of all architectures. Settings were chosen by leaving out devices of the
pool. The results of the four others were seen, but no setting was chosen by them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau, spearmanr

from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.fit import MeasurementOrigin, fit_table
from hwnas.calibration.intervals import LEVEL, half_intervals
from hwnas.calibration.prior import generic_prior, pool_prior
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.encoding import encode
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import LatencyTable

POOL = (
    "1080ti_1", "1080ti_32", "1080ti_256", "silver_4114", "silver_4210r",
    "samsung_a50", "pixel3", "essential_ph_1", "samsung_s7",
)  # fmt: skip
UNSEEN = ("titanx_1", "titanx_32", "titanx_256", "gold_6240")
NUMBERS = (3, 5, 10, 20, 100)
SPACE = get_space("nasbench201")
SIZED = SizedSpace.named(SPACE, "cifar")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with gzip.open(arguments.latencies, "rt") as file:
        rows = list(csv.DictReader(file))
    choices = encode(SPACE, [SPACE.parse(row["arch"]) for row in rows])
    latency_ms = {name: np.array([float(row[name]) for row in rows]) for name in (*POOL, *UNSEEN)}
    number_of = {tuple(row): number for number, row in enumerate(choices.tolist())}

    with tempfile.TemporaryDirectory() as folder:

        def fitted(name: str, chosen: np.ndarray, prior: object) -> LatencyTable:
            """Write and read back a table, as a user would."""
            path = Path(folder) / "table.json"
            kept = (SIZED, choices[chosen], latency_ms[name][chosen], prior, MeasurementOrigin(name))
            write_table(path, fit_table(*kept, lambda *_: None).table)  # type: ignore[arg-type]
            return read_table(path)

        everything, devices, results = np.arange(len(choices)), {}, []
        for name in latency_ms:
            began = time.monotonic()
            devices[name] = fitted(name, everything, generic_prior(SIZED))
            result = judge(devices[name], choices, latency_ms[name])
            results.append({"device": name, "measurements": len(choices), "prior": "none", **result})
            print(f"{name}: all {len(choices)} measurements, no prior: {describe(result)}, "
                  f"{time.monotonic() - began:.1f} s", flush=True)  # fmt: skip
        for name in latency_ms:
            pool = {other: devices[other] for other in POOL if other != name}
            prior = pool_prior(pool, SIZED)
            designed = choose_architectures(SPACE, prior, max(NUMBERS))
            order = np.array([number_of[tuple(row)] for row in designed.tolist()])
            for number in (*NUMBERS, len(choices)):
                chosen = order[:number] if number <= len(order) else everything
                began = time.monotonic()
                result = judge(fitted(name, chosen, prior), choices, latency_ms[name])
                result["seconds"] = round(time.monotonic() - began, 1)
                kind = "unseen" if name in UNSEEN else "left out"
                results.append({"device": name, "measurements": number, "prior": "pool", "kind": kind, **result})
                print(f"{name} ({kind}), {number} measurements: {describe(result)}", flush=True)
    summary = summarise(results)
    print(json.dumps(summary, indent=2))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({"summary": summary, "each": results}, indent=2, sort_keys=True) + "\n")


def judge(table: LatencyTable, choices: np.ndarray, latency_ms: np.ndarray) -> dict[str, float]:
    """Compare with the latencies of all architectures, without broken readings (below 5 % of the median)."""
    predicted = build_cost_models(table, SIZED)["latency_ms"].predict_many(choices)
    half = half_intervals(table, SIZED, choices)
    if half is None:
        raise HwnasError("the table has no error bars")
    whole = latency_ms > 0.05 * np.median(latency_ms)
    return {
        "spearman": round(float(spearmanr(predicted, latency_ms).statistic), 4),
        "kendall_tau": round(float(kendalltau(predicted, latency_ms).statistic), 4),
        "mean_error_percent": round(100 * float(np.mean(np.abs(predicted / latency_ms - 1)[whole])), 2),
        "coverage": round(float(np.mean(np.abs(predicted - latency_ms) <= half)), 4),
        "median_half_interval_percent": round(100 * float(np.median(half / predicted)), 1),
    }


def describe(result: dict[str, float]) -> str:
    return (
        f"Spearman {result['spearman']:.4f}, mean error {result['mean_error_percent']:.1f} %, "
        f"{LEVEL:.0%} intervals hold {result['coverage']:.1%}"
    )


def summarise(results: list[dict]) -> list[dict]:
    """Average over the devices of a kind."""
    rows = []
    for kind in ("unseen", "left out"):
        for number in sorted({r["measurements"] for r in results}):
            some = [r for r in results if r.get("kind") == kind and r["measurements"] == number]
            row: dict = {"kind": kind, "measurements": number, "devices": len(some)}
            for what in ("spearman", "kendall_tau", "mean_error_percent", "coverage"):
                row[what] = round(float(np.mean([r[what] for r in some])), 4)
            row["least_spearman"] = min(r["spearman"] for r in some)
            row["coverages"] = sorted(r["coverage"] for r in some)
            rows.append(row)
    return rows


if __name__ == "__main__":
    main()
