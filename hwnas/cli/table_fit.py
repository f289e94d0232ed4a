"""``hwnas table fit`` and ``hwnas table design``: tables from whole networks' latencies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.common import (
    AsJson,
    Channels,
    Classes,
    InputShape,
    Layers,
    SettingName,
    SpaceName,
    command,
    parse_input,
    show_json,
    table_app,
)

if TYPE_CHECKING:
    from hwnas.tables.schema import LatencyTable

TableRegistry = Annotated[
    str, typer.Option("--shelf", help="What devices are like: a folder or URL of tables, or shipped.")
]


@command(table_app, "fit", "hwnas table fit --space nasbench201 --measurements phone.csv --out phone.json")
def table_fit(
    measurements: Annotated[Path, typer.Option(help="A CSV file with the columns architecture,latency_ms.")],
    out: Annotated[Path, typer.Option(help="The table to write.")],
    space: SpaceName = "nasbench201",
    prior: Annotated[
        str | None,
        typer.Option(help="Other devices' tables, a folder, a URL or shipped: then ten measurements are enough."),
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    device_name: Annotated[str | None, typer.Option(help="By default the CSV file's name.")] = None,
    device_kind: Annotated[str, typer.Option(help="cpu, gpu, mobile, embedded, browser or accelerator.")] = "unknown",
    runtime: Annotated[str | None, typer.Option(help="What ran the networks.")] = None,
    runtime_version: Annotated[str | None, typer.Option(help="Its version.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, float16, int8, …")] = None,
    threads: Annotated[int, typer.Option(min=0, help="0: not known.")] = 0,
    batch: Annotated[int, typer.Option(min=0, help="0: not known.")] = 0,
    source: Annotated[str, typer.Option(help="Who measured, written into the table.")] = "",
    licence: Annotated[str, typer.Option(help="Written into the table, for those you share it with.")] = "",
    as_json: AsJson = False,
) -> None:
    """Make a latency table from whole networks' latencies, for a device on which nothing else can be timed.

    It holds what each operation costs on each edge, with error bars, and how far it is off on networks left out.
    """
    from hwnas.calibration.fit import KINDS, Origin, fit_table
    from hwnas.calibration.measurements import read_measurements
    from hwnas.calibration.prior import generic_prior, pool_prior
    from hwnas.errors import HwnasError
    from hwnas.progress import Progress
    from hwnas.spaces import SizedSpace, get_space
    from hwnas.tables.io import write_table
    from hwnas.tables.schema import NOT_KNOWN

    chosen = get_space(space)
    shape = parse_input(input_shape)
    sized = SizedSpace.named(chosen, setting, channels=channels, depth=layers, classes=classes, **shape)
    if device_kind not in KINDS:
        raise HwnasError(f"unknown kind of device {device_kind!r}", f"use one of {', '.join(KINDS)}")
    choices, latency_ms = read_measurements(measurements, chosen)
    origin = Origin(
        device=device_name or measurements.stem,
        kind=device_kind,
        runtime=runtime or NOT_KNOWN,
        runtime_version=runtime_version or NOT_KNOWN,
        precision=precision or NOT_KNOWN,
        threads=threads,
        batch=batch,
        source=source or f"hwnas table fit, {len(latency_ms)} measurements",
        licence=licence,
    )
    known = pool_prior(_pool(prior), sized) if prior else generic_prior(chosen)
    with Progress() as progress:
        table = fit_table(sized, choices, latency_ms, known, origin, progress)
    write_table(out, table)
    ((key, report),) = table.quality.additivity.items()
    found = table.edge_costs[key]
    if as_json:
        show_json(
            {
                "table": str(out),
                "network": key,
                "measurements": found.measurements,
                "pool": found.pool,
                "scatter_share": found.scatter_share,
                "left_out": report.model_dump(mode="json"),
                "sha256": table.sha256,
            }
        )
        return
    of = f" and {len(found.pool)} other devices" if found.pool else ""
    print(f"{out}: edge costs of {key} on {table.describe()}, from {found.measurements} measurements{of}")
    broken = found.measurements - report.networks
    print(
        f"{report.networks} networks, each left out once: mean error {report.mape:.1f} %, "
        f"{report.within_10_percent:.0%} within 10 %"
        + ("" if report.kendall_tau is None else f", Kendall tau {report.kendall_tau:.3f}")
        + (f"; {broken} readings are below 5 % of the median, broken, and not counted" if broken else "")
    )
    print(f"a latency timed once scatters by {100 * found.scatter_share:.1f} % around the sum of edges")
    print(f"next: hwnas search --space {space} --table {out} --budget moderate --out runs/first")


@command(table_app, "design", "hwnas table design --space nasbench201 --shelf shipped -n 10 --out phone.csv")
def table_design(
    shelf: TableRegistry,
    space: SpaceName = "nasbench201",
    number: Annotated[int, typer.Option("-n", "--number", min=1, max=1000, help="How many.")] = 10,
    out: Annotated[Path | None, typer.Option(help="A CSV file to fill in: architecture,latency_ms.")] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Name the architectures that tell most about a new device, given the tables of others."""
    from hwnas.calibration.experiment_design import choose_architectures
    from hwnas.calibration.prior import pool_prior
    from hwnas.spaces import SizedSpace, get_space
    from hwnas.spaces.encoding import decode

    chosen = get_space(space)
    shape = parse_input(input_shape)
    sized = SizedSpace.named(chosen, setting, channels=channels, depth=layers, classes=classes, **shape)
    known = pool_prior(_pool(shelf), sized)
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
            f"next: hwnas table fit --space {space} --measurements {out} --prior {shelf} --out TABLE"
        )


def _write_form(out: Path, architectures: list[str]) -> None:
    import csv
    import io

    from hwnas.errors import HwnasError
    from hwnas.files import write_text

    if out.exists():
        raise HwnasError(f"{out} exists, perhaps with measurements in it", "give another file with --out")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("architecture", "latency_ms"), *((a, "") for a in architectures)])
    write_text(out, text.getvalue())


def _pool(address: str) -> dict[str, LatencyTable]:
    from hwnas.files import shipped
    from hwnas.sharing.listing import read_tables
    from hwnas.sharing.signing import trusted_keys

    return read_tables(str(shipped("latency_tables")) if address == "shipped" else address, trusted_keys([]))
