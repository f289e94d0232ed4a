"""``hwnas profile`` and ``hwnas table …``"""

from __future__ import annotations

import math
import time
from dataclasses import asdict
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
    command,
    open_table,
    parse_input,
    show_json,
    show_table,
    table_app,
)
from hwnas.errors import HwnasError


@command(app, "profile", "hwnas profile --device cpu --space nasbench201 --out cpu.json", goes_on=True)
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
    fit_networks: Annotated[int, typer.Option(min=2, help="Whole networks the correction is fitted on.")] = 30,
    report_networks: Annotated[int, typer.Option(min=2, help="Others on which it is judged.")] = 40,
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Begin no process of the profiler that would not end by then; the rest is marked."),
    ] = None,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Time a table's unstable entries again.")] = False,
    accept_noise: Annotated[
        bool, typer.Option("--accept-noise", help="Make a table on a noisy machine all the same; it is marked.")
    ] = False,
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Say how much there is to time and how long it takes.")
    ] = False,
    licence: Annotated[str, typer.Option(help="Written into the table, for those you share it with.")] = "",
    as_json: AsJson = False,
) -> None:
    """Measure every workload of a space on a device and write a latency table."""
    from hwnas.profiling.forecast import duration, forecast_profile
    from hwnas.profiling.plan import ProfilePlan
    from hwnas.profiling.profile import profile
    from hwnas.progress import Progress
    from hwnas.runtimes.device_spec import parse_device
    from hwnas.spaces import SizedSpace, get_space

    shape = parse_input(input_shape)
    sized = SizedSpace.named(get_space(space), setting, channels=channels, depth=layers, classes=classes, **shape)
    longest = math.inf if minutes is None else minutes
    spec = parse_device(device)
    plan = ProfilePlan(spec, sized, rounds, fit_networks, report_networks, longest, remeasure, accept_noise, licence)
    if only_plan:
        with Progress() as progress:
            forecast = forecast_profile(plan, out, progress)
        if as_json:
            show_json({**asdict(forecast), "seconds": forecast.seconds})
            return
        print(forecast.describe())
        print("next: the same command without --plan")
        return
    began, before = time.monotonic(), out.read_bytes() if out.is_file() else None
    with Progress() as progress:
        table = profile(plan, out, progress)
    key = sized.key
    report, residual = table.quality.additivity.get(key), table.quality.residual.get(key)
    if as_json:
        show_json({"table": str(out), "entries": len(table.entries), "quality": table.quality.model_dump(mode="json")})
        return
    done = "nothing was lacking" if out.read_bytes() == before else f"in {duration(time.monotonic() - began)}"
    print(f"{out}: {len(table.entries)} workloads on {table.describe()}, {done}")
    if report:
        print(report.describe())
    if residual:
        print(f"with the residual predictor: {residual.describe()}")
    if warning := table.noise_warning:
        print(warning)
    if unstable := table.quality.unstable:
        shown = ", ".join(unstable[:5]) + (f" and {len(unstable) - 5} more" if len(unstable) > 5 else "")
        print(f"{len(unstable)} entries are known less closely than to 2 %: {shown}; to time them again: --remeasure")
    print(f"next: hwnas search --space {space} --table {out} --budget moderate --out runs/first")


@command(table_app, "show", "hwnas table show cpu.json --plot cpu.png")
def table_show(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    plot: Annotated[Path | None, typer.Option(help="Draw it as a heat map, into a .png or .svg file.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write it as one page: heat maps, predicted against measured networks.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a latency table: the device, how it was measured, how far to trust it, every entry and edge's cost."""
    from hwnas.cli.table_check import show_edge_costs
    from hwnas.text import printable

    content = open_table(table)
    if plot:
        from hwnas.tables.plot import plot_table

        plot_table(content, plot)
    if html:
        from hwnas.report.page import write_table_page

        write_table_page(content, table.stem, html)
    if as_json:
        show_json({**content.content(), "sha256": content.sha256})
        return
    protocol, quality = content.protocol, content.quality
    print(f"{table}: {content.provenance} on {printable(content.describe())}")
    print(
        printable(
            f"{content.device.os}, {content.device.cores or 'unknown'} cores; "
            f"{protocol.date}, hwnas {protocol.tool_version}"
        )
    )
    print(printable(f"{protocol.rounds} rounds; {protocol.statistic}"))
    for key, report in quality.additivity.items():
        print(f"{printable(key)}: {report.describe()}")
        if correction := content.correction.get(key):
            print(f"  {printable(correction.describe())}")
        if key in quality.residual:
            print(f"  with the residual predictor: {quality.residual[key].describe()}")
    rows = [
        [
            printable(e.op),
            f"{e.in_channels} > {e.out_channels}",
            f"{e.height}x{e.width}",
            str(e.stride),
            *(f"{ms:.4f}" for ms in (e.latency_ms, e.p10_ms, e.p90_ms)),
            *(f"{number:,}" for number in (e.macs, e.params)),
        ]
        for e in sorted(content.entries, key=lambda e: e.workload)
    ]
    columns = ["op", "channels", "input", "stride", "latency ms", "p10", "p90", "MACs (fvcore)", "params"]
    if rows:
        show_table("", columns, rows)
    show_edge_costs(content)
    print(f"sha256 {content.sha256}")
    if plot:
        print(f"picture: {plot}")
    if html:
        print(f"page: {html}")


@command(table_app, "check", "hwnas table check cpu.json")
def table_check(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    device: Annotated[str | None, typer.Option(help="The device to time on; by default the table's own, here.")] = None,
    entries: Annotated[int, typer.Option(min=1, help="How many entries to time again.")] = 20,
    only_contents: Annotated[bool, typer.Option("--contents", help="Time nothing.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Entries out of order are a fault, not a warning.")] = False,
    space: TableSpace = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Check a table: its contents first, then a sample of its entries, timed again. Exit code 1 when it fails.

    Contents: the hash, whether it holds all workloads of a network (those it was made for, or the one that the options
    name), whether entries with more channels or a larger image take no less time. Of a table that was fitted,
    transferred or imported, there is no more to check.
    """
    from hwnas.cli.table_check import check_contents, show_contents, why_not_timed
    from hwnas.tables.network_key import choose_network, networks_of
    from hwnas.text import printable

    content, shape = open_table(table), parse_input(input_shape)
    said = (space, setting, channels, layers, input_shape, classes)
    networks = (
        networks_of(content)
        if all(option is None for option in said)
        else [choose_network(content, space, setting, channels=channels, depth=layers, classes=classes, **shape)]
    )
    contents = check_contents(content, networks, table, strict)
    not_timed = why_not_timed(content, contents, only_contents)
    if not as_json:
        print(f"{table}: {content.provenance} on {printable(content.describe())}")
        show_contents(content, contents)
    result = None
    if not not_timed:
        from hwnas.export.timing import spec_of
        from hwnas.profiling.check import check_table
        from hwnas.progress import Progress
        from hwnas.runtimes.device_spec import parse_device

        with Progress() as progress:
            result = check_table(content, parse_device(device) if device else spec_of(content), entries, progress)
    fine = not contents.problems and not (result and result.problems)
    if as_json:
        timing = asdict(result) if result else {"slowdown": None, "entries": [], "problems": []}
        show_json(
            {
                "table": str(table),
                "fine": fine,
                "describes": None if result is None else not result.problems,
                "not_timed": not_timed or None,
                "provenance": content.provenance,
                "contents": asdict(contents),
                **timing,
            }
        )
    elif result is None:
        print(f"not timed again: {not_timed}")
        print("its contents are in order" if fine else f"not in order: {'; '.join(contents.problems)}")
    else:
        print(f"the machine takes {result.slowdown:.3f} times as long as when the table was made (sentinel)")
        columns = ["entry", "table ms", "now ms", "ratio", "+-"]
        rows = [
            [e.key, f"{e.table_ms:.4f}", f"{e.now_ms:.4f}", f"{e.ratio:.3f}", f"{e.tolerance:.3f}"]
            for e in result.entries[:10]
        ]
        show_table("", columns, rows)
        for problem in result.problems:
            print(f"not as the table says: {problem}")
        print(
            f"measure it anew: rm {table}, then 'hwnas profile --out {table}' with its space and device"
            if result.problems
            else f"the table describes this device: {len(result.entries)} entries timed again"
        )
    if not fine:
        raise typer.Exit(1)


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
    """Predict latency, MACs, parameters, memory access and peak memory of architectures from a table.

    Where the table tells how far it is off, +- is half the interval that holds nine in ten latencies.
    Where the table holds whole networks, there is a second latency, with what its residual predictor learnt from them.
    """
    from hwnas.budgets.budget import format_amount
    from hwnas.calibration.intervals import LEVEL, half_intervals
    from hwnas.calibration.residual import fit_residual
    from hwnas.cost.metrics import build_metrics
    from hwnas.spaces.encoding import encode
    from hwnas.tables.network_key import choose_network

    content, shape = open_table(table), parse_input(input_shape)
    sized = choose_network(content, space, setting, channels=channels, depth=layers, classes=classes, **shape)
    models, chosen = build_metrics(content, sized), sized.space
    try:
        lines = [line.strip() for line in architectures.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise HwnasError(f"{architectures} is not a text file") from None
    if not lines:
        raise HwnasError(f"{architectures} holds no architecture", "write one a line")
    choices = encode(chosen, [chosen.parse(line) for line in lines])
    costs = {metric: model.predict_many(choices) for metric, model in models.items()}
    learnt = sized.key in content.networks
    ranked = fit_residual(content, sized).predict_many(choices) if learnt else None
    within = half_intervals(content, sized, choices)
    bytes_of = [metric for metric in costs if metric.endswith("_bytes")]
    rows: list[dict[str, Any]] = [
        {
            "architecture": line,
            "latency_ms": float(costs["latency_ms"][i]),
            **({} if within is None else {"interval_ms": float(within[i]), "interval_level": LEVEL}),
            "macs": round(float(costs["macs"][i])),
            "params": round(float(costs["params"][i])),
            **{metric: round(float(costs[metric][i])) for metric in bytes_of},
            **({} if ranked is None else {"residual_latency_ms": float(ranked[i])}),
        }
        for i, line in enumerate(lines)
    ]
    if as_json:
        show_json(rows)
        return
    columns = ["architecture", "latency", f"MACs ({chosen.macs_convention})", "params"]
    columns += [metric.removesuffix("_bytes").replace("_", " ") for metric in bytes_of]
    shown = ("latency_ms", "macs", "params", *bytes_of)
    cells = [[r["architecture"], *(format_amount(metric, r[metric]) for metric in shown)] for r in rows]
    if within is not None:
        columns.insert(2, f"+- ({LEVEL:.0%})")
        bars = [format_amount("latency_ms", float(ms)) for ms in within]
        cells = [[*row[:2], bar, *row[2:]] for row, bar in zip(cells, bars, strict=True)]
    if ranked is not None:
        columns.append("with residual")
        cells = [[*row, format_amount("latency_ms", float(ms))] for row, ms in zip(cells, ranked, strict=True)]
    show_table("", columns, cells)
