#!/usr/bin/env python3
"""Fit the tables in latency_tables/ of published devices on the published latencies of whole networks.

    python benchmarks/published_tables.py LATENCIES.csv.gz latency_tables

LATENCIES.csv.gz has a column `arch` with all NAS-Bench-201 architectures and one column a device (ms). The tables hold
what `hwnas table fit` makes of them, not the latencies.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import subprocess
import tempfile
from pathlib import Path

HELP = "published with HELP (Lee et al., NeurIPS 2021)"
BENCH = "HW-NAS-Bench (Li et al., ICLR 2021), published with HELP (Lee et al., NeurIPS 2021)"
# What the publications say of each: the name, the kind, the batch size (on GPUs the columns' suffix), who measured.
DEVICES = {
    "1080ti_1": ("NVIDIA GTX 1080 Ti", "gpu", 1, HELP),
    "1080ti_32": ("NVIDIA GTX 1080 Ti", "gpu", 32, HELP),
    "1080ti_256": ("NVIDIA GTX 1080 Ti", "gpu", 256, HELP),
    "titanx_1": ("NVIDIA Titan X", "gpu", 1, HELP),
    "titanx_32": ("NVIDIA Titan X", "gpu", 32, HELP),
    "titanx_256": ("NVIDIA Titan X", "gpu", 256, HELP),
    "silver_4114": ("Intel Xeon Silver 4114", "cpu", 0, HELP),
    "silver_4210r": ("Intel Xeon Silver 4210R", "cpu", 0, HELP),
    "gold_6240": ("Intel Xeon Gold 6240", "cpu", 0, HELP),
    "samsung_a50": ("Samsung A50", "mobile", 0, HELP),
    "samsung_s7": ("Samsung S7", "mobile", 0, HELP),
    "essential_ph_1": ("Essential PH 1", "mobile", 0, HELP),
    "pixel3": ("Google Pixel 3", "mobile", 0, BENCH),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    with gzip.open(arguments.latencies, "rt") as file:
        rows = list(csv.DictReader(file))
    with tempfile.TemporaryDirectory() as folder:
        for column, (name, kind, batch, source) in DEVICES.items():
            measurements = Path(folder) / f"{column}.csv"
            with measurements.open("w", newline="") as file:
                lines = ((row["arch"], row[column]) for row in rows)
                csv.writer(file).writerows([("architecture", "latency_ms"), *lines])
            command = ["hwnas", "table", "fit", "--space", "nasbench201", "--measurements", str(measurements)]
            command += ["--out", str(arguments.out / f"published-{column.replace('_', '-')}.json")]
            command += ["--device-name", name, "--device-kind", kind, "--batch", str(batch)]
            command += ["--source", f"fitted on {len(rows)} latencies {source}", "--licence", "MIT"]
            subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
