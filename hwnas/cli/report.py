"""``hwnas report``"""

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
    out: Annotated[Path, typer.Option(help="The HTML page to write.")] = Path("report.html"),
    figures: Annotated[
        Path | None,
        typer.Option(help="Folder for figures (SVG, PNG) and numbers (JSON); default: next to the page."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write one page on finished runs: result, networks, course of the search, latency table, verification.

    For a benchmark: result, regret of every method and seed, cost and memory of the searches, and the cells they found.

    The page is one file that needs no network. Its figures and numbers, and the inputs of its commands, are also
    written as files.
    """
    from hwnas import api

    files = api.report(folders, out, figures)
    if as_json:
        show_json({"page": str(out), "files": [str(file) for file in files]})
        return
    folder = api.figures_folder(out, figures)
    print(f"made {out} ({out.stat().st_size / 1e6:.2f} MB) and {len(files)} files in {folder}; open it in a browser")
