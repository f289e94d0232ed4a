"""Print what each part of the choice by finalists is worth, as mean regrets in points.

RESULTS is the results.json of a recorded benchmark whose recipes train finalists (benchmarks/real_devices.sh), ACCURACY
the file of accuracies by which it was judged (nb201_accuracy.csv.gz). Every column is what one kind of evidence alone
would have chosen in these searches (hwnas.benchmark.ablation); the last is what they did choose.

    python benchmarks/ablation.py RESULTS ACCURACY
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.benchmark.accuracy import AccuracyTable, read_accuracy
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.text import format_table

CHOICES = {
    "logits": "logits alone",
    "supernet": "shortlist, supernet",
    "scores": "scores",
    "finalists": "best finalist",
    "chosen": "accuracy model",
}
DATA_SET = "cifar10"


def regrets(results: list[dict[str, Any]], accuracies: AccuracyTable) -> dict[str, list[float]]:
    """Return the regrets of every choice, in the order of the results."""
    found: dict[str, list[float]] = {choice: [] for choice in CHOICES}
    for result in results:
        best = result["accuracy"][DATA_SET] + result["regret"][DATA_SET]
        for choice, cell in (result["choices"] | {"chosen": result["architecture"]}).items():
            found[choice].append(best - accuracies.accuracy(DATA_SET, NASBENCH201.parse(cell)))
    return found


def main() -> None:
    results, accuracies = json.loads(Path(sys.argv[1]).read_text()), read_accuracy(sys.argv[2])
    rows = []
    for method in sorted({result["method"] for result in results}):
        own = [result for result in results if result["method"] == method]
        means = [f"{np.mean(values):.2f}" for values in regrets(own, accuracies).values()]
        rows.append([method, str(len({r["seed"] for r in own})), str(len(own)), *means])
    print(format_table("mean regret, points", ["method", "seeds", "searched targets", *CHOICES.values()], rows))


if __name__ == "__main__":
    main()
