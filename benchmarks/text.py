#!/usr/bin/env python3
"""Search a recurrent cell for words with several methods at equal steps, and train what each finds.

    python -m benchmarks.text TEXT OUT

TEXT is the specification of a text, such as text:ptb.valid.txt?test=ptb.test.txt. For every method and seed a search
of as many steps, on the same batches, by the recipe in configs/search/recurrent but for the sizes that the options set,
chooses an architecture within the budget (the third quartile of the space's MACs, which no device decides). The rates
of the logits are those of the recipe times the factor in METHODS. The architecture's perplexity with the supernet's
weights is that of the validation text. The network is then trained from scratch by the recipe configs/train/text.yaml,
from the same initial weights whatever the seed of the search, and its test perplexity is that of the epoch with the
best validation perplexity. OUT/results.json has a row for every search, with the processor time, and the mean and
standard deviation for every method; a repeated call keeps the rows that are there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hwnas import __version__
from hwnas.budgets.budget import parse_budget, preview
from hwnas.cost.counts import count_metrics
from hwnas.data import ImageData, load_data
from hwnas.files import write_json
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.recipe import read_recipe
from hwnas.search.methods import register_builtin
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import Architecture, SizedSpace, get_space
from hwnas.text import format_table
from hwnas.training.child import train_child
from hwnas.training.evaluation import quality_of
from hwnas.training.recipe import read_training


@dataclass(frozen=True)
class Method:
    """A recipe of configs/search/recurrent, what is changed in it, and the factor of its logits' learning rates."""

    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    logits_factor: float = 10.0  # because the searches are short


# AdvantageNAS trains weights and logits in turns, a step each, where the others train weights in every step, and takes
# the most probable cell, where random search and ENAS take the best of 100. The variants do as these.
BOTH: dict[str, Any] = {"learning": {"name": "advantage", "alternate": False, "zero_credit": True}}
BEST_OF: dict[str, Any] = {"selection": {"name": "best_of", "samples": 100}}
METHODS = {
    "random": Method("random"),
    "enas": Method("enas"),
    "gdas": Method("gdas"),
    "advantagenas": Method("advantagenas"),
    "advantagenas, both in each step": Method("advantagenas", BOTH),
    "advantagenas, both in each step, best of 100": Method("advantagenas", BOTH | BEST_OF, logits_factor=1.0),
}
SPACE = "recurrent"
QUALITIES = ("supernet_validation_perplexity", "validation_perplexity", "test_perplexity")


def search(method: str, seed: int, sized: SizedSpace, data: ImageData, options: argparse.Namespace) -> Search:
    """Take all steps of a search and return it."""
    own = METHODS[method]
    sizes: dict[str, Any] = {"epochs": options.epochs, "batch_size": options.batch_size, "seed": seed, "compute": "cpu"}
    sizes["dropout"] = 0.0  # the searches are too short to learn the text by heart
    rates: dict[str, Any] = {"weights.lr": options.rate}
    for rate in ("lr", "lr_end"):
        rates[f"logits.{rate}"] = own.logits_factor * getattr(read_recipe(f"{SPACE}/{own.recipe}", {}).logits, rate)
    recipe = read_recipe(f"{SPACE}/{own.recipe}", own.changes | sizes | rates)
    costs = count_metrics(sized)
    objective = Objective("none", parse_budget(options.budget, preview(costs)), costs)
    found = Search(sized, [objective], data, recipe)
    while not found.over:
        found.take_step()
    return found


def train(
    sized: SizedSpace, architecture: Architecture, data: ImageData, folder: Path, options: Any
) -> dict[str, float]:
    """Train an architecture from scratch and return its perplexities."""
    changes = {"epochs": options.child_epochs, "compute": "cpu", "optimizer.lr": options.rate}
    recipe = read_training("text", {**changes, "dropout": options.dropout})
    torch.manual_seed(0)
    child = ChildNetwork(sized, architecture, prune=True)
    trained = train_child(child, data, recipe, folder, "scratch", Progress(quiet=True))
    return {
        "validation_perplexity": trained.row("best").validation_perplexity or 0.0,
        "test_perplexity": quality_of(child, data, data.test).perplexity or 0.0,
    }


def row_of(method: str, seed: int, data: ImageData, options: argparse.Namespace) -> dict[str, Any]:
    """Search, choose and train; return the row of results.json."""
    sized = SizedSpace.named(get_space(SPACE), channels=options.channels, classes=len(data.labels))
    start = time.process_time()
    done = search(method, seed, sized, data, options)
    (target,) = done.targets
    architecture = done.evaluator.choose(target)
    searched_s = time.process_time() - start
    text = sized.space.format(architecture)
    (metric, bound), cost = next(iter(target.budget.limits.items())), target.objective.costs
    return {
        "method": method,
        "seed": seed,
        "architecture": text,
        "steps": done.step,
        metric: cost[metric].predict(architecture),
        f"{metric}_limit": bound,
        "search_processor_s": round(searched_s, 1),
        "supernet_validation_perplexity": done.evaluator.quality(architecture).perplexity,
        **train(
            sized,
            architecture,
            data,
            options.out / "trained" / f"{method.replace(', ', '-').replace(' ', '-')}-{seed}",
            options,
        ),
    }


def summary_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the mean and the standard deviation of every perplexity, for each method."""
    found = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        if own:
            values = {name: [row[name] for row in own] for name in QUALITIES}
            spread = {name: statistics.stdev(v) if len(v) > 1 else None for name, v in values.items()}
            means = {f"{name}_mean": statistics.mean(v) for name, v in values.items()}
            found.append({"method": method, "seeds": len(own), **means, **{f"{n}_std": s for n, s in spread.items()}})
    return found


def show(summary: list[dict[str, Any]]) -> None:
    """Print a line for every method."""
    shown = []
    for row in summary:
        cells = [(row[f"{name}_mean"], row[f"{name}_std"]) for name in QUALITIES]
        shown.append([row["method"], str(row["seeds"]), *(f"{mean:.1f} ± {std or 0:.1f}" for mean, std in cells)])
    print(format_table("perplexity", ["method", "seeds", "supernet, validation", "validation", "test"], shown))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", metavar="TEXT")
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8, help="of each search")
    parser.add_argument("--child-epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="windows in a step of a search")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rate", type=float, default=20.0, help="the learning rate of weights at the start")
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--budget", default="mild-macs")
    options = parser.parse_args()
    register_builtin()
    data, file = load_data(options.text, Progress()), options.out / "results.json"
    rows = json.loads(file.read_text())["rows"] if file.exists() else []
    settings = {name: str(value) for name, value in vars(options).items() if name != "out"}
    versions = {"hwnas": __version__, "torch": torch.__version__}
    for seed in options.seeds:
        for method in METHODS:
            if any((row["method"], row["seed"]) == (method, seed) for row in rows):
                continue
            rows.append(row_of(method, seed, data, options))
            print(json.dumps(rows[-1]), flush=True)
            content = {"settings": settings, "versions": versions, "rows": rows, "summary": summary_of(rows)}
            write_json(file, content)
    show(summary_of(rows))


if __name__ == "__main__":
    main()
