#!/usr/bin/env python3
"""Measure the share of a step spent on images: selection, augmentation, normalisation.

Images are random, in memory, of CIFAR-10's size and number.

    python -m benchmarks.input_pipeline --out result.json

A step of a search is one of the nasbench201 supernet, by a method that runs every candidate (snas) and by one that runs
a single one an edge (gdas); a step of training is one of a child that is all 3x3 convolutions, as its recipe says.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hwnas.benchmark.objectives import cost_models
from hwnas.budgets.budget import Budget
from hwnas.data import ImageData, Split
from hwnas.files import write_json
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.session import ask
from hwnas.recipe import read_recipe
from hwnas.runtimes.device_spec import parse_device
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import SizedSpace, get_space
from hwnas.training.child import Trainer
from hwnas.training.recipe import read_training

IMAGES = 40_000  # CIFAR-10's, a fifth held out
SPACE = get_space("nasbench201")
register_builtin()
CONVOLUTIONS = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


class Watched(ImageData):
    """Images that record how long their batches take."""

    seconds = 0.0

    def train_batch(self, *arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return super().train_batch(*arguments, **options)
        finally:
            Watched.seconds += time.perf_counter() - start


def images() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (IMAGES, 3, 32, 32), generator=generator, dtype=torch.uint8)
    split = Split(pixels, torch.arange(IMAGES) % 10)
    return Watched("random", tuple("0123456789"), split, split, lambda: split)


def measure(name: str, step: Callable[[], None], steps: int) -> dict[str, Any]:
    """Return medians over the steps after the first one."""
    whole, inputs = [], []
    for number in range(steps + 1):
        before, start = Watched.seconds, time.perf_counter()
        step()
        if number:
            whole.append(time.perf_counter() - start)
            inputs.append(Watched.seconds - before)
    step_ms, input_ms = 1000 * statistics.median(whole), 1000 * statistics.median(inputs)
    return {"step": name, "step_ms": step_ms, "input_ms": input_ms, "input_share": input_ms / step_ms}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--depth", type=int, default=5, help="Cells a stage.")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    data = images()
    sized = SizedSpace.named(SPACE, "cifar", channels=arguments.channels, depth=arguments.depth)
    rows = []
    for method in ("snas", "gdas"):
        changes = {
            "batch_size": arguments.batch_size,
            "logits_warm_up": 0.0,
            "precision": "float32",
            "kernels": "torch",
        }
        recipe = read_recipe(f"nasbench201/{method}", changes)
        goal = Objective("none", Budget("none", {}), cost_models(sized, None))
        rows.append(measure(f"search, {method}", Search(sized, [goal], data, recipe).take_step, arguments.steps))
    for augment in ("shift-flip", "imagenet"):
        recipe = read_training("nasbench201", {"batch_size": arguments.batch_size, "augment": augment})
        child = ChildNetwork(sized, SPACE.parse(CONVOLUTIONS), prune=True)
        rows.append(measure(f"training, {augment}", Trainer(child, data, recipe).take_step, arguments.steps))
    result = {
        "setting": sized.setting.describe(),
        "batch_size": arguments.batch_size,
        "images": IMAGES,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": ask(parse_device("cpu")).device.model_dump(mode="json"),
        "steps": rows,
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    main()
