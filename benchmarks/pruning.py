#!/usr/bin/env python3
"""Compare pruned networks with networks of uniformly scaled widths, at the same MACs and at the same measured latency.

    python -m benchmarks.pruning IMAGES OUT

A NAS-Bench-201 network is trained on IMAGES (train/CLASS/* and test/CLASS/*) and pruned (``hwnas.prune``) to 50 % of
its MACs and to 70 % of its measured latency. Two others are compared with each pruned network: the same cell with all
widths scaled by one factor, to the same MACs or to the same latency, and the pruned network's own widths from random
weights. Both are trained for as many epochs as the pruned network has been in all, by the same recipe. All networks are
timed in interleaved rounds.

OUT gets ``results.json`` and everything else, and a repeated call resumes. Nothing has been recorded yet.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwnas import profile, prune, search, train
from hwnas.data import ImageData, load_data
from hwnas.export.network import export_network
from hwnas.export.timing import spec_of, time_networks
from hwnas.files import write_json
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count
from hwnas.networks.deployed import deployed_inputs
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.read import read_networks
from hwnas.text import format_table
from hwnas.training.child import train_child
from hwnas.training.evaluation import accuracy
from hwnas.training.recipe import read_training

SPACE = "nasbench201"
BUDGETS = ("50%-macs", "70%")


@dataclass(frozen=True)
class Contender:
    """A network of the comparison; ``child`` has random weights."""

    name: str
    child: ChildNetwork

    @property
    def macs(self) -> int:
        counted = count(self.child, *deployed_inputs(self.child.network.setting))
        return counted.macs(self.child.sized.space.macs_convention)


def whole_network(options: argparse.Namespace, progress: Progress) -> SavedNetwork:
    """Profile this machine, search and train; return the network that is pruned. What is there is read."""
    table, run = options.out / "table.json", options.out / "run"
    sizes = {"channels": options.channels, "layers": 1}
    if not table.exists():
        few = {"rounds": options.rounds, "fit_networks": 6, "report_networks": 6, "accept_noise": True}
        height = load_data(options.data, progress).shape[1]
        profile(table, "cpu", SPACE, input_shape=(3, height, height), progress=progress, **few, **sizes)
    settings = {"epochs": options.search_epochs, "child_epochs": 0, **sizes}
    search(table, run, ["mild"], data=options.data, progress=progress, **settings)
    (saved,) = read_networks(run / "mild")
    if not saved.content.training:
        train(run / "mild", epochs=options.epochs, from_scratch=True, seed=options.seed, progress=progress)
    (saved,) = read_networks(run / "mild")
    return saved


def scaled_networks(whole: SavedNetwork) -> list[Contender]:
    """Return the network with every number of channels of its first cells up to its own."""
    found = []
    for channels in range(1, whole.sized.setting.channels + 1):
        torch.manual_seed(0)
        child = ChildNetwork(whole.sized.resized(channels=channels), whole.architecture, prune=True)
        found.append(Contender(f"{channels} channels", child))
    return found


def time_all(contenders: list[Contender], whole: SavedNetwork, out: Path, progress: Progress) -> dict[str, float]:
    """Time all networks in interleaved rounds and return milliseconds by name. Timed ones are read from ``out``."""
    file = out / "latencies.json"
    if file.exists() and (known := json.loads(file.read_text())).keys() == {c.name for c in contenders}:
        return known
    files = {}
    for number, contender in enumerate(contenders):
        files[contender.name] = out / "onnx" / f"{number}.onnx"
        files[contender.name].parent.mkdir(exist_ok=True)
        export_network(contender.child, files[contender.name], {})
    (table,) = whole.tables.values()
    measured = time_networks(files, spec_of(table), table, whole.sized, progress)
    found = {name: value.latency_ms for name, value in measured.items()}
    write_json(file, found)
    return found


def trained(
    contender: Contender, data: ImageData, epochs: int, options: argparse.Namespace, progress: Progress
) -> float:
    """Train a network from its random weights and return its test accuracy, or read it from ``out``."""
    folder = options.out / "trained" / contender.name.replace(" ", "-")
    done = folder / "accuracy.json"
    if not done.exists():
        recipe = read_training("quick", {"epochs": epochs, "start": "scratch", "seed": options.seed})
        train_child(contender.child, data, recipe, folder, "scratch", progress)
        write_json(done, accuracy(contender.child, data, data.test))
    return json.loads(done.read_text())


def compare(options: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    """Return a row for each network: what it is, its MACs, latency and test accuracy."""
    data, whole = load_data(options.data, progress), whole_network(options, progress)
    pruned = {}
    for budget in BUDGETS:
        epochs = {"mask_epochs": options.mask_epochs, "epochs": options.tune_epochs}
        (row,) = prune(whole.folder, budget, **epochs, seed=options.seed, progress=progress)
        (pruned[budget],) = read_networks(Path(row.onnx).parent)
    scaled = scaled_networks(whole)
    torch.manual_seed(options.seed)
    own = {budget: Contender(f"pruned to {budget}", saved.build()) for budget, saved in pruned.items()}
    latency_ms = time_all([*scaled, *own.values()], whole, options.out, progress)
    everything = options.epochs + options.mask_epochs + options.tune_epochs
    rows = [_row(scaled[-1], latency_ms, whole.content.test_accuracy, options.epochs)]
    for budget, contender in own.items():
        rows.append(_row(contender, latency_ms, pruned[budget].content.test_accuracy, everything))
        again = Contender(f"{contender.name}, from scratch", contender.child)
        near = _nearest(scaled, contender, None if budget.endswith("macs") else latency_ms)
        for other, name in ((again, contender.name), (near, near.name)):
            latencies = {other.name: latency_ms[name]}
            rows.append(_row(other, latencies, trained(other, data, everything, options, progress), everything))
    return rows


def _nearest(scaled: list[Contender], own: Contender, latency_ms: dict[str, float] | None) -> Contender:
    """Return the scaled network whose latency is nearest to another's; without latencies, whose MACs are."""

    def size(contender: Contender) -> float:
        return latency_ms[contender.name] if latency_ms else contender.macs

    return min(scaled, key=lambda contender: abs(size(contender) / size(own) - 1))


def _row(contender: Contender, latency_ms: dict[str, float], test: float | None, epochs: int) -> dict[str, Any]:
    return {
        "network": contender.name,
        "macs": contender.macs,
        "latency_ms": latency_ms[contender.name],
        "test_accuracy": test,
        "epochs": epochs,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder with train/CLASS/* and test/CLASS/*")
    parser.add_argument("out", type=Path)
    parser.add_argument("--options-of-images", default="size=32", help="options of the images, as after a ? in --data")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8, help="of the profile")
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=12, help="in which the whole network is trained")
    parser.add_argument("--mask-epochs", type=int, default=4)
    parser.add_argument("--tune-epochs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.data = f"imagefolder:{options.images}?{options.options_of_images}"
    options.out.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        rows = compare(options, progress)
    settings = {name: str(value) for name, value in vars(options).items()}
    write_json(options.out / "results.json", {"settings": settings, "networks": rows})
    shown = []
    for row in rows:
        costs = f"{row['macs'] / 1e6:.2f} M", f"{row['latency_ms']:.4g} ms"
        shown.append([row["network"], *costs, f"{row['test_accuracy']:.1%}", str(row["epochs"])])
    print(format_table("", ["network", "MACs", "latency", "test accuracy", "epochs"], shown))


if __name__ == "__main__":
    main()
