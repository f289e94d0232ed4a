#!/usr/bin/env python3
"""Compare a step's processor time in bfloat16 and with compiled kernels with that of plain torch in float32.

    python -m benchmarks.step_precision --out result.json

The searches of benchmarks.method_steps, on one thread. All four combinations take turns in one process, and a share is
the median over rounds of their ratios, so that it is of one machine in one state.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.method_steps import PLAIN, make_search
from hwnas.files import write_json
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import parse_device
from hwnas.text import format_table

# Space, channels, cells or layers of the space's setting where None, method, batch size.
CASES = (
    ("nasbench201", 16, 1, "snas", 64),
    ("nasbench201", 16, 1, "drnas", 64),
    ("nasbench201", 16, 1, "advantagenas", 64),
    ("nasbench201", 16, 1, "pc-darts", 64),
    ("nasbench201", 8, 1, "snas", 64),
    ("nasbench201", 8, 1, "advantagenas", 64),
    ("nasbench201", 4, 1, "snas", 64),
    ("darts", None, None, "snas", 8),
    ("darts", None, None, "advantagenas", 16),
)
VARIANTS = {
    f"{kernels}, {precision}": {"precision": precision, "kernels": kernels}
    for precision in ("float32", "bfloat16")
    for kernels in ("torch", "compiled")
}
REFERENCE = next(name for name, variant in VARIANTS.items() if variant == PLAIN)
TURN = 2  # steps: AdvantageNAS's are of two kinds in turn


def measure(case: tuple[str, int | None, int | None, str, int], rounds: int) -> dict[str, Any]:
    """Return milliseconds of a step in plain torch and float32, and each variant's share of it."""
    space, channels, depth, method, batch_size = case
    sizes = argparse.Namespace(space=space, channels=channels, depth=depth, batch_size=batch_size)
    searches = {name: make_search(method, sizes, **variant) for name, variant in VARIANTS.items()}
    times: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(rounds + 1):
        for name, search in searches.items():
            start = time.process_time()
            for _ in range(TURN):
                search.take_step()
            if number:  # the first warms up
                times[name].append((time.process_time() - start) / TURN)
    row: dict[str, Any] = {"space": space, "setting": searches[REFERENCE].sized.setting.describe()}
    row |= {"method": method, "batch_size": batch_size, "step_ms": 1000 * statistics.median(times[REFERENCE])}
    ratios = {name: [t / r for t, r in zip(own, times[REFERENCE], strict=True)] for name, own in times.items()}
    return row | {"share": {name: statistics.median(found) for name, found in ratios.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [measure(case, arguments.rounds) for case in CASES]
    device = ask(parse_device("cpu")).device.model_dump(mode="json")
    result = {"rounds": arguments.rounds, "threads": 1, "torch": torch.__version__, "device": device, "rows": rows}
    if arguments.out:
        write_json(arguments.out, result)
    shares = [name for name in VARIANTS if name != REFERENCE]
    written = [[row["setting"], row["method"], *(f"{row['share'][name]:.2f}" for name in shares)] for row in rows]
    print(format_table(f"processor time of a step, as a share of {REFERENCE}", ["network", "method", *shares], written))
    print(json.dumps(device["model"]))


if __name__ == "__main__":
    main()
