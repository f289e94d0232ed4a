"""``hwnas verify``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson, RunFolder
from hwnas.cli.output import show_json, show_table
from hwnas.cli.results import name_on

if TYPE_CHECKING:
    from hwnas.runs.schema import DeviceTiming


@command(app, "verify", "hwnas verify runs/a --device cpu")
def verify_command(
    folder: RunFolder,
    device: Annotated[str | None, typer.Option(help="Device to time on; default: that of the table.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time exported networks; exit code 1 when one breaks its budget by more than the error of the measurement."""
    from hwnas import api
    from hwnas.progress import Progress

    with Progress() as progress:
        rows = api.verify(folder, device, progress=progress)
    if as_json:
        show_json({"targets": rows})
    else:
        _show_timings(rows)
    if not all(row.kept for row in rows):
        raise typer.Exit(1)


def _show_timings(rows: list[DeviceTiming]) -> None:
    columns = ["budget", "limit", "predicted", "measured", "unscaled", "kept"]
    shown = [
        [
            name_on(r, r.device, rows) + " (untrained)" * (not r.trained),
            f"{r.budget_ms:.4g} ms" if r.budget_ms else "-",
            "-" if r.predicted_ms is None else f"{r.predicted_ms:.4g} ms",
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
            print(f"{table} is of another machine or runtime: the times are not scaled")
        else:
            print(
                f"the machine runs at {1 / slowdown:.0%} of its speed when {table} was measured; "
                "'measured' has this divided out"
            )
