"""``hwnas search``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import (
    AsJson,
    Channels,
    Classes,
    ComputeName,
    DataSpec,
    ExecutorName,
    InputShape,
    Layers,
    PrecisionName,
    PretrainedWeights,
    SearchChannels,
    SearchInput,
    SearchLayers,
    SearchSetting,
    SettingName,
    TableSpace,
    TargetData,
    parse_input,
)
from hwnas.cli.output import open_tables, show_json
from hwnas.cli.results import show_results
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.runs.schema import SummaryRow

Tables = Annotated[
    list[Path],
    typer.Option(
        "--table",
        help="A latency table, or shipped:NAME; repeat it for more devices. Each gets every budget without @.",
    ),
]
Out = Annotated[Path, typer.Option(help="The folder of the run; repeat the command to resume.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        help="mild, moderate, 4.5ms, 60%, 300M-macs, 40MB-memory-access, 2MB-peak-memory; repeat it for more "
        "targets. 4ms@phone,3ms@cpu, with names of table files, gives one network for these devices."
    ),
]
Method = Annotated[
    str | None, typer.Option(help="snas (the default), drnas, advantagenas, entrannas, … (docs/methods).")
]
RecipeName = Annotated[
    str | None,
    typer.Option(help="A name in configs/search or a YAML file; default: that of the method, a short one for digits."),
]
Plugin = Annotated[
    Path | None,
    typer.Option(help="A Python file of yours that registers choices of recipes, or operations. The command runs it."),
]
Kernels = Annotated[
    str | None,
    typer.Option(
        help="torch, or compiled: kernels of the supernet that are compiled on this machine; default: auto, the faster."
    ),
]
Finalists = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Architectures within each budget that are trained for some epochs; the best by this evidence is chosen. "
        "0: none; default: 12 where that takes at most about 10 minutes of one processor core.",
    ),
]
Baselines = Annotated[
    bool | None,
    typer.Option(
        "--baselines/--no-baselines",
        help="Also train a random network within each budget and those of most MACs and most parameters, as long as "
        "the finalists; default: where they take at most half as many epochs.",
    ),
]
FixedLambda = Annotated[
    float | None, typer.Option("--lambda", min=0, help="Fix the weight of the penalty, as in the papers.")
]

ProfileSteps = Annotated[bool, typer.Option("--profile", help="Profile a few search steps; traces in OUT/profile.")]


@command(
    app,
    "search",
    "hwnas search --table cpu.json --budget mild --budget 4.5ms,2M-params --out runs/a",
    resumes=True,
    distributed=True,
)
def search_command(
    table: Tables,
    out: Out,
    budget: Budgets = None,
    space: TableSpace = None,
    data: DataSpec = "digits",
    target_data: TargetData = None,
    method: Method = None,
    recipe: RecipeName = None,
    plugin: Plugin = None,
    weights: PretrainedWeights = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    search_setting: SearchSetting = None,
    search_channels: SearchChannels = None,
    search_layers: SearchLayers = None,
    search_input: SearchInput = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of the search.")] = None,
    child_epochs: Annotated[int | None, typer.Option(min=0, help="Epochs of training each network.")] = None,
    finalists: Finalists = None,
    baselines: Baselines = None,
    executor: ExecutorName = "local",
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images, or windows of words, in a step.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random numbers.")] = None,
    compute: ComputeName = None,
    precision: PrecisionName = None,
    kernels: Kernels = None,
    fixed_lambda: FixedLambda = None,
    verify: Annotated[bool, typer.Option(help="Time the networks; derive again when one is over its budget.")] = False,
    profile: ProfileSteps = False,
    as_json: AsJson = False,
) -> None:
    """Search architectures within budgets, train them, and export them to ONNX.

    Budgets are about the target network, that of the table. A larger one is searched with a smaller network and
    exported untrained: `hwnas train` trains it.

    Several processes can share the images of every step: `torchrun --nproc-per-node 2 -m hwnas search …`.
    """
    from hwnas import api
    from hwnas.progress import Progress

    tables, shape = open_tables(table), parse_input(input_shape)
    inputs: Any = {"space": space, "data": data, "target_data": target_data, "verify": verify}
    target: Any = {"setting": setting, "channels": channels, "layers": layers, "input_shape": shape, "classes": classes}
    small: Any = {"search_setting": search_setting, "search_channels": search_channels, "search_layers": search_layers}
    small["search_input"] = parse_input(search_input)
    rules = {"method": method, "recipe": recipe, "plugin": plugin, "weights": weights, "fixed_lambda": fixed_lambda}
    counts: Any = {"epochs": epochs, "child_epochs": child_epochs, "finalists": finalists, "baselines": baselines}
    counts |= {"executor": executor, "batch_size": batch_size, "seed": seed}
    computing = {"compute": compute, "precision": precision, "kernels": kernels, "profile_steps": profile}
    settings: Any = {**inputs, **target, **small, **rules, **counts, **computing}
    with Progress() as progress:
        rows = api.search(tables, out, budget or ["moderate"], **settings, progress=progress)
    _finish(rows, out, as_json)


def _following(rows: list[SummaryRow], out: Path) -> str:
    """Return the command that follows a search."""
    if all(row.trained for row in rows):
        return f"hwnas verify {quoted(out)}"
    no_images = any(row.parity and row.parity.random_images for row in rows)
    return f"hwnas train {quoted(out)}" + " --data DATA" * no_images


def _finish(rows: list[SummaryRow], out: Path, as_json: bool) -> None:
    """Print the targets; exit code 1 when a verified network breaks its budget."""
    if as_json:
        show_json({"targets": rows})
    else:
        show_results(rows)
        print(f"next: {_following(rows, out)}")
    if any(row.kept is False for row in rows):
        raise typer.Exit(1)
