"""``hwnas table fit`` and ``hwnas table design``: tables from whole networks' latencies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import command, table_app
from hwnas.cli.options import AsJson, Channels, Classes, InputShape, Layers, SettingName, SpaceName, parse_input
from hwnas.cli.output import show_json, show_notes, show_table, warn_of_table
from hwnas.errors import HwnasError
from hwnas.text import quoted

if TYPE_CHECKING:
    from hwnas.calibration.fit import MeasurementOrigin
    from hwnas.spaces import SizedSpace
    from hwnas.tables.schema import LatencyTable

WORST = 5  # readings that are listed when a fit is poor
PriorTables = Annotated[
    str | None, typer.Option("--shelf", help="Tables of other devices: a folder, a URL, or shipped.")
]


@command(table_app, "fit", "hwnas table fit --space nasbench201 --measurements phone.csv --out phone.json")
def table_fit(
    measurements: Annotated[Path, typer.Option(help="A CSV file with the columns architecture,latency_ms.")],
    out: Annotated[Path, typer.Option(help="The table to write.")],
    space: SpaceName = "nasbench201",
    prior: Annotated[
        str | None,
        typer.Option(help="Tables of other devices (a folder, a URL, or shipped); ten measurements are then enough."),
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    device_name: Annotated[str | None, typer.Option(help="Name of the device; default: the CSV file's name.")] = None,
    device_kind: Annotated[str, typer.Option(help="cpu, gpu, mobile, embedded, browser or accelerator.")] = "unknown",
    runtime: Annotated[str | None, typer.Option(help="The runtime that ran the networks.")] = None,
    runtime_version: Annotated[str | None, typer.Option(help="Its version.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, float16, int8, …")] = None,
    threads: Annotated[int, typer.Option(min=0, help="0 means unknown.")] = 0,
    batch: Annotated[int, typer.Option(min=0, help="0 means unknown.")] = 0,
    source: Annotated[str, typer.Option(help="Who measured; written into the table.")] = "",
    licence: Annotated[str, typer.Option(help="The table's licence, for sharing it.")] = "",
    accept: Annotated[
        bool, typer.Option("--accept", help="Write the table even if the readings or its predictions are poor.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit a latency table to the latencies of whole networks, for a device on which nothing else can be timed.

    The table holds the cost of each operation on each edge, with error bars, and the error on left-out networks. Where
    readings contradict each other or left-out networks are predicted badly, no table is written and the exit code is 1;
    --accept writes it, and commands that read it print the reasons.
    """
    from hwnas.api import sized_space
    from hwnas.calibration.fit import MeasurementOrigin
    from hwnas.tables.io import write_table
    from hwnas.tables.schema import NOT_KNOWN

    origin = MeasurementOrigin(
        device=device_name or measurements.stem,
        kind=device_kind,
        runtime=runtime or NOT_KNOWN,
        runtime_version=runtime_version or NOT_KNOWN,
        precision=precision or NOT_KNOWN,
        threads=threads,
        batch=batch,
        source=source,
        licence=licence,
    )
    sized = sized_space(space, setting, channels, layers, parse_input(input_shape), classes)
    table, worst = _fit(measurements, sized, origin, prior)
    written = out if accept or not table.warnings else None
    if written:
        write_table(written, table)
    (_show_fit_as_json if as_json else _show_fit)(table, worst, written)
    if not as_json:
        print(f"next: {_next(written, space, measurements)}")
    if not written:
        raise typer.Exit(1)


def _fit(
    measurements: Path, sized: SizedSpace, origin: MeasurementOrigin, prior: str | None
) -> tuple[LatencyTable, list[dict[str, Any]]]:
    """Return the table, and the readings that it was fitted to and that the others predict worst."""
    from hwnas.calibration.fit import KINDS, fit_table
    from hwnas.calibration.measurements import read_measurements
    from hwnas.calibration.prior import generic_prior, pool_prior
    from hwnas.progress import Progress
    from hwnas.spaces.encoding import decode

    if origin.kind not in KINDS:
        raise HwnasError(f"unknown kind of device {origin.kind!r}", f"use one of {', '.join(KINDS)}")
    choices, latency_ms = read_measurements(measurements, sized.space)
    source = origin.source or f"hwnas table fit, {len(latency_ms)} measurements"
    known = pool_prior(_tables_of(prior), sized) if prior else generic_prior(sized)
    show_notes(known.notes)
    with Progress() as progress:
        fitted = fit_table(sized, choices, latency_ms, known, replace(origin, source=source), progress)
    worst = [
        {
            "architecture": sized.space.format(decode(sized.space, choices[number]), True),
            "latency_ms": float(latency_ms[number]),
            "predicted_ms": float(fitted.predicted_ms[number]),
        }
        for number in fitted.worst(latency_ms, WORST)
    ]
    return fitted.table, worst


def _next(written: Path | None, space: str, measurements: Path) -> str:
    if written:
        return f"hwnas search --space {quoted(space)} --table {quoted(written)} --budget moderate --out runs/first"
    return f"correct {measurements} or add readings, and fit again; --accept writes the table as it is"


def _show_fit_as_json(table: LatencyTable, worst: list[dict[str, Any]], written: Path | None) -> None:
    ((key, report),) = table.quality.additivity.items()
    costs = table.edge_costs[key]
    show_json(
        {
            "table": str(written) if written else None,
            "network": key,
            "measurements": costs.measurements,
            "pool": costs.pool,
            "scatter_share": costs.scatter_share,
            "left_out": report.model_dump(mode="json"),
            "warnings": table.warnings,
            "worst": worst,
            "sha256": table.sha256 if written else None,
        }
    )


def _show_fit(table: LatencyTable, worst: list[dict[str, Any]], written: Path | None) -> None:
    ((key, report),) = table.quality.additivity.items()
    costs = table.edge_costs[key]
    pool = f" and {len(costs.pool)} other devices" if costs.pool else ""
    measured = f"{costs.measurements} measurements{pool}"
    print(f"{written or 'not written'}: edge costs of {key} on {table.describe()}, from {measured}")
    excluded = costs.measurements - report.networks
    print(
        f"{report.networks} networks, each left out once: mean error {report.mape:.1f} %, "
        f"{report.within_10_percent:.0%} within 10 %"
        + ("" if report.kendall_tau is None else f", Kendall tau {report.kendall_tau:.3f}")
        + (f"; {excluded} measurements below 5 % of the median are excluded as broken" if excluded else "")
    )
    print(f"a single latency scatters by {100 * costs.scatter_share:.1f} % around the sum of edges")
    if not table.warnings:
        return
    print("\n".join(table.warnings))
    columns = ["architecture", "measured ms", "predicted ms"]
    rows = [[row["architecture"], f"{row['latency_ms']:.4g}", f"{row['predicted_ms']:.4g}"] for row in worst]
    show_table("\nThe worst readings, and what the others predict:", columns, rows)


@command(table_app, "design", "hwnas table design --space nasbench201 --shelf shipped -n 10 --out phone.csv")
def table_design(
    space: SpaceName = "nasbench201",
    shelf: PriorTables = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=1000, help="Number of architectures.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="Write a CSV file with empty latencies: architecture,latency_ms.")
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Choose the architectures whose latencies are most informative about a new device.

    With --shelf they are so given the tables of other devices, without it given nothing but the sizes of the layers.
    """
    from hwnas.api import sized_space
    from hwnas.calibration.experiment_design import choose_architectures
    from hwnas.calibration.prior import generic_prior, pool_prior
    from hwnas.spaces.encoding import decode
    from hwnas.tables.network_key import size_options

    sized = sized_space(space, setting, channels, layers, parse_input(input_shape), classes)
    chosen, known = sized.space, pool_prior(_tables_of(shelf), sized) if shelf else generic_prior(sized)
    show_notes(known.notes)
    picked = choose_architectures(chosen, known, number)
    architectures = [chosen.format(decode(chosen, row), True) for row in picked]
    if out:
        _write_form(out, architectures)
    if as_json:
        show_json({"space": chosen.name, "pool": list(known.pool), "architectures": architectures})
        return
    print("\n".join(architectures))
    if out:
        print(
            f"\n{out}: time these networks and fill in latency_ms\n"
            f"next: hwnas table fit {size_options(sized)} --measurements {quoted(out)} "
            f"{f'--prior {quoted(shelf)} ' if shelf else ''}--out TABLE"
        )


def _write_form(out: Path, architectures: list[str]) -> None:
    import csv
    import io

    from hwnas.files import write_text

    if out.exists():
        raise HwnasError(f"{out} exists, perhaps with measurements in it", "give another file with --out")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("architecture", "latency_ms"), *((a, "") for a in architectures)])
    write_text(out, text.getvalue())


def _tables_of(address: str) -> dict[str, LatencyTable]:
    from hwnas.files import shipped
    from hwnas.sharing.listing import read_tables
    from hwnas.sharing.signing import trusted_keys

    tables = read_tables(str(shipped("latency_tables")) if address == "shipped" else address, trusted_keys([]))
    for name, table in tables.items():
        warn_of_table(Path(name), table)
    return tables
