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
    method: Annotated[list[str], typer.Option(help="A search method; repeat for more.")],
    accuracy: Annotated[
        str,
        typer.Option(
            help="arch,cifar10,… of all 15,625 cells as CSV, or in gzip; or nats:PATH, a file or folder of NATS-Bench, "
            "which is a pickle: opening one can run any program, give only what you trust."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of it all; the same command goes on where it was stopped.")],
    seeds: Annotated[str, typer.Option(help="The seeds of every method's searches.")] = "0,1,2",
    data: DataSpec = "digits",
    channels: Channels = None,
    cells: Layers = None,
    recipe: Annotated[
        str, typer.Option(help="A name in configs/search or a YAML file; {method} stands for the method.")
    ] = "nasbench201/{method}",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every search.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step.")] = None,
    table: Annotated[Path | None, typer.Option(help="A latency table, for --budget.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="The searches keep it, and regret is against the best cell that does.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Searches side by side; they share the processors.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Search on images, then look the cells up in a table of what they reach when trained in full.

    The searches are processes that are not told of the table. Regret is the best cell's accuracy minus that of the
    cell found, in percentage points.
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
    """A row a method, by regret on the first data set, and two of the table's own."""
    from hwnas.benchmark.summary import FOOTNOTE, summary_table, summary_title

    show_table(summary_title(summary), *summary_table(summary))
    print(FOOTNOTE)
