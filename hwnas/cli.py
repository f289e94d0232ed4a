"""The command line: parse, call, print. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.spaces import SearchSpace, Setting

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Measure a device, search for networks within a budget, hand back ONNX that keeps it on that device.",
    epilog="Start with: `hwnas demo`",
)
space_app = typer.Typer(no_args_is_help=True, help="What can be searched, and what a budget allows.")
table_app = typer.Typer(no_args_is_help=True, help="Latency tables: look at one, predict with it.")
app.add_typer(space_app, name="space")
app.add_typer(table_app, name="table")

SpaceName = Annotated[str, typer.Option("--space", help="nasbench201 or darts.")]
TableSpace = Annotated[str | None, typer.Option("--space", help="nasbench201 or darts; by default the table's.")]
SettingName = Annotated[
    str | None, typer.Option("--setting", help="Named sizes of the space, such as imagenet-mobile.")
]
Channels = Annotated[int | None, typer.Option(help="Channels of the first cells.")]
Layers = Annotated[
    int | None, typer.Option("--layers", "--cells", help="Cells: a stage (nasbench201), in all (darts).")
]
TablePath = Annotated[Path, typer.Option("--table", help="A latency table, from hwnas profile.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DataSpec = Annotated[str, typer.Option("--data", help="digits, cifar10:FOLDER or imagefolder:PATH, options behind ?.")]
DeviceName = Annotated[str, typer.Option("--device", help="cpu, cpu+torch, cuda:0+torch, cpu+onnxruntime?threads=2.")]


def command(group: typer.Typer, name: str, example: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command: its help ends in an example, what the user can mend is one line and exit code 2."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                function(*args, **kwargs)
            except HwnasError as error:
                fail(str(error))
            except KeyboardInterrupt:
                print("hwnas: interrupted; the same command goes on from here", file=sys.stderr)
                raise typer.Exit(130) from None
            except BrokenPipeError:
                raise typer.Exit(0) from None
            except OSError as error:
                fail(f"{error.filename or 'a file'}: {error.strerror or error}")

        return group.command(name, epilog=f"Example: `{example}`")(guarded)

    return register


def fail(line: str) -> None:
    print(f"hwnas: error: {' '.join(line.split())}", file=sys.stderr)
    raise typer.Exit(2)


def show_json(value: Any) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else 150
    Console(width=width).print(table)


def chosen_setting(
    space: SearchSpace, name: str | None, channels: int | None, layers: int | None, **shape: int | None
) -> Setting:
    return space.setting(name or space.search_setting, channels=channels, depth=layers, **shape)


def parse_input(text: str | None) -> dict[str, int | None]:
    """``3x32x32`` as the setting's fields."""
    if text is None:
        return {}
    sizes = text.split("x")
    if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
        raise HwnasError(f"cannot read input shape {text!r}", "write CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    return dict(zip(("image_channels", "height", "width"), map(int, sizes), strict=True))


@command(app, "profile", "hwnas profile --device cpu --space nasbench201 --out cpu.json")
def profile_command(
    out: Annotated[Path, typer.Option(help="The table to write; what it already holds is kept.")],
    space: SpaceName = "nasbench201",
    device: DeviceName = "cpu",
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: Annotated[str | None, typer.Option("--input", help="Image shape, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds over all workloads.")] = 30,
    fit_networks: Annotated[int, typer.Option(min=2, help="Whole networks the correction is fitted on.")] = 10,
    report_networks: Annotated[int, typer.Option(min=2, help="Others on which it is judged.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Measure every workload of a space on a device and write a latency table."""
    from hwnas.cost.networks import network_key
    from hwnas.profiling.device import parse_device
    from hwnas.profiling.profile import ProfilePlan, profile
    from hwnas.progress import Progress
    from hwnas.spaces import get_space

    chosen = get_space(space)
    sizes = chosen_setting(chosen, setting, channels, layers, classes=classes, **parse_input(input_shape))
    plan = ProfilePlan(parse_device(device), chosen, sizes, rounds, fit_networks, report_networks)
    with Progress() as progress:
        table = profile(plan, out, progress)
    key = network_key(chosen, sizes)
    report = table.quality.additivity.get(key)
    if as_json:
        show_json({"table": str(out), "entries": len(table.entries), "quality": table.quality.model_dump(mode="json")})
        return
    print(f"{out}: {len(table.entries)} workloads on {table.describe()}")
    if report:
        print(
            f"{report.networks} held-out networks: mean error {report.mape:.1f} %, "
            f"{report.within_10_percent:.0%} within 10 %, "
            f"Kendall tau {report.kendall_tau:.3f} (the same networks timed twice: {report.floor:.1f} %)"
        )
    if table.quality.unstable:
        print(f"unstable entries: {', '.join(table.quality.unstable)}; to settle them: rm {out}, --rounds {2 * rounds}")
    print(f"next: hwnas search --space {space} --table {out} --budget moderate --out runs/first")


@command(table_app, "show", "hwnas table show cpu.json")
def table_show(table: Annotated[Path, typer.Argument(help="A latency table.")], as_json: AsJson = False) -> None:
    """Print a latency table: the device, how it was measured, how far to trust it, every entry."""
    from hwnas.tables.io import read_table

    content = read_table(table)
    if as_json:
        show_json({**content.content(), "sha256": content.sha256})
        return
    protocol, quality = content.protocol, content.quality
    print(f"{table}: {content.provenance} on {content.describe()}")
    print(f"{content.device.os}, {content.device.cores} cores; {protocol.date}, hwnas {protocol.tool_version}")
    print(f"{protocol.rounds} rounds; {protocol.statistic}")
    for key, report in quality.additivity.items():
        correction = content.correction[key]
        print(
            f"{key}: {report.networks} held-out networks, mean error {report.mape:.1f} %, "
            f"{report.within_10_percent:.0%} within 10 %, tau {report.kendall_tau:.3f}, floor {report.floor:.1f} %; "
            f"latency = {correction.offset_ms:.4g} ms + {correction.scale:.4g} x sum"
        )
    rows = [
        [
            e.op,
            f"{e.in_channels} > {e.out_channels}",
            f"{e.height}x{e.width}",
            str(e.stride),
            *(f"{ms:.4f}" for ms in (e.latency_ms, e.p10_ms, e.p90_ms)),
            *(f"{number:,}" for number in (e.macs, e.params)),
        ]
        for e in sorted(content.entries, key=lambda e: e.workload)
    ]
    columns = ["op", "channels", "input", "stride", "latency ms", "p10", "p90", "MACs (fvcore)", "params"]
    show_table("", columns, rows)
    print(f"sha256 {content.sha256}")


@command(table_app, "predict", "hwnas table predict cpu.json --architectures cells.txt")
def table_predict(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    architectures: Annotated[Path, typer.Option(help="A text file, one architecture a line.")],
    space: TableSpace = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: Annotated[str | None, typer.Option("--input", help="Image shape, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Predict latency, MACs and parameters of architectures from a table."""
    from hwnas.cost.budget import format_amount
    from hwnas.cost.model import build_cost_models, encode
    from hwnas.cost.networks import choose_network
    from hwnas.tables.io import read_table

    content, shape = read_table(table), parse_input(input_shape)
    chosen, sizes = choose_network(content, space, setting, channels=channels, depth=layers, classes=classes, **shape)
    models = build_cost_models(content, chosen, sizes)
    try:
        lines = [line.strip() for line in architectures.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise HwnasError(f"{architectures} is not a text file") from None
    if not lines:
        raise HwnasError(f"{architectures} holds no architecture", "write one a line")
    choices = encode(chosen, [chosen.parse(line) for line in lines])
    costs = {metric: model.predict_many(choices) for metric, model in models.items()}
    rows: list[dict[str, Any]] = [
        {
            "architecture": line,
            "latency_ms": float(costs["latency_ms"][i]),
            "macs": round(float(costs["macs"][i])),
            "params": round(float(costs["params"][i])),
        }
        for i, line in enumerate(lines)
    ]
    if as_json:
        show_json(rows)
        return
    columns = ["architecture", "latency", f"MACs ({chosen.macs_convention})", "params"]
    show_table(
        "",
        columns,
        [[r["architecture"], *(format_amount(m, r[m]) for m in ("latency_ms", "macs", "params"))] for r in rows],
    )


@command(space_app, "count", "hwnas space count --space darts --architecture DARTS_V2 --channels 36 --layers 20")
def space_count(
    architecture: Annotated[str, typer.Option(help="In the space's notation, or a published name such as DARTS_V2.")],
    space: SpaceName = "nasbench201",
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-accumulates of an architecture's network, exactly."""
    from hwnas.networks.child import ChildNetwork
    from hwnas.networks.count import count_network
    from hwnas.spaces import get_space

    chosen = get_space(space)
    name = setting or chosen.evaluation_setting(architecture)
    sizes = chosen_setting(chosen, name, channels, layers)
    counts = count_network(ChildNetwork(chosen, chosen.parse(architecture), sizes))
    convention = chosen.macs_convention
    if as_json:
        show_json(
            {
                "space": space,
                "architecture": chosen.format(chosen.parse(architecture)),
                "setting": name,
                "channels": sizes.channels,
                "layers": sizes.depth,
                "params": counts.params,
                "macs": counts.macs(convention),
                "macs_convention": convention,
                "macs_fvcore": counts.macs_fvcore,
                "macs_conv_linear": counts.macs_conv_linear,
            }
        )
        return
    print(f"{chosen.format(chosen.parse(architecture))}")
    print(f"{name}: {sizes.describe()}")
    mark = {c: "  <- the space's convention" if c == convention else "" for c in ("fvcore", "conv_linear")}
    print(f"params {counts.params:>15,}  without auxiliary head")
    print(f"macs   {counts.macs_fvcore:>15,}  as fvcore counts them, batch norm included{mark['fvcore']}")
    print(
        f"macs   {counts.macs_conv_linear:>15,}  convolutions and classifier with its bias alone{mark['conv_linear']}"
    )


@command(space_app, "show", "hwnas space show --space darts")
def space_show(space: SpaceName = "nasbench201", as_json: AsJson = False) -> None:
    """Describe a space: operations, cells, named sizes."""
    from hwnas.spaces import get_space

    chosen = get_space(space)
    if as_json:
        show_json(
            {
                "space": chosen.name,
                "operations": chosen.operations,
                "architectures": chosen.num_architectures,
                "cells": {k: {"edges": c.edges, "outputs": c.outputs} for k, c in chosen.cells.items()},
                "settings": {name: vars(s) for name, s in chosen.settings.items()},
                "published": dict(chosen.published),
            }
        )
        return
    print(f"{chosen.name}: {chosen.num_architectures:,} architectures")
    print(f"operations: {', '.join(chosen.operations)}")
    for kind, cell in chosen.cells.items():
        print(f"cell {kind}: {len(cell.edges)} edges {' '.join(f'{a}>{b}' for a, b in cell.edges)}")
    for name, sizes in chosen.settings.items():
        marks = " (searches use this)" * (name == chosen.search_setting)
        print(f"setting {name}: {sizes.describe()}{marks}")
    if chosen.published:
        print(f"published cells by name: {', '.join(chosen.published)}")


@command(space_app, "preview", "hwnas space preview --table cpu.json --budget 60% --budget 300k-params")
def space_preview(
    table: TablePath,
    space: TableSpace = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: Annotated[str | None, typer.Option("--input", help="Image shape, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    budget: Annotated[list[str] | None, typer.Option(help="Also say what this budget allows.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how cost is spread over a space on a device, and what a budget allows."""
    from hwnas.cost.budget import format_amount, parse_budget, preview, share_within
    from hwnas.cost.model import build_cost_models
    from hwnas.cost.networks import choose_network
    from hwnas.tables.io import read_table

    content, shape = read_table(table), parse_input(input_shape)
    chosen, sizes = choose_network(content, space, setting, channels=channels, depth=layers, classes=classes, **shape)
    previews = preview(build_cost_models(content, chosen, sizes))
    budgets = [parse_budget(text, previews) for text in budget or []]
    quartiles = ((25.0, "aggressive"), (50.0, "moderate"), (75.0, "mild"))
    spread = {
        metric: {"least": p.least, **{n: p.percentile(q) for q, n in quartiles}, "greatest": p.greatest}
        | {f"{n}_standard_error": p.percentile_error(q) for q, n in quartiles if not p.exact}
        for metric, p in previews.items()
    }
    allowed = [
        {"budget": b.text, "limits": dict(b.limits), "share_of_architectures": share_within(previews, b)}
        for b in budgets
    ]
    if as_json:
        show_json({"space": chosen.name, "exact": previews["latency_ms"].exact, "metrics": spread, "budgets": allowed})
        return
    how = "every architecture" if previews["latency_ms"].exact else "20,000 random architectures; ends exact"
    columns = ["metric", "least", "aggressive (25 %)", "moderate (50 %)", "mild (75 %)", "greatest"]
    names = ("least", "aggressive", "moderate", "mild", "greatest")
    rows = [[metric, *(format_amount(metric, values[n]) for n in names)] for metric, values in spread.items()]
    show_table(f"{chosen.name}, {sizes.describe()}: {how}", columns, rows)
    for row, b in zip(allowed, budgets, strict=True):
        print(f"budget {b.text}: {b.describe()}: {row['share_of_architectures']:.2%} of the architectures keep it")


@command(app, "search", "hwnas search --table cpu.json --budget mild --budget 4.5ms,2M-params --out runs/a")
def search_command(
    table: TablePath,
    out: Annotated[Path, typer.Option(help="The folder of the run; the same command goes on where it was stopped.")],
    budget: Annotated[
        list[str] | None,
        typer.Option(help="mild, moderate, aggressive, 4.5ms, 60%, 300M-macs; repeat for more targets."),
    ] = None,
    space: TableSpace = None,
    data: DataSpec = "digits",
    method: Annotated[str, typer.Option(help="The search method.")] = "snas",
    recipe: Annotated[
        str | None,
        typer.Option(help="A name in configs/search or a YAML file; by default snas, on digits snas-short."),
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the search.")] = None,
    child_epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of each child's training.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    fixed_lambda: Annotated[
        float | None, typer.Option("--lambda", min=0, help="Fix the penalty's weight, as the papers do.")
    ] = None,
    verify: Annotated[bool, typer.Option(help="Time the networks; derive again if one is over its budget.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search architectures within budgets, train them, write ONNX."""
    from hwnas.cost.networks import choose_network
    from hwnas.progress import Progress
    from hwnas.recipe import read_recipe
    from hwnas.run import Question, answer
    from hwnas.tables.io import read_table

    if method != "snas":
        raise HwnasError(f"unknown method {method!r}", "use snas")
    changes: dict[str, Any] = {"epochs": epochs, "child.epochs": child_epochs, "batch_size": batch_size, "seed": seed}
    if fixed_lambda is not None:
        changes |= {"penalty.mode": "fixed", "penalty.weight": fixed_lambda}
    settings = read_recipe(recipe or ("snas-short" if data.startswith("digits") else "snas"), changes)
    content = read_table(table)
    chosen, sizes = choose_network(content, space, setting, channels=channels, depth=layers)
    question = Question(chosen, sizes, content, data, budget or ["moderate"], settings, verify)
    with Progress() as progress:
        rows = answer(question, out, progress)
    if as_json:
        show_json({"targets": rows})
    else:
        show_results(rows)
        print(f"next: hwnas verify {out}")
    if any(row.get("kept") is False for row in rows):
        raise typer.Exit(1)


def show_results(rows: list[dict[str, Any]]) -> None:
    """The closing table."""
    from hwnas.cost.budget import format_amount

    shown = []
    for row in rows:
        measured = "-"
        if row.get("measured_ms") is not None:
            measured = f"{row['measured_ms']:.4g} ± {row['measured_error_ms']:.2g} ms" + (" over" * (not row["kept"]))
        limits = ", ".join(format_amount(m, v) for m, v in row["limits"].items())
        shown.append(
            [
                row["budget"],
                limits,
                f"{row['predicted_ms']:.4g} ms",
                measured,
                f"{row['macs'] / 1e6:.2f} M",
                f"{row['params'] / 1e6:.4f} M",
                f"{row['validation_accuracy_before_training']:.1%}",
                f"{row['validation_accuracy']:.1%}",
                f"{row['accuracy']:.1%}",
            ]
        )
    columns = ["budget", "limit", "predicted", "measured", "MACs", "params"]
    columns += ["val. before training", "val. after", "test accuracy"]
    show_table("", columns, shown)
    for row in rows:
        print(f"{row['budget']}: {row['architecture']}  {row['onnx']}")


@command(app, "verify", "hwnas verify runs/a --device cpu")
def verify_command(
    folder: Annotated[Path, typer.Argument(help="A run of hwnas search, or one budget's folder in it.")],
    device: Annotated[str | None, typer.Option(help="Where to time; by default the table's own device.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time exported networks again; exit code 1 when one breaks its budget by more than the measurement's error."""
    from hwnas.profiling.device import parse_device
    from hwnas.progress import Progress
    from hwnas.run import verify_run

    with Progress() as progress:
        rows = verify_run(folder, parse_device(device) if device else None, progress)
    if as_json:
        show_json({"targets": rows})
    else:
        columns = ["budget", "limit", "predicted", "measured", "clock says", "kept"]
        shown = [
            [
                r["budget"],
                f"{r['budget_ms']:.4g} ms" if r["budget_ms"] else "-",
                f"{r['predicted_ms']:.4g} ms",
                f"{r['measured_ms']:.4g} ± {r['measured_error_ms']:.2g} ms",
                f"{r['measured_raw_ms']:.4g} ms",
                "yes" if r["kept"] else "NO",
            ]
            for r in rows
        ]
        show_table("", columns, shown)
        print(
            f"The machine runs at {1 / rows[0]['machine_slowdown']:.0%} of its speed when the table was measured; "
            "'measured' has this divided out."
        )
    if not all(row["kept"] for row in rows):
        raise typer.Exit(1)


@command(app, "train", "hwnas train runs/a/moderate --epochs 20")
def train_command(
    folder: Annotated[Path, typer.Argument(help="A run of hwnas search, or one budget's folder in it.")],
    epochs: Annotated[int, typer.Option(min=1, help="Epochs, from the weights that are there.")] = 20,
    learning_rate: Annotated[float, typer.Option(min=1e-9, help="SGD's first rate; a cosine takes it to 0.")] = 0.025,
    data: Annotated[str | None, typer.Option(help="By default the data of the search.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Train derived networks further and export them again."""
    from hwnas.progress import Progress
    from hwnas.training.further import train_further

    with Progress() as progress:
        rows = train_further(folder, epochs, learning_rate, data, seed, progress)
    if as_json:
        show_json({"targets": rows})
        return
    for r in rows:
        print(
            f"{r['budget']}: validation {r['validation_accuracy_before_training']:.1%} -> "
            f"{r['validation_accuracy']:.1%}, test {r['accuracy']:.1%}; {r['onnx']}"
        )
    print(f"next: hwnas verify {folder}")


@command(app, "evaluate", "hwnas evaluate runs/a --split test")
def evaluate_command(
    folder: Annotated[Path, typer.Argument(help="A run of hwnas search, or one budget's folder in it.")],
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    data: Annotated[str | None, typer.Option(help="By default the data of the search.")] = None,
    as_json: AsJson = False,
) -> None:
    """Accuracy of exported networks: the ONNX files themselves through ONNX Runtime, and torch beside them."""
    from hwnas.progress import Progress
    from hwnas.training.further import evaluate

    with Progress() as progress:
        rows = evaluate(folder, split, data, progress)
    if as_json:
        show_json({"split": split, "targets": rows})
        return
    columns = ["budget", "images", "ONNX Runtime", "torch"]
    shown = [[r["budget"], f"{r['images']:,}", f"{r['onnx_accuracy']:.2%}", f"{r['torch_accuracy']:.2%}"] for r in rows]
    show_table(f"accuracy on the {split} images", columns, shown)


@command(app, "export", "hwnas export --space darts --architecture DARTS_V2 --out darts_v2.onnx")
def export_command(
    architecture: Annotated[str, typer.Option(help="In the space's notation, or a published name such as DARTS_V2.")],
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    space: SpaceName = "nasbench201",
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: Annotated[str | None, typer.Option("--input", help="Image shape, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random weights.")] = 0,
) -> None:
    """Export an architecture with random weights, to time it or train it elsewhere."""
    import torch

    from hwnas.export.network import export_network
    from hwnas.networks.child import ChildNetwork
    from hwnas.networks.serialize import OPSET
    from hwnas.spaces import get_space

    chosen = get_space(space)
    name = setting or chosen.evaluation_setting(architecture)
    sizes = chosen_setting(chosen, name, channels, layers, classes=classes, **parse_input(input_shape))
    torch.manual_seed(seed)
    network = ChildNetwork(chosen, chosen.parse(architecture), sizes, prune=True)
    text = chosen.format(chosen.parse(architecture))
    export_network(network, out, {"space": space, "architecture": text, "weights": f"random, seed {seed}"})
    print(f"{out}: {sizes.describe()}, random weights, opset {OPSET}, dynamic batch")


@command(app, "demo", "hwnas demo --out runs/demo")
def demo_command(
    out: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/demo"), as_json: AsJson = False
) -> None:
    """The whole flow in a few minutes on embedded images: profile this machine, search three budgets, verify."""
    from hwnas.demo import run_demo
    from hwnas.progress import Progress

    with Progress() as progress:
        rows = run_demo(out, progress)
    if as_json:
        show_json({"targets": rows})
    else:
        show_results(rows)
        print(f"made {out}/summary.json; next: hwnas table show {out}/table.json, or hwnas profile --help")
    if any(row["kept"] is False for row in rows):
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from hwnas import __version__

        print(f"hwnas {__version__}")
        raise typer.Exit


def main() -> None:
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for plugins takes a tenth of a start
    app()
