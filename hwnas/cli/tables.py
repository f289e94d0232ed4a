"""``hwnas profile`` and ``hwnas table …``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli.common import (
    AsJson,
    Channels,
    Classes,
    DeviceName,
    InputShape,
    Layers,
    SettingName,
    SpaceName,
    TableSpace,
    app,
    chosen_setting,
    command,
    parse_input,
    show_json,
    show_table,
    table_app,
)
from hwnas.errors import HwnasError


@command(app, "profile", "hwnas profile --device cpu --space nasbench201 --out cpu.json")
def profile_command(
    out: Annotated[Path, typer.Option(help="The table to write; what it already holds is kept.")],
    space: SpaceName = "nasbench201",
    device: DeviceName = "cpu",
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    rounds: Annotated[int, typer.Option(min=3, help="Interleaved rounds over all workloads.")] = 30,
    fit_networks: Annotated[int, typer.Option(min=2, help="Whole networks the correction is fitted on.")] = 10,
    report_networks: Annotated[int, typer.Option(min=2, help="Others on which it is judged.")] = 20,
    licence: Annotated[str, typer.Option(help="Written into the table, for those you share it with.")] = "",
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
    plan = ProfilePlan(parse_device(device), chosen, sizes, rounds, fit_networks, report_networks, licence)
    with Progress() as progress:
        table = profile(plan, out, progress)
    key = network_key(chosen, sizes)
    report = table.quality.additivity.get(key)
    if as_json:
        show_json({"table": str(out), "entries": len(table.entries), "quality": table.quality.model_dump(mode="json")})
        return
    print(f"{out}: {len(table.entries)} workloads on {table.describe()}")
    if report:
        print(report.describe())
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
        fit = f"latency = {correction.offset_ms:.4g} ms + {correction.scale:.4g} x sum"
        print(f"{key}: {report.describe()}; {fit}")
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
    input_shape: InputShape = None,
    classes: Classes = None,
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
