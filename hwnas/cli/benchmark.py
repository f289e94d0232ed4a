"""``hwnas benchmark``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli.app import benchmark_app, command
from hwnas.cli.options import AsJson, Channels, DataSpec, Layers
from hwnas.cli.output import open_table, show_json, show_table
from hwnas.errors import HwnasError


@command(
    benchmark_app,
    "nasbench201",
    "hwnas benchmark nasbench201 --method snas --seeds 0,1,2 --accuracy nb201.csv.gz --data imagefolder:images "
    "--channels 8 --cells 1 --out runs/bench",
    resumes=True,
)
def nasbench201_command(
    method: Annotated[list[str], typer.Option(help="A search method; repeat it for more.")],
    accuracy: Annotated[
        str,
        typer.Option(
            help="A CSV file (or gzip) with arch,cifar10,… of all 15,625 cells; or nats:PATH, a file or folder of "
            "NATS-Bench. That is a pickle, which can run any code: give only files that you trust."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the benchmark; repeat the command to resume.")],
    seeds: Annotated[str, typer.Option(help="Seeds; every method searches once with each.")] = "0,1,2",
    data: DataSpec = "digits",
    channels: Channels = None,
    cells: Layers = None,
    recipe: Annotated[
        str, typer.Option(help="A name in configs/search or a YAML file; {method} stands for the method.")
    ] = "nasbench201/{method}",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every search.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images in a step.")] = None,
    table: Annotated[Path | None, typer.Option(help="A latency table, for --budget.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Budget of the searches; regret is then relative to the best cell within it.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Searches at the same time; they share the processors.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Compare search methods on NAS-Bench-201: search on images, then look up the accuracy of the cells found.

    The searches are separate processes without access to the accuracies. Regret is the accuracy of the best cell minus
    that of the cell found, in percentage points.
    """
    from hwnas.benchmark.accuracy import read_accuracy
    from hwnas.benchmark.benchmark import evaluate, search_all
    from hwnas.benchmark.plan import BenchmarkPlan
    from hwnas.progress import Progress
    from hwnas.spaces import SizedSpace
    from hwnas.spaces.nasbench201 import NASBENCH201
    from hwnas.tables.network_key import common_network

    if (table is None) != (budget is None):
        raise HwnasError("--table and --budget belong together", "give both or neither")
    accuracies = read_accuracy(accuracy)
    device = open_table(table) if table else None
    if device:
        sized = common_network({"": device}, NASBENCH201.name, None, channels=channels, depth=cells)
    else:
        sized = SizedSpace.named(NASBENCH201, channels=channels, depth=cells)
    changes = {"epochs": epochs, "batch_size": batch_size}
    plan = BenchmarkPlan(method, _seeds(seeds), data, sized, recipe, changes, device, budget or "")
    with Progress() as progress:
        prepared = search_all(plan, out, jobs, progress)
        summary = evaluate(prepared, accuracies, out, progress.log)
    if as_json:
        show_json(summary)
    else:
        show_summary(summary)
        print(f"made {out}/summary.json and {out}/benchmark.png")


def _seeds(text: str) -> list[int]:
    seeds = [seed.strip() for seed in text.split(",")]
    if not all(seed.isascii() and seed.isdigit() for seed in seeds):
        raise HwnasError(f"cannot read seeds {text!r}", "write whole numbers with commas, such as 0,1,2")
    return [int(seed) for seed in seeds]


def show_summary(summary: dict[str, Any]) -> None:
    """Print one row for each method, sorted by regret on the first data set, and two reference rows of the table."""
    from hwnas.benchmark.summary import FOOTNOTE, summary_table, summary_title

    show_table(summary_title(summary), *summary_table(summary))
    print(FOOTNOTE)
