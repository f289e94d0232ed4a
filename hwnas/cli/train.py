"""``hwnas train``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import (
    AsJson,
    Channels,
    ComputeName,
    Layers,
    OtherData,
    PrecisionName,
    PretrainedWeights,
    RunFolder,
)
from hwnas.cli.output import show_json
from hwnas.cli.results import name_of, name_on, show_timing, timings_of
from hwnas.text import describe_quality, quoted

if TYPE_CHECKING:
    from hwnas.runs.schema import NetworkRow

RecipeName = Annotated[
    str, typer.Option(help="quick, darts-cifar10, snas-cifar10, imagenet-mobile, nasbench201, or a YAML file.")
]
FromScratch = Annotated[
    bool | None,
    typer.Option(
        "--from-scratch/--from-supernet",
        help="Start from random weights or from those of the run; default: as in the recipe.",
    ),
]
TrainingSetting = Annotated[
    str | None,
    typer.Option(
        "--setting",
        help="Named sizes of the space, such as imagenet-mobile; as-searched keeps those of the target network.",
    ),
]

TeacherName = Annotated[
    str | None,
    typer.Option("--teacher", help="Learn from a teacher: FILE.onnx, python:module:function or a run's network."),
]
MovingAverage = Annotated[
    float | None, typer.Option(help="Evaluate and export a moving average of the weights, such as 0.9999.")
]
Patience = Annotated[
    int | None, typer.Option(min=1, help="Stop after this many epochs without a better validation result.")
]


@command(app, "train", "hwnas train runs/a/moderate --recipe darts-cifar10", resumes=True, distributed=True)
def train_command(
    folder: RunFolder,
    recipe: RecipeName = "quick",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; the schedules are scaled to them.")] = None,
    from_scratch: FromScratch = None,
    weights: PretrainedWeights = None,
    teacher: TeacherName = None,
    setting: TrainingSetting = None,
    channels: Channels = None,
    layers: Layers = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Images, or windows of words, in a step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=1e-9, help="First learning rate of the schedule.")] = None,
    compute: ComputeName = None,
    precision: PrecisionName = None,
    ema: MovingAverage = None,
    keep: Annotated[str | None, typer.Option(help="Weights to export: last, or best on the validation split.")] = None,
    patience: Patience = None,
    data: OtherData = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of all random numbers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train the networks of a run and export them again, from their weights or from scratch as in the papers.

    A target network that the search left untrained is trained from scratch, timed on this machine if that is its
    device, and compared with its budget: exit code 1 when it breaks it. A network of other sizes gets a folder of its
    own and claims no budget. Several processes can share the images of every step:
    `torchrun --nproc-per-node 2 -m hwnas train …`.
    """
    from hwnas import api
    from hwnas.progress import Progress

    with Progress() as progress:
        rows = api.train(
            folder,
            recipe,
            data=data,
            epochs=epochs,
            from_scratch=from_scratch,
            weights=weights,
            teacher=teacher,
            setting=setting,
            channels=channels,
            layers=layers,
            batch_size=batch_size,
            learning_rate=learning_rate,
            compute=compute,
            precision=precision,
            ema=ema,
            keep=keep,
            patience=patience,
            seed=seed,
            progress=progress,
        )
    if as_json:
        show_json({"targets": rows})
    else:
        _show_training(rows, folder)
    if any(timing.kept is False for row in rows for timing in timings_of(row)):
        raise typer.Exit(1)


def _show_training(rows: list[NetworkRow], folder: Path) -> None:
    for r in rows:
        assert r.training
        stopped = f" (stopped: {r.training.stopped})" * bool(r.training.stopped)
        claim = f"; {r.no_claim}" * bool(r.no_claim)
        before = describe_quality(r.validation_accuracy_before_training, r.validation_perplexity_before_training)
        after = describe_quality(r.validation_accuracy, r.validation_perplexity)
        print(
            f"{name_of(r, rows)}: {r.training.epochs} epochs{stopped}, validation {before} -> {after}, "
            f"test {describe_quality(r.accuracy, r.perplexity)}{claim}; {r.onnx}"
        )
        for timing in timings_of(r):
            show_timing(name_on(r, timing.device, rows), timing)
    other_sizes = [Path(r.onnx).parent for r in rows if r.no_claim]
    timed = all(timing.measured_ms is not None for row in rows for timing in timings_of(row))
    following = f"hwnas evaluate {quoted(folder)}" if timed else f"hwnas verify {quoted(folder)}"
    print(f"next: {f'hwnas evaluate {quoted(other_sizes[0])} --latency' if other_sizes else following}")
