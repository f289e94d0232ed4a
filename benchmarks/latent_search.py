#!/usr/bin/env python3
"""Measure a graph autoencoder of NAS-Bench-201 and searches in its latent space against others at equal evaluations.

    python -m benchmarks.latent_search ACCURACY LATENCY --budget none --out benchmarks/results/latent_search/none.json

ACCURACY (`arch` and one column a data set) is the oracle: an evaluation of a cell is its published CIFAR-10 accuracy
after full training. Nothing is trained but the autoencoder, so the study says how good proposals are, not how well
short trainings rank. LATENCY (`arch` and one column a device) gives the budgets: percentiles of one device's measured
latencies, which cells keep by their measured latency.

Searches, with the same number of evaluations. Those that learn start with the first cells of the random one:

    random           cells drawn from those within the budget
    latent space     hwnas.latent: expected improvement of a Gaussian process in the autoencoder's latent space
    accuracy model   hwnas.finalists: a sum over edges and pairs of edges, with MACs and parameters as scores; takes the
                     cells of largest mean + deviation / 2 among all within the budget, as finalists are proposed
                     without an autoencoder, but without the scores that need a network

The recorded results are of seeds 0 to 19; benchmarks/README.md says on which seeds settings were chosen. `--darts`
measures an autoencoder of the DARTS space, too, which has no published accuracies.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from scipy.stats import binomtest, spearmanr

from hwnas.benchmark.accuracy import read_accuracy
from hwnas.benchmark.latency import read_latencies
from hwnas.cost.counts import count_metrics
from hwnas.files import write_json
from hwnas.finalists.accuracy_model import AccuracyModel, Features
from hwnas.finalists.judge import EXPLORED
from hwnas.latent.graphs import CellGraphs
from hwnas.latent.latent_space import LatentSpace
from hwnas.latent.measures import measure
from hwnas.latent.proposals import LatentSearch
from hwnas.latent.surrogate import Surrogate
from hwnas.latent.training import trained_autoencoder
from hwnas.recipe import Autoencoder, read_recipe
from hwnas.spaces import SPACES, SizedSpace
from hwnas.spaces.encoding import every_choice, without_dead_edges

NASBENCH201 = SPACES["nasbench201"]
EVERY = every_choice(NASBENCH201)
WAYS = ("random", "latent space", "accuracy model")
RUNS = {12: (4, 4), 50: (20, 10)}  # start and batch of a search, by its evaluations
PERCENTILES = {"moderate": 50, "aggressive": 25}  # as the budgets of these names
LEARNT_FROM = (20, 50, 100)  # random evaluations from which the ranking of all other cells is predicted


@dataclass(frozen=True)
class Task:
    """The cells within a budget: graphs [M, edges], accuracies [M] in percent, features of the accuracy model."""

    name: str
    choices: np.ndarray
    accuracies: np.ndarray
    features: Features

    @property
    def values(self) -> np.ndarray:
        """Return what both models learn: -log(error), which adds up better over edges than accuracy."""
        return -np.log(100 - self.accuracies)

    @cached_property
    def positions(self) -> dict[bytes, int]:
        return {row.tobytes(): number for number, row in enumerate(self.choices)}

    def indices(self, choices: np.ndarray) -> list[int]:
        """Return the positions of some of the cells."""
        return [self.positions[row.tobytes()] for row in choices]

    def contains(self, choices: np.ndarray) -> np.ndarray:
        """Return a mask [N] of the graphs [N, edges] that are among the cells."""
        return np.array([row.tobytes() in self.positions for row in choices], dtype=bool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("accuracy")
    parser.add_argument("latency", type=Path)
    parser.add_argument("--device", default="silver_4114", help="column of LATENCY")
    parser.add_argument("--budget", choices=("none", *PERCENTILES), default="none")
    parser.add_argument("--seeds", default="0-19", help="first and last seed")
    parser.add_argument("--recipe", default="short/svge")
    parser.add_argument("--darts", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    settings = read_recipe(arguments.recipe, {}).autoencoder
    assert settings is not None
    first, last = map(int, arguments.seeds.split("-"))
    space, autoencoder = trained(CellGraphs(NASBENCH201), settings)
    accuracies = read_accuracy(arguments.accuracy).values["cifar10"]
    latencies = read_latencies(arguments.latency).values[arguments.device]
    tasks = tasks_of(space.graphs, accuracies, latencies)
    task = tasks[arguments.budget]
    result: dict[str, Any] = {
        "oracle": "published CIFAR-10 accuracy after 200 epochs",
        "device": arguments.device,
        "seeds": [first, last],
        "recipe": arguments.recipe,
        "settings": settings.model_dump(mode="json"),
        "autoencoders": {"nasbench201": autoencoder},
        "predictions": [prediction(space, task, number, first) for number in LEARNT_FROM],
        "searches": compare(task, space, range(first, last + 1)),
        "made": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "sklearn": sklearn.__version__,
            "threads": torch.get_num_threads(),
        },
    }
    if arguments.darts:
        result["autoencoders"]["darts"] = trained(CellGraphs(SPACES["darts"], 2), settings)[1]
    if arguments.out:
        write_json(arguments.out, result)


def trained(graphs: CellGraphs, settings: Autoencoder) -> tuple[LatentSpace, dict[str, Any]]:
    """Train an autoencoder, measure it and print a line."""
    begin = time.process_time()
    space = trained_autoencoder(graphs, settings, 0)
    seconds, measures = time.process_time() - begin, measure(space)
    print(f"{graphs.space.name}: {measures.describe()}; {seconds:.0f} s of processor time")
    print(f"  {asdict(measures)}", flush=True)
    return space, {**asdict(measures), "processor_s": round(seconds, 1)}


def tasks_of(graphs: CellGraphs, accuracies: np.ndarray, latencies: np.ndarray) -> dict[str, Task]:
    """Return a task without a budget and one for every budget."""
    sized = SizedSpace.named(NASBENCH201, "cifar")
    models = count_metrics(sized)
    counts = {name: models[name].predict_many(EVERY) for name in ("macs", "params")}
    features = Features.of(NASBENCH201, without_dead_edges(NASBENCH201, EVERY), counts)
    valid = graphs.valid(EVERY)
    masks = {"none": valid} | {
        name: valid & (latencies <= np.nanpercentile(latencies, share)) for name, share in PERCENTILES.items()
    }
    return {
        name: Task(name, EVERY[mask], accuracies[mask], features.rows(np.flatnonzero(mask)))
        for name, mask in masks.items()
    }


def compare(task: Task, space: LatentSpace, seeds: range) -> list[dict[str, Any]]:
    """Return a row for every number of evaluations and way, with its regrets [seeds] in percentage points."""
    rows, best = [], task.accuracies.max()
    for evaluations, (start, batch) in RUNS.items():
        regrets: dict[str, list[float]] = {way: [] for way in WAYS}
        for seed in seeds:
            for way in WAYS:
                chosen = search(way, task, space, seed, evaluations, start, batch)
                assert len(set(chosen)) == len(chosen) == evaluations
                regrets[way].append(round(float(best - task.accuracies[chosen].max()), 3))
        for way in WAYS:
            row = {"budget": task.name, "cells": len(task.choices), "evaluations": evaluations, "way": way}
            rows.append(row | against_random(regrets[way], regrets["random"]))
            print(describe(rows[-1]), flush=True)
    return rows


def search(way: str, task: Task, space: LatentSpace, seed: int, evaluations: int, start: int, batch: int) -> list[int]:
    """Return the positions of the cells that a search evaluates, in order."""
    order = np.random.default_rng([seed, 1]).permutation(len(task.choices)).tolist()
    if way == "random":
        return order[:evaluations]
    chosen, generator = order[:start], np.random.default_rng([seed, 2])
    while len(chosen) < evaluations:
        number = min(batch, evaluations - len(chosen))
        if way == "latent space":
            found = LatentSearch(space, task.contains).propose(
                task.choices[chosen], task.values[chosen], number, generator
            )
            new = task.indices(found.choices)
        else:
            model = AccuracyModel.fit(task.features.rows(chosen), task.values[chosen])
            mean, deviation = model.predict(task.features)
            ranking = np.argsort(-(mean + EXPLORED * deviation), kind="stable").tolist()
            new = [index for index in ranking if index not in set(chosen)][:number]
        chosen += new
        if not new:  # everything that can be proposed is evaluated
            chosen += [index for index in order if index not in set(chosen)][:number]
    return chosen


def against_random(regrets: list[float], at_random: list[float]) -> dict[str, Any]:
    """Return mean and deviation of regrets, and how often they are less and greater than those of the random search."""
    less = sum(a < b for a, b in zip(regrets, at_random, strict=True))
    greater = sum(a > b for a, b in zip(regrets, at_random, strict=True))
    p_value = binomtest(less, less + greater).pvalue if less + greater else 1.0
    return {
        "regret": round(float(np.mean(regrets)), 3),
        "deviation": round(float(np.std(regrets, ddof=1)), 3) if len(regrets) > 1 else None,
        "better_than_random": less,
        "worse_than_random": greater,
        "sign_test_p": float(f"{p_value:.2g}"),
        "regrets": regrets,
    }


def prediction(space: LatentSpace, task: Task, number: int, seed: int) -> dict[str, Any]:
    """Return Spearman's correlation of both models' predictions with the accuracies of all cells not learnt from."""
    order = np.random.default_rng([seed, 1]).permutation(len(task.choices))
    known, others = order[:number], order[number:]
    latents = space.encode(space.graphs.networks(task.choices))
    by_latent = Surrogate.fit(latents[known], task.values[known]).predict(latents[others])[0]
    model = AccuracyModel.fit(task.features.rows(known), task.values[known])
    by_edges = model.predict(task.features.rows(others))[0]
    found = {
        name: round(float(spearmanr(values, task.accuracies[others]).statistic), 3)
        for name, values in {"latent space": by_latent, "accuracy model": by_edges}.items()
    }
    print(f"Spearman with all other cells after {number} random evaluations: {found}", flush=True)
    return {"evaluations": number, **found}


def describe(row: dict[str, Any]) -> str:
    return (
        f"budget {row['budget']}, {row['evaluations']} evaluations, {row['way']}: regret {row['regret']:.2f} "
        f"± {row['deviation'] or 0:.2f}, better than random in {row['better_than_random']}, "
        f"worse in {row['worse_than_random']}"
    )


if __name__ == "__main__":
    main()
