"""``hwnas demo``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson
from hwnas.cli.output import show_json
from hwnas.cli.results import show_results
from hwnas.text import quoted


@command(app, "demo", "hwnas demo --out runs/demo", resumes=True)
def demo_command(
    out: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/demo"), as_json: AsJson = False
) -> None:
    """Run the whole workflow in a few minutes on embedded images: profile this machine, search, train, verify."""
    from hwnas.progress import Progress
    from hwnas.runs.demo import run_demo

    with Progress() as progress:
        rows = run_demo(out, progress)
    if as_json:
        show_json({"targets": rows})
    else:
        show_results(rows)
        print(f"made {out / 'summary.json'}; hwnas profile --help says how to measure another device")
        print(f"next: hwnas table show {quoted(out / 'table.json')}")
    if any(row.kept is False for row in rows):
        raise typer.Exit(1)
