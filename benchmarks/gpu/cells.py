"""Train the cells that SNAS has found so far, and DARTS_V2, by the same recipe; interrupted trainings resume."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from hwnas.compute.seeds import Purpose, seed_of
from hwnas.data import load_data
from hwnas.files import write_json
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.spaces import Architecture, SizedSpace, get_space
from hwnas.training.child import train_child
from hwnas.training.recipe import read_training

DATA = "python:benchmarks.gpu.images:cifar10"


def found_cells(metrics: Path) -> dict[str, Architecture]:
    """Return every budget's architecture in the last epoch of a search, none where it has finished no epoch."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    rows = [json.loads(line) for line in lines]
    return {row["budget"]: get_space("darts").parse(row["architecture"]) for row in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--depth", type=int)
    arguments = parser.parse_args()
    space = get_space("darts")
    sized = SizedSpace(space, space.setting(space.search_setting, channels=arguments.channels, depth=arguments.depth))
    chosen = {"DARTS_V2": space.parse("DARTS_V2"), **found_cells(arguments.work / "snas" / "metrics.jsonl")}
    changes = {"epochs": arguments.epochs, "auxiliary_weight": 0.0, "drop_path": 0.0, "precision": arguments.precision}
    recipe = read_training("darts-cifar10", changes)
    networks: dict[str, Any] = {}
    with Progress() as progress:
        data = load_data(DATA, progress)
        for name, architecture in chosen.items():
            torch.manual_seed(seed_of(recipe.seed, Purpose.CHILD_WEIGHTS))
            child = ChildNetwork(sized, architecture, prune=True)
            written = space.format(architecture, all_edges=True)
            folder = arguments.work / "cells" / name
            folder.mkdir(parents=True, exist_ok=True)
            networks[name] = {"architecture": written, "epochs": []}

            def on_epoch(row: Any, rows: list[Any] = networks[name]["epochs"]) -> None:
                rows.append(row.to_json())
                write_json(arguments.out, {"setting": sized.setting.describe(), "networks": networks})

            trained = train_child(child, data, recipe, folder, written, progress, on_epoch)
            networks[name]["epochs"] = [row.to_json() for row in trained.history]
            write_json(arguments.out, {"setting": sized.setting.describe(), "networks": networks})


if __name__ == "__main__":
    main()
