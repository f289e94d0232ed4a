"""The command line: parse, call the API, print. Each command imports what is slow itself."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from hwnas.cli import (
    benchmark,
    demo,
    derive,
    evaluate,
    export,
    profile,
    prune,
    report,
    search,
    space,
    table,
    table_check,
    table_compare,
    table_convert,
    table_fit,
    table_sharing,
    train,
    verify,
)
from hwnas.cli.app import app, benchmark_app, space_app, table_app

__all__ = [
    "app",
    "benchmark",
    "demo",
    "derive",
    "evaluate",
    "export",
    "main",
    "profile",
    "prune",
    "report",
    "search",
    "space",
    "table",
    "table_check",
    "table_compare",
    "table_convert",
    "table_fit",
    "table_sharing",
    "train",
    "verify",
]

app.add_typer(space_app, name="space")
app.add_typer(table_app, name="table")
app.add_typer(benchmark_app, name="benchmark")


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        from hwnas import __version__

        print(f"hwnas {__version__}")
        raise typer.Exit


def main() -> None:
    # The search for pydantic plugins takes a tenth of the start-up time.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    app()
