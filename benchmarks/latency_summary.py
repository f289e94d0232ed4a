#!/usr/bin/env python3
"""Print the recorded results of latency_accuracy.py as one table.

python benchmarks/latency_summary.py benchmarks/results/latency_tables
"""

import json
import sys
from pathlib import Path

COLUMNS = (
    "runtime",
    "space",
    "networks",
    "mean error",
    "within 10 %",
    "worst",
    "Kendall tau",
    "the same twice",
    "by the clock, by the reference",
)


def main() -> None:
    rows = []
    for path in sorted(Path(sys.argv[1]).glob("*.json")):
        result = json.loads(path.read_text())
        if "speed_by_known_networks_divided_out" not in result:  # of another benchmark
            continue
        judged = result["speed_by_known_networks_divided_out"]
        clock, reference = result["as_the_clock_says"], result["speed_by_reference_divided_out"]
        rows.append(
            (
                result["runtime"] + ", --device page" * path.name.startswith("page"),
                result["network"].split("/3x")[0],
                f"{result['networks']}",
                f"{judged['mean_error_percent']:.1f} %",
                f"{judged['within_10_percent']:.0%}",
                f"{judged['worst_percent']:.1f} %",
                f"{judged['kendall_tau']:.3f}",
                f"{result['floor_percent']:.1f} %, tau {result['floor_kendall_tau']:.3f}",
                f"{clock['mean_error_percent']:.1f} %, {reference['mean_error_percent']:.1f} %",
            )
        )
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + "---|" * len(COLUMNS))
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
