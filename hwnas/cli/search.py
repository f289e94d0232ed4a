"""Searching, and what can be done with a finished search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson, Channels, DataSpec, Layers, OtherData, RunFolder, SettingName, TableSpace
from hwnas.cli.output import open_tables, show_json, show_table
from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.runs.schema import SummaryRow


class TargetRow(Protocol):
    """A row about one target of a run."""

    @property
    def device(self) -> str: ...

    @property
    def budget(self) -> str: ...


ComputeName = Annotated[
    str | None, typer.Option(help="What computes: cpu, cuda, or auto (the default): a GPU where torch can use one.")
]
PrecisionName = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16, tf32 (on a GPU), or auto: bfloat16 where what computes multiplies it."),
]


@command(
    app,
    "search",
    "hwnas search --table cpu.json --budget mild --budget 4.5ms,2M-params --out runs/a",
    resumes=True,
    distributed=True,
)
def search_command(
    table: Annotated[
        list[Path],
        typer.Option("--table", help="A latency table; repeat for more devices, each gets every budget without @NAME."),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the run; the same command goes on where it was stopped.")],
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="mild, moderate, 4.5ms, 60%, 300M-macs, 40MB-memory-access, 2MB-peak-memory; repeat for more targets. "
            "4ms@phone,3ms@cpu, names of tables' files, is one network for these devices."
        ),
    ] = None,
    space: TableSpace = None,
    data: DataSpec = "digits",
    method: Annotated[
        str | None, typer.Option(help="snas (the default), drnas, advantagenas, entrannas, … (docs/methods).")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A name in configs/search or a YAML file; by default the method's own, for digits a short one."
        ),
    ] = None,
    plugin: Annotated[
        Path | None, typer.Option(help="A Python file of yours that registers choices a recipe names; it is run.")
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the search.")] = None,
    child_epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of each child's training.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    compute: ComputeName = None,
    precision: PrecisionName = None,
    kernels: Annotated[
        str | None,
        typer.Option(help="What computes the supernet: torch, or kernels compiled on this machine, which are faster."),
    ] = None,
    fixed_lambda: Annotated[
        float | None, typer.Option("--lambda", min=0, help="Fix the penalty's weight, as the papers do.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Time the networks; derive again if one is over its budget.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Tell where the time of some steps goes; traces in OUT/profile.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Search architectures within budgets, train them, write ONNX.

    Several processes share the images of every step: `torchrun --nproc-per-node 2 -m hwnas search …`.
    """
    from hwnas.progress import Progress
    from hwnas.recipe import read_recipe, recipe_of
    from hwnas.runs.search import SearchRequest, run_search
    from hwnas.spaces.nasbench201 import NASBENCH201
    from hwnas.tables.network_key import common_network

    changes: dict[str, Any] = {"epochs": epochs, "child.epochs": child_epochs, "batch_size": batch_size, "seed": seed}
    changes |= {"compute": compute, "precision": precision, "kernels": kernels}
    if fixed_lambda is not None:
        changes |= {"penalty.mode": "fixed", "penalty.weight": fixed_lambda}
    if plugin:
        from hwnas.search.choices import load_plugin

        load_plugin(plugin)
    tables = open_tables(table)
    sized = common_network(tables, space, setting, channels=channels, depth=layers)
    # A space of the user's own takes the recipes of NAS-Bench-201.
    alike = NASBENCH201.name if sized.space.origin else sized.space.name
    settings = read_recipe(recipe or recipe_of(method or "snas", alike, data), changes)
    if method and settings.method != method:
        raise HwnasError(f"recipe {recipe} is of method {settings.method}, not {method}", "leave out --method")
    request = SearchRequest(sized, tables, data, budget or ["moderate"], settings, verify, plugin)
    with Progress() as progress:
        rows = run_search(request, out, progress, profile)
    if as_json:
        show_json({"targets": rows})
    else:
        show_results(rows)
        print(f"next: hwnas verify {out}")
    if any(row.kept is False for row in rows):
        raise typer.Exit(1)


@command(app, "verify", "hwnas verify runs/a --device cpu")
def verify_command(
    folder: RunFolder,
    device: Annotated[str | None, typer.Option(help="Where to time; by default the table's own device.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time exported networks again; exit code 1 when one breaks its budget by more than the measurement's error."""
    from hwnas.progress import Progress
    from hwnas.runs.verify import verify_run
    from hwnas.runtimes.device_spec import parse_device

    with Progress() as progress:
        rows = verify_run(folder, parse_device(device) if device else None, progress)
    if as_json:
        show_json({"targets": rows})
    else:
        columns = ["budget", "limit", "predicted", "measured", "clock says", "kept"]
        shown = [
            [
                name_on(r, r.device, rows),
                f"{r.budget_ms:.4g} ms" if r.budget_ms else "-",
                f"{r.predicted_ms:.4g} ms",
                f"{r.measured_ms:.4g} ± {r.measured_error_ms:.2g} ms",
                f"{r.measured_raw_ms:.4g} ms",
                "yes" if r.kept else "NO",
            ]
            for r in rows
        ]
        show_table("", columns, shown)
        slowdowns = {r.device: r.machine_slowdown for r in rows}
        for device, slowdown in slowdowns.items():
            table = "the table" if len(slowdowns) == 1 else f"table {device}"
            if slowdown is None:
                print(f"{table} is of another machine or runtime: the times are as the clock says")
            else:
                print(
                    f"the machine runs at {1 / slowdown:.0%} of its speed when {table} was measured; "
                    "'measured' has this divided out"
                )
    if not all(row.kept for row in rows):
        raise typer.Exit(1)


@command(app, "train", "hwnas train runs/a/moderate --recipe darts-cifar10", resumes=True, distributed=True)
def train_command(
    folder: RunFolder,
    recipe: Annotated[
        str,
        typer.Option(help="quick, darts-cifar10, snas-cifar10, imagenet-mobile, nasbench201, or a YAML file."),
    ] = "quick",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; the schedules stretch or shrink.")] = None,
    from_scratch: Annotated[
        bool | None,
        typer.Option(
            "--from-scratch/--from-supernet",
            help="From random weights, or from those that are there; by default as the recipe says.",
        ),
    ] = None,
    setting: Annotated[
        str | None,
        typer.Option(help="Named sizes of the space, such as imagenet-mobile; as-searched keeps those of the run."),
    ] = None,
    channels: Channels = None,
    layers: Layers = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, help="The first rate of the schedule.")] = None,
    compute: ComputeName = None,
    precision: PrecisionName = None,
    ema: Annotated[
        float | None, typer.Option(help="Evaluate and export a moving average of the weights, such as 0.9999.")
    ] = None,
    keep: Annotated[
        str | None, typer.Option(help="Which weights are exported: last, or best on the validation images.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after that many epochs without a better validation accuracy.")
    ] = None,
    data: OtherData = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Train derived networks and export them again: further, or from scratch as the papers do.

    A network of other sizes than those searched gets a folder of its own and claims no budget. Several processes share
    the images of every step: `torchrun --nproc-per-node 2 -m hwnas train …`.
    """
    from hwnas.progress import Progress
    from hwnas.runs.train import train_run
    from hwnas.training.recipe import read_training

    changes: dict[str, Any] = {
        "epochs": epochs,
        "start": None if from_scratch is None else "scratch" if from_scratch else "weights",
        "setting": setting,
        "channels": channels,
        "depth": layers,
        "batch_size": batch_size,
        "optimizer.lr": learning_rate,
        "compute": compute,
        "precision": precision,
        "ema": ema,
        "keep": keep,
        "patience": patience,
        "seed": seed,
    }
    with Progress() as progress:
        rows = train_run(folder, recipe, read_training(recipe, changes), data, progress)
    if as_json:
        show_json({"targets": rows})
        return
    for r in rows:
        assert r.training
        stopped = f" (stopped: {r.training.stopped})" * bool(r.training.stopped)
        claim = f"; {r.no_claim}" * bool(r.no_claim)
        print(
            f"{name_of(r, rows)}: {r.training.epochs} epochs{stopped}, "
            f"validation {r.validation_accuracy_before_training:.1%} -> {r.validation_accuracy:.1%}, "
            f"test {r.accuracy:.1%}{claim}; {r.onnx}"
        )
    other_sizes = [Path(r.onnx).parent for r in rows if r.no_claim]
    print(f"next: hwnas evaluate {other_sizes[0]} --latency" if other_sizes else f"next: hwnas verify {folder}")


@command(app, "evaluate", "hwnas evaluate runs/a --split test --confusion confusion.csv")
def evaluate_command(
    folder: RunFolder,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    data: OtherData = None,
    latency: Annotated[bool, typer.Option("--latency", help="Time the networks on the run's devices, too.")] = False,
    confusion: Annotated[
        Path | None, typer.Option(help="Write which classes are taken for which, as CSV, to this file.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """How good exported networks are: the ONNX files themselves through ONNX Runtime, and torch beside them.

    Calibration error is Guo et al.'s (2017), 15 bins: how far confidence is from accuracy.
    """
    from hwnas.progress import Progress
    from hwnas.runs.evaluate import RUNTIME_NAMES, evaluate_run

    with Progress() as progress:
        rows = evaluate_run(folder, split, data, latency, confusion, progress)
    if as_json:
        show_json({"split": split, "targets": rows})
        return
    shown = [
        [
            name_of(r, rows),
            RUNTIME_NAMES[runtime],
            f"{r.images:,}",
            f"{scores.accuracy:.2%}",
            "-" if scores.top5_accuracy is None else f"{scores.top5_accuracy:.2%}",
            f"{scores.calibration_error:.2%}",
        ]
        for r in rows
        for runtime, scores in r.scores.items()
    ]
    columns = ["budget", "runtime", "images", "accuracy", "top-5", "calibration error"]
    show_table(f"on the {split} images", columns, shown)
    for r in rows:
        for time in r.latency:
            state = "" if time.machine_slowdown is None else " in the machine's state when the table was measured"
            name = name_on(r, time.device, rows)
            print(f"{name}: {time.measured_ms:.4g} ± {time.measured_error_ms:.2g} ms{state}")
    if confusion:
        print(f"made {confusion}")


@command(app, "demo", "hwnas demo --out runs/demo", resumes=True)
def demo_command(
    out: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/demo"), as_json: AsJson = False
) -> None:
    """The whole flow in a few minutes on embedded images: profile this machine, search three budgets, verify."""
    from hwnas.progress import Progress
    from hwnas.runs.demo import run_demo

    with Progress() as progress:
        rows = run_demo(out, progress)
    if as_json:
        show_json({"targets": rows})
    else:
        show_results(rows)
        print(f"made {out}/summary.json; next: hwnas table show {out}/table.json, or hwnas profile --help")
    if any(row.kept is False for row in rows):
        raise typer.Exit(1)


def show_results(rows: Sequence[SummaryRow]) -> None:
    """Print the targets of a run: their limits, costs and accuracies, then their architectures and files."""
    from hwnas.budgets.budget import format_amount
    from hwnas.cost.devices import device_of

    shown = []
    for row, timing in ((each, timing) for each in rows for timing in each.timings):
        measured = "-"
        if timing.measured_ms is not None:
            measured = f"{timing.measured_ms:.4g} ± {timing.measured_error_ms:.2g} ms" + " over" * (not timing.kept)
        limits = [format_amount(m, v) for m, v in row.limits.items() if device_of(m) in (None, timing.device)]
        shown.append(
            [
                name_on(row, timing.device, rows),
                ", ".join(limits),
                f"{timing.predicted_ms:.4g} ms",
                measured,
                f"{row.macs / 1e6:.2f} M",
                f"{row.params / 1e6:.4f} M",
                f"{row.validation_accuracy_before_training:.1%}",
                f"{row.validation_accuracy:.1%}",
                f"{row.accuracy:.1%}",
            ]
        )
    columns = ["budget", "limit", "predicted", "measured", "MACs", "params"]
    columns += ["val. before training", "val. after", "test accuracy"]
    show_table("", columns, shown)
    for row in rows:
        print(f"{name_of(row, rows)}: {row.architecture}  {row.onnx}")
        if row.int8:
            file = Path(row.onnx).with_name(row.int8.onnx)
            print(f"{name_of(row, rows)}: in int8, test accuracy {row.int8.test_accuracy:.1%}  {file}")


def name_of(row: TargetRow, rows: Sequence[TargetRow]) -> str:
    """Return the name of a target: its budget, after its device where there are several and the budget names none."""
    from hwnas.cost.devices import names_devices

    alone = names_devices(row.budget) or len({r.device for r in rows}) == 1
    return row.budget if alone else f"{row.device} {row.budget}"


def name_on(row: TargetRow, device: str, rows: Sequence[TargetRow]) -> str:
    """Return the name of a target on one of its devices."""
    from hwnas.cost.devices import names_devices

    return name_of(row, rows) + f" on {device}" * names_devices(row.budget)
