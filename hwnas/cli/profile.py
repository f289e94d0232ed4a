"""``hwnas profile``"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import (
    AsJson,
    Channels,
    Classes,
    DeviceName,
    InputShape,
    Layers,
    SettingName,
    SpaceName,
    parse_input,
)
from hwnas.cli.output import show_json
from hwnas.text import duration, quoted

if TYPE_CHECKING:
    from hwnas.tables.schema import LatencyTable


@command(app, "profile", "hwnas profile --device cpu --space nasbench201 --out cpu.json", resumes=True)
def profile_command(
    out: Annotated[Path, typer.Option(help="The latency table to write; entries it already has are kept.")],
    space: SpaceName = "nasbench201",
    device: DeviceName = "cpu",
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds over all workloads.")] = 30,
    fit_networks: Annotated[int, typer.Option(min=2, help="Whole networks that the correction is fitted on.")] = 30,
    report_networks: Annotated[int, typer.Option(min=2, help="Other networks that measure its accuracy.")] = 40,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Start no profiler process that would end later; unfinished entries are marked."),
    ] = None,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Time the unstable entries of a table again.")] = False,
    accept_noise: Annotated[
        bool, typer.Option("--accept-noise", help="Write a table even on a noisy machine, and mark it.")
    ] = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Only say how much there is to time and how long it takes.")
    ] = False,
    licence: Annotated[str, typer.Option(help="The table's licence, for sharing it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Measure every workload of a space on a device and write a latency table."""
    sizes: Any = {"setting": setting, "channels": channels, "layers": layers, "classes": classes}
    sizes["input_shape"] = parse_input(input_shape)
    counts: Any = {"rounds": rounds, "fit_networks": fit_networks, "report_networks": report_networks}
    rules: Any = {"minutes": minutes, "remeasure": remeasure, "accept_noise": accept_noise}
    if only_plan:
        _forecast(out, device, space, {**sizes, **counts, **rules}, as_json)
    else:
        _profile(out, device, space, sizes, {**counts, **rules, "licence": licence}, as_json)


def _forecast(out: Path, device: str, space: str, options: Mapping[str, Any], as_json: bool) -> None:
    from hwnas import api
    from hwnas.progress import Progress

    with Progress() as progress:
        forecast = api.forecast_profile(out, device, space, **options, progress=progress)
    if as_json:
        show_json({**asdict(forecast), "seconds": forecast.seconds})
        return
    print(forecast.describe())
    print("next: the same command without --plan")


def _profile(
    out: Path, device: str, space: str, sizes: Mapping[str, Any], options: Mapping[str, Any], as_json: bool
) -> None:
    from hwnas import api
    from hwnas.progress import Progress

    start_s, before = time.monotonic(), out.read_bytes() if out.is_file() else None
    with Progress() as progress:
        table = api.profile(out, device, space, **sizes, **options, progress=progress)
    if as_json:
        show_json({"table": str(out), "entries": len(table.entries), "quality": table.quality.model_dump(mode="json")})
        return
    done = "nothing was lacking" if out.read_bytes() == before else f"in {duration(time.monotonic() - start_s)}"
    print(f"{out}: {len(table.entries)} workloads on {table.describe()}, {done}")
    _show_quality(table, api.sized_space(space, **sizes).key)
    print(f"next: hwnas search --space {quoted(space)} --table {quoted(out)} --budget moderate --out runs/first")


def _show_quality(table: LatencyTable, network: str) -> None:
    """Print the accuracy on whole networks, the table's warnings, and the unstable entries."""
    if report := table.quality.additivity.get(network):
        print(report.describe())
    if residual := table.quality.residual.get(network):
        print(f"with the residual predictor: {residual.describe()}")
    for warning in table.warnings:
        print(warning)
    if unstable := table.quality.unstable:
        shown = ", ".join(unstable[:5]) + (f" and {len(unstable) - 5} more" if len(unstable) > 5 else "")
        print(f"{len(unstable)} entries have an error above 2 %: {shown}; --remeasure times them again")
