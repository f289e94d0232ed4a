#!/usr/bin/env python3
"""Compare the cost of a step of each search method with first-order DARTS, which runs every candidate everywhere.

    python -m benchmarks.method_steps --space darts --batch-size 64 --out result.json

A step is what the method does with one batch (weights and, where they take turns, logits), after its warm-up, on random
images in memory, at the sizes of the space's search setting. Methods take turns in one process, so that a ratio is of
one machine in one state; peak memory is that of a process of its own a method, torch included (the floor is printed).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from hwnas.benchmark.cost_meter import peak_memory_mb
from hwnas.benchmark.objectives import cost_models
from hwnas.budgets.budget import Budget
from hwnas.data.images import ImageData, Split
from hwnas.files import write_json
from hwnas.profiling.session import ask
from hwnas.recipe import read_recipe
from hwnas.runtimes.device_spec import parse_device
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import SizedSpace, get_space

register_builtin()
METHODS = ("darts", "entrannas", "entrannas-dst", "pc-darts", "gdas", "advantagenas", "random")
PLAIN = {"precision": "float32", "kernels": "torch"}


def make_search(method: str, arguments: argparse.Namespace, **more: str) -> Search:
    """Build a search that is past its warm-up; ``more`` changes its recipe."""
    space = get_space(arguments.space)
    setting = space.setting(space.search_setting, channels=arguments.channels, depth=arguments.depth)
    size, count = (setting.image_channels, setting.height, setting.width), 4 * arguments.batch_size
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *size), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count) % setting.classes)
    data = ImageData("random", tuple(map(str, range(setting.classes))), split, split, lambda: split)
    # One batch an epoch teaches the weights, so every step is one of a search under way, none the last of an epoch.
    changes = {"epochs": 10**6, "batch_size": arguments.batch_size, "logits_warm_up": 0.0, **more}
    recipe = read_recipe(f"{arguments.space}/{method}", changes)
    goal = Objective("none", Budget("none", {}), cost_models(SizedSpace(space, setting), None))
    return Search(SizedSpace(space, setting), [goal], data, recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="darts", choices=("darts", "nasbench201"))
    parser.add_argument("--channels", type=int)
    parser.add_argument("--depth", type=int)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak-of", choices=(*METHODS, "nothing"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak_of:
        if arguments.peak_of != "nothing":
            search = make_search(arguments.peak_of, arguments, **PLAIN)
            for _ in range(2):
                search.take_step()
        print(peak_memory_mb())
        return

    def peak(method: str) -> float:
        command = [sys.executable, "-m", "benchmarks.method_steps", *sys.argv[1:], "--peak-of", method]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    peaks = {method: peak(method) for method in METHODS}
    searches = {method: make_search(method, arguments, **PLAIN) for method in METHODS}
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    for number in range(arguments.rounds + 1):
        for method, search in searches.items():
            start = time.perf_counter()
            for _ in range(2):  # AdvantageNAS takes turns by iteration: two steps are one of each
                search.take_step()
            if number:  # the first warms up
                times[method].append((time.perf_counter() - start) / 2)
    steps = [
        {
            "method": method,
            "step_ms": 1000 * statistics.median(times[method]),
            "darts_over_this": statistics.median(d / t for d, t in zip(times["darts"], times[method], strict=True)),
            "peak_mb": peaks[method],
            "peak_of_darts": peaks[method] / peaks["darts"],
        }
        for method in METHODS
    ]
    result = {
        "space": arguments.space,
        "setting": searches["darts"].sized.setting.describe(),
        "batch_size": arguments.batch_size,
        "rounds": arguments.rounds,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": ask(parse_device("cpu")).device.model_dump(mode="json"),
        "floor_mb": peak("nothing"),
        "steps": steps,
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
