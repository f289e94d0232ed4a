"""``hwnas prune``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson, ComputeName, OtherData, PrecisionName, RunFolder
from hwnas.cli.output import show_json
from hwnas.cli.results import show_timing, timings_of
from hwnas.cli.train import RecipeName
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.runs.schema import NetworkRow

PruningBudget = Annotated[
    str, typer.Option("--budget", help="50%-macs, 120M-macs, 70% (of the latency measured now) or 4.5ms.")
]
MaskEpochs = Annotated[
    int, typer.Option(min=1, help="Epochs in which channels leave one after another while the weights are trained.")
]
Multiple = Annotated[
    int, typer.Option(min=1, help="Keep widths to multiples of this, such as 8, which some devices compute faster.")
]


@command(app, "prune", "hwnas prune runs/a/moderate --budget 50%-macs", resumes=True)
def prune_command(
    folder: RunFolder,
    budget: PruningBudget,
    multiple: Multiple = 1,
    mask_epochs: MaskEpochs = 10,
    distil: Annotated[
        bool, typer.Option("--distil", help="Let the network that is pruned teach the narrower one, by its scores.")
    ] = False,
    recipe: RecipeName = "quick",
    epochs: Annotated[
        int | None,
        typer.Option(min=0, help="Epochs that train the narrower network; the schedules are scaled to them."),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, help="First learning rate of the schedule.")] = None,
    compute: ComputeName = None,
    precision: PrecisionName = None,
    data: OtherData = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random numbers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make trained networks narrower, layer by layer, until they keep a budget; then train and export them again.

    Channels leave whose masks matter least to the loss for what they cost. For a budget in milliseconds narrower
    networks are timed on the device, so it has to be this machine. A pruned network has a folder of its own, in that of
    the network it comes from, for `hwnas train`, `evaluate`, `verify` and `export`. Exit code 1 when it breaks its
    budget.
    """
    from hwnas import api
    from hwnas.progress import Progress

    with Progress() as progress:
        rows = api.prune(
            folder,
            budget,
            recipe,
            epochs=epochs,
            mask_epochs=mask_epochs,
            multiple=multiple,
            distil=distil,
            data=data,
            batch_size=batch_size,
            learning_rate=learning_rate,
            compute=compute,
            precision=precision,
            seed=seed,
            progress=progress,
        )
    if as_json:
        show_json({"targets": rows})
    else:
        _show_pruned(rows)
    if any(timing.kept is False for row in rows for timing in timings_of(row)):
        raise typer.Exit(1)


def _show_pruned(rows: list[NetworkRow]) -> None:
    from hwnas.cost.metric import MACS

    for row in rows:
        pruning = row.pruning
        assert pruning
        name = f"{row.target} to {row.budget}"
        print(
            f"{name}: {MACS.format(pruning.macs_before)} -> {MACS.format(row.macs)}, "
            f"{pruning.params_before / 1e6:.4g} M -> {row.params / 1e6:.4g} M params; "
            f"validation {pruning.validation_accuracy_before:.1%} -> {row.validation_accuracy:.1%}, "
            f"test {row.accuracy:.1%}; {row.onnx}"
        )
        for timing in timings_of(row):
            show_timing(name + f" on {timing.device}" * (len(timings_of(row)) > 1), timing)
    folder = Path(rows[0].onnx).parent
    timed = all(timing.measured_ms is not None for row in rows for timing in timings_of(row))
    print(f"next: hwnas {'evaluate' if timed else 'verify'} {quoted(folder)}")
