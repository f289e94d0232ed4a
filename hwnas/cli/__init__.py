"""The command line: parse, call, print. Everything slow is imported by the command that needs it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hwnas.cli import (
    benchmark,
    derive,
    export,
    report,
    search,
    space,
    table,
    table_convert,
    table_fit,
    table_sharing,
)
from hwnas.cli.common import app, benchmark_app, space_app, table_app

__all__ = [
    "app",
    "benchmark",
    "derive",
    "export",
    "main",
    "report",
    "search",
    "space",
    "table",
    "table_convert",
    "table_fit",
    "table_sharing",
]

app.add_typer(space_app, name="space")
app.add_typer(table_app, name="table")
app.add_typer(benchmark_app, name="benchmark")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from hwnas import __version__

        print(f"hwnas {__version__}")
        raise typer.Exit


def main() -> None:
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # looking for plugins takes a tenth of a start
    app()
