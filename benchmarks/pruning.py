#!/usr/bin/env python3
"""Compare pruned networks with networks of uniformly scaled widths, at the same measured latency and at the same MACs.

    python -m benchmarks.pruning IMAGES OUT

A NAS-Bench-201 cell is found by a short search on IMAGES (train/CLASS/* and test/CLASS/*). For every seed its network
is trained and pruned (``hwnas.prune``) to 50 % of its MACs, and to 70 % of its measured latency with widths that are
multiples of those numbers of channels by which processors compute convolutions. Uniform networks have
the same cell with all widths scaled by one factor; they are trained from random weights for as many epochs as a pruned
network has been in all, by the same recipe. With ``--distil`` each is trained once more, with the whole network as the
teacher; so are the narrower networks after their channels have left. All networks are timed in interleaved rounds.

Uniform widths come in steps, and so do their latencies. A pruned network's rivals are the widest uniform one that is
not slower and the one of the nearest MACs.

OUT gets ``results.json`` and everything else, and a repeated call resumes.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
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
from hwnas.runs.teacher import load_teacher
from hwnas.text import format_table
from hwnas.training.child import train_child
from hwnas.training.evaluation import accuracy
from hwnas.training.recipe import Distillation, read_training

SPACE = "nasbench201"
WITHOUT, WITH = "without teacher", "with teacher"


@dataclass(frozen=True)
class Contender:
    """A network of the comparison, and the epochs that train it from the weights of ``child``."""

    name: str
    child: ChildNetwork
    epochs: int

    @property
    def macs(self) -> int:
        counted = count(self.child, *deployed_inputs(self.child.network.setting))
        return counted.macs(self.child.sized.space.macs_convention)


class Comparison:
    """The comparison of one seed, in ``folder``, a copy of the searched run beside what is trained."""

    def __init__(self, options: argparse.Namespace, seed: int, data: ImageData, progress: Progress) -> None:
        self.options, self.seed, self.data, self.progress = options, seed, data, progress
        self.folder = options.out / f"seed-{seed}"
        self.whole = self._whole()

    def _whole(self) -> SavedNetwork:
        """Train the searched network, from random weights, and return it."""
        run = self.folder / "run"
        if not run.exists():
            shutil.copytree(self.options.out / "run", run)
        (saved,) = read_networks(run / "mild")
        if not saved.content.training:
            epochs = self.options.epochs
            train(run / "mild", epochs=epochs, from_scratch=True, seed=self.seed, progress=self.progress)
        (saved,) = read_networks(run / "mild")
        return saved

    @property
    def all_epochs(self) -> int:
        """The epochs that have trained a pruned network, those of the whole network included."""
        return self.options.epochs + self.options.mask_epochs + self.options.tune_epochs

    def pruned(self, budget: str, multiple: int = 1) -> Contender:
        """Return the narrower network after its channels have left; its widths are multiples of ``multiple``."""
        settings = {"mask_epochs": self.options.mask_epochs, "epochs": 0, "multiple": multiple, "seed": self.seed}
        (row,) = prune(self.whole.folder, budget, progress=self.progress, **settings)
        (saved,) = read_networks(Path(row.onnx).parent)
        name = f"pruned to {budget}" + f", multiples of {multiple}" * (multiple > 1)
        return Contender(name, saved.child(), self.options.tune_epochs)

    def uniform(self) -> list[Contender]:
        """Return the network with every number of channels of its first cells up to its own, from random weights."""
        found = []
        for channels in range(1, self.whole.sized.setting.channels + 1):
            torch.manual_seed(self.seed)
            child = ChildNetwork(self.whole.sized.resized(channels=channels), self.whole.architecture, prune=True)
            found.append(Contender(f"{channels} channels", child, self.all_epochs))
        return found

    def time_all(self, contenders: list[Contender]) -> dict[str, float]:
        """Time all networks in interleaved rounds and return milliseconds by name, or read them from the folder."""
        file = self.folder / "latencies.json"
        if file.exists() and (known := json.loads(file.read_text())).keys() == {c.name for c in contenders}:
            return known
        files = {}
        for number, contender in enumerate(contenders):
            files[contender.name] = self.folder / "onnx" / f"{number}.onnx"
            files[contender.name].parent.mkdir(exist_ok=True)
            export_network(contender.child, files[contender.name], {})
        (table,) = self.whole.tables.values()
        measured = time_networks(files, spec_of(table), table, self.whole.sized, self.progress)
        found = {name: value.latency_ms for name, value in measured.items()}
        write_json(file, found)
        return found

    def test_accuracies(self, contender: Contender) -> dict[str, float]:
        """Return the test accuracy after a training without a teacher, and after one with the whole network as it."""
        names = (WITHOUT, WITH) if self.options.distil else (WITHOUT,)
        return {name: self._trained(contender, name) for name in names}

    def _trained(self, contender: Contender, name: str) -> float:
        folder = self.folder / "trained" / f"{contender.name} {name}".replace(" ", "-")
        done = folder / "accuracy.json"
        if not done.exists():
            recipe = read_training("quick", {"epochs": contender.epochs, "seed": self.seed})
            teacher, child = None, copy.deepcopy(contender.child)
            if name == WITH:
                spec = str(self.whole.folder)
                teacher = load_teacher(spec, self.data)
                recipe = recipe.model_copy(update={"distillation": Distillation(teacher=spec)})
            train_child(child, self.data, recipe, folder, contender.name, self.progress, teacher=teacher)
            write_json(done, accuracy(child, self.data, self.data.test))
        return float(json.loads(done.read_text()))

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each network: what it is, its MACs, latency and test accuracies."""
        pruned = [self.pruned("50%-macs"), *(self.pruned("70%", multiple) for multiple in self.options.multiples)]
        uniform = self.uniform()
        latency_ms = self.time_all([*uniform, *pruned])

        def row(contender: Contender) -> dict[str, Any]:
            costs = {"macs": contender.macs, "latency_ms": latency_ms[contender.name]}
            tested = self.test_accuracies(contender)
            return {"network": contender.name, **costs, "test_accuracy": tested, "epochs": self.all_epochs}

        whole, found = uniform[-1], []
        for contender in pruned:
            found += [row(contender), *(row(rival) for rival in rivals(uniform, latency_ms, contender))]
        untrained = {"macs": whole.macs, "latency_ms": latency_ms[whole.name], "epochs": self.options.epochs}
        first = {"network": "whole", **untrained, "test_accuracy": {"as pruned": self.whole.content.test_accuracy}}
        rows = {found_row["network"]: found_row for found_row in [first, row(whole), *found]}
        return [{"seed": self.seed, **one} for one in rows.values()]


def searched(options: argparse.Namespace, progress: Progress) -> None:
    """Profile this machine and search the cell, into OUT/run. What is there is left."""
    table = options.out / "table.json"
    sizes = {"channels": options.channels, "layers": 1}
    if not table.exists():
        few = {"rounds": options.rounds, "fit_networks": 6, "report_networks": 6, "accept_noise": True}
        height = load_data(options.data, progress).shape[1]
        profile(table, "cpu", SPACE, input_shape=(3, height, height), progress=progress, **few, **sizes)
    settings = {"epochs": options.search_epochs, "child_epochs": 0, "finalists": 0, "baselines": False, **sizes}
    search(table, options.out / "run", ["mild"], data=options.data, progress=progress, **settings)


def rivals(uniform: list[Contender], latency_ms: dict[str, float], pruned: Contender) -> list[Contender]:
    """Return the widest uniform network that is not slower than the pruned one, and the one of the nearest MACs."""
    faster = [c for c in uniform if latency_ms[c.name] <= latency_ms[pruned.name]] or uniform[:1]
    return [max(faster, key=lambda c: c.macs), min(uniform, key=lambda c: abs(c.macs - pruned.macs))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="a folder with train/CLASS/* and test/CLASS/*")
    parser.add_argument("out", type=Path)
    parser.add_argument("--options-of-images", default="size=16", help="options of the images, as after a ? in --data")
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=8, help="of the profile")
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=32, help="in which the whole network is trained")
    parser.add_argument("--mask-epochs", type=int, default=4)
    parser.add_argument("--tune-epochs", type=int, default=12)
    parser.add_argument("--multiples", type=int, nargs="+", default=[8, 16], help="of widths pruned to a latency")
    parser.add_argument("--distil", action="store_true", help="train each once more, taught by the whole network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    options.data = f"imagefolder:{options.images}?{options.options_of_images}"
    options.out.mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        searched(options, progress)
        data = load_data(options.data, progress)
        rows = [row for seed in options.seeds for row in Comparison(options, seed, data, progress).rows()]
    settings = {name: value for name, value in vars(options).items() if name not in ("images", "out", "data")}
    write_json(options.out / "results.json", {"settings": settings, "networks": rows})
    shown = []
    for row in rows:
        costs = f"{row['macs'] / 1e6:.2f} M", f"{row['latency_ms']:.4g} ms"
        tested = ", ".join(f"{share:.1%} {name}" for name, share in row["test_accuracy"].items())
        shown.append([str(row["seed"]), row["network"], *costs, str(row["epochs"]), tested])
    print(format_table("", ["seed", "network", "MACs", "latency", "epochs", "test"], shown))


if __name__ == "__main__":
    main()
