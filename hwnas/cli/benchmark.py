"""``hwnas benchmark``"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import benchmark_app, command
from hwnas.cli.options import AsJson, Channels, DataSpec, ExecutorName, Layers, SearchChannels, SearchLayers
from hwnas.cli.output import open_tables, show_json, show_table
from hwnas.errors import HwnasError
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.benchmark.schema import AnySummary
    from hwnas.spaces import SizedSpace
    from hwnas.tables.schema import LatencyTable

Accuracies = Annotated[
    str,
    typer.Option(
        help="A CSV file (or gzip) with arch,cifar10,… of all 15,625 cells; or nats:PATH, a file or folder of "
        "NATS-Bench. That is a pickle, which can run any code: give only files that you trust."
    ),
]
Tables = Annotated[
    list[Path] | None,
    typer.Option("--table", help="A latency table, for --budget; repeat it for more devices. Each gets every budget."),
]
Budgets = Annotated[
    list[str] | None,
    typer.Option(help="A budget on every device, such as moderate; repeat it for more. All are in one search."),
]
Latencies = Annotated[
    Path | None,
    typer.Option(
        help="A CSV file (or gzip) with arch and a column a device: measured latencies in ms of all cells. They decide "
        "which cells keep a budget, in place of the tables."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Searches at the same time, which share the processors of this machine; default: 1, on a cluster as many "
        "as it has processors.",
    ),
]
LatencyColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--latency-column",
        help="TABLE=COLUMN, where the name of a table does not end with that of its column; repeat it for more.",
    ),
]


@command(
    benchmark_app,
    "nasbench201",
    "hwnas benchmark nasbench201 --method snas --seeds 0,1,2 --accuracy nb201.csv.gz --data imagefolder:images "
    "--channels 8 --cells 1 --out runs/bench",
    resumes=True,
)
def nasbench201_command(
    method: Annotated[list[str], typer.Option(help="A search method; repeat it for more.")],
    accuracy: Accuracies,
    out: Annotated[Path, typer.Option(help="The folder of the benchmark; repeat the command to resume.")],
    seeds: Annotated[str, typer.Option(help="Seeds; every method searches once with each.")] = "0,1,2",
    data: DataSpec = "digits",
    channels: Channels = None,
    cells: Layers = None,
    search_channels: SearchChannels = None,
    search_layers: SearchLayers = None,
    recipe: Annotated[
        str, typer.Option(help="A name in configs/search or a YAML file; {method} stands for the method.")
    ] = "nasbench201/{method}",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of every search.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images in a step.")] = None,
    table: Tables = None,
    budget: Budgets = None,
    latency: Latencies = None,
    latency_column: LatencyColumns = None,
    executor: ExecutorName = "local",
    jobs: Jobs = None,
    as_json: AsJson = False,
) -> None:
    """Compare search methods on NAS-Bench-201: search on images, then look up the accuracy of the cells found.

    The searches run in other processes, without access to the accuracies. Regret is the accuracy of the best cell minus
    that of the cell found, in percentage points; with budgets, of the best cell within the budget.
    """
    from hwnas.benchmark.benchmark import evaluate, search_all
    from hwnas.benchmark.plan import BenchmarkPlan, may_use_gpu, prepare_runs
    from hwnas.benchmark.schema import Summary
    from hwnas.benchmark.truth import read_truth
    from hwnas.jobs.choose import choose_executor
    from hwnas.progress import Progress
    from hwnas.runs.request import SearchSizes

    tables = _open_tables(table, budget)
    truth = read_truth(accuracy, latency, _columns(latency_column or []), tables)
    sizes = SearchSizes(channels=search_channels, depth=search_layers)
    changes = {"epochs": epochs, "batch_size": batch_size}
    target = _target_network(tables, channels, cells)
    plan = BenchmarkPlan(method, _seeds(seeds), data, target, recipe, changes, tables, budget or [], sizes)
    at_a_time = jobs or (1 if executor == "local" else None)
    searches = choose_executor(executor, at_a_time, threads=None, separate=True, gpu=may_use_gpu(plan))
    with Progress() as progress:
        prepared = prepare_runs(plan, out, searches.threads, progress)
        targets = truth.judge(prepared.objectives)
        search_all(prepared, searches, progress)
        summary = evaluate(prepared, targets, truth, out, progress.log)
    if as_json:
        show_json(summary)
        return
    show_summary(summary)
    print(f"made {out}/summary.json" + f" and {out}/benchmark.png" * isinstance(summary, Summary))
    print(f"next: hwnas report {quoted(out)}")


@command(
    benchmark_app,
    "baselines",
    "hwnas benchmark baselines --table shipped:published-pixel3 --budget mild --budget moderate "
    "--accuracy nb201_accuracy.csv.gz --latency nb201_latency_ms.csv.gz",
)
def baselines_command(
    accuracy: Accuracies,
    table: Tables = None,
    budget: Budgets = None,
    latency: Latencies = None,
    latency_column: LatencyColumns = None,
    channels: Channels = None,
    cells: Layers = None,
    out: Annotated[Path | None, typer.Option(help="Also write the numbers to this JSON file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the regret of cells of NAS-Bench-201 that need no search, within budgets on devices.

    A random cell and the best of ten (expected values), the cell of most MACs and that of most parameters (the mean
    where several have as many). `hwnas benchmark nasbench201` shows them beside the methods.
    """
    from hwnas.benchmark.baselines import Counts
    from hwnas.benchmark.objectives import plan_objectives
    from hwnas.benchmark.summarise import summarise_baselines
    from hwnas.benchmark.truth import read_truth
    from hwnas.files import write_json

    tables = _open_tables(table, budget)
    truth = read_truth(accuracy, latency, _columns(latency_column or []), tables)
    target = _target_network(tables, channels, cells)
    targets = truth.judge(plan_objectives(tables, budget or [], target)[0])
    summary = summarise_baselines(truth, targets, Counts.of(target))
    if out:
        write_json(out, summary.to_json())
    if as_json:
        show_json(summary)
        return
    show_summary(summary)
    if out:
        print(f"made {out}")


def _open_tables(paths: list[Path] | None, budgets: list[str] | None) -> dict[str, LatencyTable]:
    """Read the tables by name. Raises HwnasError when there are tables without budgets, or the other way round."""
    if bool(paths) != bool(budgets):
        raise HwnasError("--table and --budget belong together", "give both or neither")
    return open_tables(paths or [])


def _target_network(tables: Mapping[str, LatencyTable], channels: int | None, cells: int | None) -> SizedSpace:
    """Return the network that the budgets are about: that of the tables."""
    from hwnas.spaces import SizedSpace
    from hwnas.spaces.nasbench201 import NASBENCH201
    from hwnas.tables.network_key import common_network

    if tables:
        return common_network(tables, NASBENCH201.name, None, channels=channels, depth=cells)
    return SizedSpace.named(NASBENCH201, channels=channels, depth=cells)


def _columns(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if strange := next((text for text, (_, _, column) in zip(texts, pairs, strict=True) if not column), None):
        raise HwnasError(f"cannot read --latency-column {strange!r}", "write TABLE=COLUMN")
    return {table: column for table, _, column in pairs}


def _seeds(text: str) -> list[int]:
    seeds = [seed.strip() for seed in text.split(",")]
    if not all(seed.isascii() and seed.isdigit() for seed in seeds):
        raise HwnasError(f"cannot read seeds {text!r}", "write whole numbers with commas, such as 0,1,2")
    return [int(seed) for seed in seeds]


def show_summary(summary: AnySummary) -> None:
    """Print a benchmark's table: one row a method, or for several targets one row a target, beside the baselines."""
    from hwnas.benchmark.schema import Summary
    from hwnas.benchmark.summary import (
        FOOTNOTE,
        method_table,
        summary_title,
        target_footnote,
        target_table,
        target_title,
    )

    if isinstance(summary, Summary):
        show_table(summary_title(summary), *method_table(summary, summary.data_sets))
        print(FOOTNOTE)
        return
    for data_set in summary.data_sets:
        show_table(target_title(summary, data_set), *target_table(summary, data_set))
    print(target_footnote(summary))
