"""The report of finished runs, or of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson
from hwnas.cli.output import show_json


@command(app, "report", "hwnas report runs/a runs/b --out report.html")
def report_command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="DIR...", help="Finished runs of hwnas search, or one folder of hwnas benchmark."),
    ],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for figures (SVG, PNG) and numbers (JSON); by default beside the page."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page on finished runs: answer, networks, how the search went, latency table, verification.

    Of a benchmark: answer, regret of every method and seed, cost and memory of its searches, the cells they found.

    The page needs no network and nothing else. Its figures, its numbers and what its commands to reproduce read are
    written as files, too.
    """
    from hwnas.imports import require_extra

    for module in ("altair", "jinja2", "vl_convert"):
        require_extra(module, "report", "writing a report")
    from hwnas.report.write import write_report

    folder = figures or out.with_name(f"{out.stem}_files")
    files = write_report(folders, out, folder)
    if as_json:
        show_json({"page": str(out), "files": [str(file) for file in files]})
    else:
        print(
            f"made {out} ({out.stat().st_size / 1e6:.2f} MB) and {len(files)} files in {folder}; open it in a browser"
        )
