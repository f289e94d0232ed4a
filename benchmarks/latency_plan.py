#!/usr/bin/env python3
"""Compare the time of `hwnas profile` with its `--plan`, and measure the time of a table without whole networks.

    python benchmarks/latency_plan.py --device cpu --out result.json

For every space and setting: the forecast of --plan, the time of the profile with its 70 networks, and the time of a
table with the least number of networks, in seconds of the whole command, including the start of Python.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path

NETWORKS = [("nasbench201", "cifar"), ("darts", "search"), ("darts", "cifar"), ("darts", "imagenet-mobile")]
FEWEST = ("--fit-networks", "2", "--report-networks", "2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        for number, (space, setting) in enumerate(NETWORKS):
            command = [
                "hwnas",
                "profile",
                "--device",
                arguments.device,
                "--space",
                space,
                "--setting",
                setting,
                "--json",
            ]
            table = ["--out", str(Path(name) / f"{number}.json")]
            planned = json.loads(run([*command, *table, "--plan"])[1])
            took_s, said = run([*command, *table])
            alone_s, _ = run([*command, *FEWEST, "--out", str(Path(name) / f"{number}-alone.json")])
            (report,) = json.loads(said)["quality"]["additivity"].values()
            results.append(
                {
                    "space": space,
                    "setting": setting,
                    "workloads": planned["workloads"],
                    "planned_s": round(planned["seconds"], 1),
                    "took_s": round(took_s, 1),
                    "planned_over_took": round(planned["seconds"] / took_s, 3),
                    "with_fewest_networks_s": round(alone_s, 1),
                    "mape": round(report["mape"], 2),
                    "kendall_tau": round(report["kendall_tau"], 3),
                    "floor": round(report["floor"], 2),
                }
            )
            print(json.dumps(results[-1]), flush=True)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")


def run(command: list[str]) -> tuple[float, str]:
    """Return the seconds a command took, and its output."""
    began = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return time.monotonic() - began, done.stdout


if __name__ == "__main__":
    main()
