#!/usr/bin/env python3
"""Compare searched mobile networks with MobileNetV3 scaled uniformly to the same measured latency.

    python -m benchmarks.mobile_chain IMAGES OUT

In the ``cifar`` setting of ``mobilenetv3``: profile this machine, search for two latency budgets, time the networks
found among scaled ones, and train each found network and its counterpart equally, from scratch. A scaled network has
one depth in all stages, one expansion, kernels of 3 and all widths times one factor. The counterpart of a found network
is the scaled one of most MACs among those whose measured latency is within 3 % of its own, or where there is none the
nearest in latency. All are timed in interleaved rounds.

IMAGES holds train/CLASS/* and test/CLASS/*. OUT gets ``results.json`` and everything else, and a repeated call resumes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwnas import profile, search
from hwnas.data import ImageData, load_data
from hwnas.export.network import export_network
from hwnas.export.timing import spec_of, time_networks
from hwnas.files import write_json
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.progress import Progress
from hwnas.runs.records import read_summary
from hwnas.spaces import SizedSpace, get_space
from hwnas.tables.schema import LatencyTable
from hwnas.text import format_table
from hwnas.training.child import train_child
from hwnas.training.evaluation import accuracy
from hwnas.training.recipe import read_training

SPACE = get_space("mobilenetv3")
DEPTHS = (2, 3, 4)
SAME = 0.03  # relative difference of two latencies that are taken as the same


@dataclass(frozen=True)
class Contender:
    """A network of the comparison: found by a search, or MobileNetV3 scaled. ``text`` is its architecture."""

    name: str
    text: str
    channels: int = 16

    @property
    def sized(self) -> SizedSpace:
        return SizedSpace.named(SPACE, "cifar", channels=self.channels)

    def build(self, seed: int) -> ChildNetwork:
        """Return the network with random weights."""
        torch.manual_seed(seed)
        return ChildNetwork(self.sized, SPACE.parse(self.text), prune=True)


def scaled_networks(widths: list[float], expansion: int) -> list[Contender]:
    """Return MobileNetV3 in every depth and width, with kernels of 3."""
    found = []
    for depth in DEPTHS:
        stage = [f"k3_e{expansion}"] * depth + ["skip"] * (max(DEPTHS) - depth)
        for channels in sorted({max(1, round(16 * width)) for width in widths}):
            found.append(Contender(f"depth {depth}, width {channels / 16:g}", " ".join(stage * 5), channels))
    return found


def found_networks(options: argparse.Namespace, seed: int, progress: Progress) -> list[Contender]:
    """Search for the budgets and return the networks found. A finished search is read."""
    folder = options.out / f"search{seed}"
    if not (folder / "summary.json").exists():
        search(
            options.out / "table.json",
            folder,
            options.budget,
            data=options.data,
            setting="cifar",
            epochs=options.epochs,
            child_epochs=0,
            seed=seed,
            finalists=options.finalists,
            baselines=False,
            verify=True,
            progress=progress,
        )
    targets = read_summary(folder, "remove the folder").targets
    return [Contender(f"found, {row.budget}, seed {seed}", row.architecture) for row in targets]


def time_all(contenders: list[Contender], table: LatencyTable, out: Path, progress: Progress) -> dict[str, float]:
    """Time all networks in interleaved rounds and return milliseconds by name. Timed ones are read from ``out``."""
    file = out / "latencies.json"
    if file.exists() and (known := json.loads(file.read_text())).keys() == {c.name for c in contenders}:
        return known
    files = {}
    for number, contender in enumerate(contenders):
        files[contender.name] = out / "onnx" / f"{number}.onnx"
        files[contender.name].parent.mkdir(exist_ok=True)
        export_network(contender.build(0), files[contender.name], {})
    measured = time_networks(files, spec_of(table), table, contenders[0].sized, progress)
    found = {name: value.latency_ms for name, value in measured.items()}
    write_json(file, found)
    return found


def counterpart(own: Contender, scaled: list[Contender], latency_ms: dict[str, float]) -> Contender:
    """Return the scaled network of the same latency with the most MACs, or the nearest in latency."""
    apart = [abs(latency_ms[other.name] / latency_ms[own.name] - 1) for other in scaled]
    same = [other for other, difference in zip(scaled, apart, strict=True) if difference <= SAME]
    return max(same, key=macs) if same else scaled[int(np.argmin(apart))]


def macs(contender: Contender) -> int:
    return count_network(contender.build(0)).macs_fvcore


def train(contender: Contender, seed: int, data: ImageData, options: argparse.Namespace, progress: Progress) -> float:
    """Train a network from scratch and return its accuracy on the test images."""
    settings = {"start": "scratch", "epochs": options.train_epochs, "seed": seed, "optimizer.lr": options.rate}
    folder = options.out / "trained" / f"{contender.name}, training {seed}".replace(", ", "_").replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    network = contender.build(seed)
    start = f"random, seed {seed}, {contender.text}"
    train_child(network, data, read_training(options.recipe, settings), folder, start, progress)
    return accuracy(network, data, data.test)


def compare(options: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    """Return one row for every network found: its latency, MACs and accuracy, and its counterpart's."""
    counts = {"rounds": options.rounds, "fit_networks": options.networks, "report_networks": options.networks}
    file = options.out / "table.json"
    table = profile(file, options.device, SPACE, setting="cifar", **counts, progress=progress)
    found = {seed: found_networks(options, seed, progress) for seed in options.seeds}
    scaled = scaled_networks(options.widths, options.expansion)
    latency_ms = time_all([*chain.from_iterable(found.values()), *scaled], table, options.out, progress)
    data, rows = load_data(options.tested, progress), []
    for seed, networks in found.items():
        for own in networks:
            other = counterpart(own, scaled, latency_ms)
            row: dict[str, Any] = {"found": own.name, "architecture": own.text, "scaled": other.name}
            for role, contender in (("found", own), ("scaled", other)):
                row[f"{role}_ms"], row[f"{role}_macs"] = latency_ms[contender.name], macs(contender)
                row[f"{role}_accuracy"] = train(contender, seed, data, options, progress)
            rows.append(row)
            described = {"device": table.describe(), "settings": settings_of(options)}
            write_json(options.out / "results.json", {"rows": rows, **described})
    return rows


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """Return what results.json says about the settings of a recording."""
    kept = {name: value for name, value in vars(options).items() if name not in ("images", "out", "data", "tested")}
    return {**kept, "space": SPACE.name, "setting": "cifar", "torch": torch.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu+onnxruntime")
    parser.add_argument("--budget", nargs=2, default=["35%", "50%"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--train", type=int, default=1600, help="Images of the search and of each training.")
    parser.add_argument("--test", type=int, default=10000, help="Images on which trained networks are compared.")
    parser.add_argument("--epochs", type=int, default=10, help="Epochs of a search.")
    parser.add_argument("--finalists", type=int, default=6, help="Networks of each budget trained to choose one.")
    parser.add_argument("--train-epochs", type=int, default=15, help="Epochs of a training.")
    parser.add_argument("--recipe", default="quick", help="The recipe of all trainings.")
    parser.add_argument("--rate", type=float, default=0.05, help="The learning rate of all trainings.")
    parser.add_argument("--expansion", type=int, default=4, help="The expansion of scaled networks.")
    parser.add_argument("--widths", nargs="+", type=float, default=[n / 16 for n in range(6, 25)])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--networks", type=int, default=30, help="Whole networks that fit the table, and as many more.")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    of_search = f"imagefolder:{options.images}?train={options.train}&validation={options.train // 4}"
    options.data, options.tested = (f"{of_search}&test={number}" for number in (2000, options.test))
    columns = [f"{role}{value}" for role in ("found", "scaled") for value in ("", "_ms", "_accuracy")]
    with Progress() as progress:
        rows = compare(options, progress)
    written = [[_written(row[column]) for column in columns] for row in rows]
    print(format_table("found networks and scaled ones of the same latency", columns, written))


def _written(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.3f}"


if __name__ == "__main__":
    main()
