"""One search of a benchmark, in a process of its own: ``python -m hwnas.benchmark.worker FOLDER``.

The worker reads FOLDER/manifest.json (and the latency tables beside it if there are budgets); it has no access to
accuracies or to latencies of cells. It writes checkpoint.pt and metrics.jsonl as every search does, costs.jsonl with
the cost of the search, and finally a searched.json for every target, in the target's folder. It sends messages to the
benchmark on standard output, one JSON object a line, and exits when its standard input closes, so that it never
outlives a benchmark that was killed.

The cost of a search includes its steps, validation after every epoch, checkpoints and derivation. It excludes starting
Python, reading the images and building the supernet.
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

from hwnas.benchmark.collapse import collapse
from hwnas.benchmark.cost_meter import CostMeter
from hwnas.benchmark.objectives import read_objectives
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.files import read_json, write_json
from hwnas.recipe import Recipe
from hwnas.search.epoch_row import EpochRow
from hwnas.search.methods import register_builtin
from hwnas.search.resume import run_to_end
from hwnas.search.search import Search
from hwnas.spaces import Setting, SizedSpace
from hwnas.spaces.nasbench201 import NASBENCH201

Send = Callable[[dict[str, Any]], None]


def main(folder: Path) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark handles Ctrl-C and stops its workers
    threading.Thread(target=_exit_with_stdin, daemon=True).start()
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print to standard error

    def send(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=lines, flush=True)

    try:
        search_one(folder, send)
    except HwnasError as error:
        send({"problem": error.problem, "fix": error.fix})
        return 2
    return 0


def search_one(folder: Path, send: Send) -> None:
    """Run the search of the folder's manifest, from its checkpoint if there is one, and write ``searched.json``.

    Raises HwnasError when the images differ from those of the manifest.
    """
    manifest = read_json(folder / "manifest.json", "run 'hwnas benchmark nasbench201'")
    settings = manifest["settings"]
    torch.set_num_threads(manifest["threads"])
    data = load_data(settings["data"])
    if data.fingerprint != settings["data_fingerprint"]:
        raise HwnasError(f"the images of {settings['data']} have changed", "give another folder with --out")
    sized = SizedSpace(NASBENCH201, Setting(**settings["setting"]))
    target_network = SizedSpace(NASBENCH201, Setting(**settings.get("target_setting", settings["setting"])))
    recipe = Recipe.model_validate(settings["recipe"])
    objectives = read_objectives(folder, settings, target_network)
    torch.manual_seed(recipe.seed)
    register_builtin()
    search = Search(sized, objectives, data, recipe)
    cost_meter = CostMeter(folder / "costs.jsonl")

    def progress(stage: str, done: int, total: int) -> None:
        cost_meter.record(search.step)
        send({"done": done, "total": total})

    def on_epoch(row: EpochRow) -> None:
        cost_meter.record(search.step)
        send({"epoch": row.to_json()})

    run_to_end(search, folder, manifest["digest"], progress, on_epoch)
    chosen = [search.evaluator.choose(target) for target in search.targets]
    cost = cost_meter.total(search.step)
    for objective, architecture in zip(objectives, chosen, strict=True):
        write_json(
            folder / objective.target / "searched.json",
            {
                "architecture": sized.space.format(architecture),
                "validation_accuracy": search.evaluator.validate(architecture),
                "search": asdict(cost),
                "network": {metric: model.predict(architecture) for metric, model in objective.costs.items()},
                "collapse": collapse(architecture),
                "torch": torch.__version__,
                "threads": manifest["threads"],
                "machine": manifest["machine"],
            },
        )


def _exit_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
