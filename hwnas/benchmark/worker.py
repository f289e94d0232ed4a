"""One search of a benchmark, in a process of its own: ``python -m hwnas.benchmark.worker FOLDER``.

It is told what FOLDER/manifest.json says (and FOLDER/table.json, under a budget), and nothing of any accuracy table.
It leaves checkpoint.pt and metrics.jsonl, as every search does; costs.jsonl, what the search has cost; and at its end
searched.json. Its standard output is for the benchmark: a line of JSON each. It ends as its standard input does, so
that it does not outlive a benchmark that was killed.

What counts as the search's cost: its steps, the look at the validation images after every epoch, checkpoints, and the
derivation; not the start of Python, the reading of the images and the building of the supernet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from hwnas.benchmark.cost_meter import Meter
from hwnas.budgets.budget import Budget
from hwnas.cost.counts import count_metrics
from hwnas.cost.metrics import Metric, build_metrics
from hwnas.cost.model import SKIP
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.files import read_json, write_json
from hwnas.recipe import Recipe
from hwnas.search.loop import Objective, Search, run_search
from hwnas.spaces import NONE, Architecture, SearchSpace, Setting
from hwnas.spaces.nasbench201 import NASBENCH201
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable

WITHOUT_PARAMETERS = (NONE, SKIP, "avg_pool_3x3")
Tell = Callable[[dict[str, Any]], None]


def main(folder: Path) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the benchmark, which ends its searches
    threading.Thread(target=_end_with_input, daemon=True).start()
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no line of ours

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=lines, flush=True)

    try:
        search_one(folder, tell)
    except HwnasError as error:
        tell({"problem": error.problem, "fix": error.fix})
        return 2
    return 0


def search_one(folder: Path, tell: Tell) -> None:
    """Search as the folder's manifest says, from its checkpoint if there is one, and write ``searched.json``."""
    manifest = read_json(folder / "manifest.json", "run 'hwnas benchmark nasbench201'")
    asked = manifest["settings"]
    torch.set_num_threads(manifest["threads"])
    data = load_data(asked["data"])
    if data.fingerprint != asked["data_fingerprint"]:
        raise HwnasError(f"the images of {asked['data']} have changed", "give another folder with --out")
    space, setting = NASBENCH201, Setting(**asked["setting"])
    recipe = Recipe.model_validate(asked["recipe"])
    table = read_table(folder / "table.json") if asked["table"] else None
    budget = Budget(asked["budget"]["text"], asked["budget"]["limits"])
    goal = Objective(table.device.name if table else "no device", budget, cost_models(space, setting, table))
    torch.manual_seed(recipe.seed)
    search = Search(space, setting, [goal], data, recipe)
    meter = Meter(folder / "costs.jsonl")

    def progress(stage: str, done: int, total: int) -> None:
        meter.lap(search.step)
        tell({"done": done, "total": total})

    def report(row: dict[str, Any]) -> None:
        meter.lap(search.step)
        tell({"epoch": row})

    run_search(search, folder, manifest["digest"], progress, report)
    architecture = search.choose(search.targets[0])
    cost = meter.total(search.step)
    write_json(
        folder / "searched.json",
        {
            "architecture": space.format(architecture),
            "validation_accuracy": search.validate(architecture),
            "search": asdict(cost),
            "network": {metric: model.predict(architecture) for metric, model in goal.costs.items()},
            "collapse": collapse(architecture),
            "torch": torch.__version__,
            "threads": manifest["threads"],
            "machine": manifest["machine"],
        },
    )


def cost_models(space: SearchSpace, setting: Setting, table: LatencyTable | None) -> dict[str, Metric]:
    """Every metric of a table; without one, those that need none."""
    if table:
        return build_metrics(table, space, setting)
    return count_metrics(space, setting)


def collapse(architecture: Architecture) -> dict[str, float]:
    """The shares of the edges that are a ``skip_connect``, and that have no parameters."""
    edges = [op for cell in architecture.cells for op in cell]
    return {
        "skip_connect": edges.count(SKIP) / len(edges),
        "without_parameters": sum(op in WITHOUT_PARAMETERS for op in edges) / len(edges),
    }


def _end_with_input() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
