"""Train the cells that SNAS has found so far, and DARTS_V2, by the same recipe; interrupted trainings resume."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from hwnas.compute.seeds import Purpose, seed_of
from hwnas.data import load_data
from hwnas.files import sha256_of, write_json
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.spaces import Architecture, SizedSpace, get_space
from hwnas.training.child import HISTORY, train_child
from hwnas.training.recipe import read_training

DATA = "python:benchmarks.gpu.images:cifar10"


def found_cells(metrics: Path) -> dict[str, Architecture]:
    """Return every budget's architecture in the last epoch of a search, none where it has finished no epoch."""
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.exists() else []
    rows = [json.loads(line) for line in lines]
    return {row["budget"]: get_space("darts").parse(row["architecture"]) for row in rows}


def folder_of(work: Path, name: str, written: str) -> Path:
    """Return the folder of a training: another one when the search has moved on to another architecture."""
    return work / "cells" / f"{name}-{sha256_of(written)[:8]}"


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of all epochs of a training, those of earlier sessions included."""
    file = folder / HISTORY
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def remove_others(work: Path, folders: Collection[Path]) -> None:
    """Remove the checkpoints of architectures that the search has left since: what comes back has little room."""
    for checkpoint in (work / "cells").glob("*/train.pt"):
        if checkpoint.parent not in folders:
            checkpoint.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--channels", type=int)
    parser.add_argument("--depth", type=int)
    arguments = parser.parse_args()
    space = get_space("darts")
    sized = SizedSpace(space, space.setting(space.search_setting, channels=arguments.channels, depth=arguments.depth))
    chosen = {"DARTS_V2": space.parse("DARTS_V2"), **found_cells(arguments.work / "snas" / "metrics.jsonl")}
    changes = {"epochs": arguments.epochs, "auxiliary_weight": 0.0, "drop_path": 0.0, "precision": arguments.precision}
    recipe = read_training("darts-cifar10", changes)
    written = {name: space.format(architecture, all_edges=True) for name, architecture in chosen.items()}
    folders = {name: folder_of(arguments.work, name, text) for name, text in written.items()}
    remove_others(arguments.work, folders.values())

    def write_result(*_: object) -> None:
        networks = {name: {"architecture": written[name], "epochs": history(folders[name])} for name in chosen}
        write_json(arguments.out, {"setting": sized.setting.describe(), "networks": networks})

    write_result()
    with Progress() as progress:
        data = load_data(DATA, progress)
        for name, architecture in chosen.items():
            torch.manual_seed(seed_of(recipe.seed, Purpose.CHILD_WEIGHTS))
            child = ChildNetwork(sized, architecture, prune=True)
            folders[name].mkdir(parents=True, exist_ok=True)
            train_child(child, data, recipe, folders[name], written[name], progress, write_result)


if __name__ == "__main__":
    main()
