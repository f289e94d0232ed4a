"""What every command shares: options, errors in one line, tables and JSON on standard output."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.spaces import SizedSpace
    from hwnas.tables.schema import LatencyTable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Measure a device, search for networks within a budget, hand back ONNX that keeps it on that device.",
    epilog="Start with: `hwnas demo`",
)
space_app = typer.Typer(no_args_is_help=True, help="What can be searched, and what a budget allows.")
table_app = typer.Typer(
    no_args_is_help=True, help="Latency tables: look at one, check it against its device, predict with it."
)

benchmark_app = typer.Typer(
    no_args_is_help=True, help="Judge search methods by what others found as they trained every cell of a space."
)

SpaceName = Annotated[str, typer.Option("--space", help="nasbench201, darts, FILE.yaml or package.module:NAME.")]
TableSpace = Annotated[
    str | None,
    typer.Option("--space", help="nasbench201, darts, FILE.yaml or package.module:NAME; by default the table's."),
]
SettingName = Annotated[
    str | None, typer.Option("--setting", help="Named sizes of the space, such as imagenet-mobile.")
]
Channels = Annotated[int | None, typer.Option(help="Channels of the first cells.")]
Layers = Annotated[
    int | None, typer.Option("--layers", "--cells", help="Cells: a stage (nasbench201, your own), in all (darts).")
]
InputShape = Annotated[str | None, typer.Option("--input", help="Image shape, such as 3x32x32.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes.")]
Written = Annotated[str, typer.Option("--architecture", help="In the space's notation, or a name such as DARTS_V2.")]
Folder = Annotated[Path, typer.Argument(help="A run of hwnas search, or one budget's folder in it.")]
OtherData = Annotated[str | None, typer.Option("--data", help="By default the data of the search.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
DataSpec = Annotated[
    str,
    typer.Option(
        "--data", help="digits, cifar10:FOLDER, imagefolder:PATH or python:package.module:FUNCTION, options behind ?."
    ),
]
DeviceName = Annotated[
    str,
    typer.Option("--device", help="cpu, cpu+openvino, cuda:0+torch, browser, ssh://user@host+onnxruntime?threads=2, …"),
]


def command(
    group: typer.Typer, name: str, example: str, goes_on: bool = False, together: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command: its help ends in an example, what the user can fix is one line and exit code 2.

    ``goes_on`` says that it takes up again what was interrupted, ``together`` that several processes can share it.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                with _processes(name, together):
                    function(*args, **kwargs)
            except HwnasError as error:
                fail(str(error))
            except KeyboardInterrupt:
                how = "; the same command goes on from here" if goes_on else ""
                print(f"hwnas: interrupted{how}", file=sys.stderr)
                raise typer.Exit(130) from None
            except BrokenPipeError:
                raise typer.Exit(0) from None
            except OSError as error:
                fail(f"{error.filename or 'a file'}: {error.strerror or error}")

        return group.command(name, epilog=f"Example: `{example}`")(guarded)

    return register


@contextmanager
def _processes(name: str, together: bool) -> Iterator[None]:
    """Join the other processes where torchrun has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    from hwnas.training.processes import joined

    with joined():
        if not together:
            raise HwnasError(f"hwnas {name} runs in one process", "start it without torchrun")
        yield


def fail(line: str) -> None:
    print(f"hwnas: error: {' '.join(line.split())}", file=sys.stderr)
    raise typer.Exit(2)


def open_table(path: Path) -> LatencyTable:
    """Read a latency table, and warn of one that was made on a noisy machine."""
    from hwnas.tables.io import read_table

    table = read_table(path)
    if warning := table.noise_warning:
        print(f"hwnas: {path}: {warning}", file=sys.stderr)
    return table


def open_tables(paths: list[Path]) -> dict[str, LatencyTable]:
    """Read several devices' tables; they go by their files' names. Raises HwnasError where two have the same."""
    tables = {path.stem: open_table(path) for path in paths}
    if len(tables) != len(paths):
        raise HwnasError("two tables have the same file name", "give each --table once, under a name of its own")
    return tables


def common_network(
    tables: Mapping[str, LatencyTable], space: str | None, setting: str | None, **changes: int | None
) -> SizedSpace:
    """Return the sized space that is meant (hwnas.tables.network_key).

    Raises HwnasError where tables differ in these.
    """
    from hwnas.tables.network_key import choose_network

    first, *others = (choose_network(table, space, setting, **changes) for table in tables.values())
    if any(network != first for network in others):
        raise HwnasError("the tables were made for different networks", "say which with --space and --setting")
    return first


def show_json(value: Any) -> None:
    """Print JSON; a Record (hwnas.validation) is printed as its file has it."""
    print(json.dumps(value, indent=2, allow_nan=False, default=lambda record: record.to_json()))


def show_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Aligned columns, the first to the left. (rich takes a millisecond a row, and folds what is copied from a log.)"""
    widths = [max(len(row[number]) for row in (columns, *rows)) for number in range(len(columns))]
    if title:
        print(f"{title}\n")
    for row in (columns, ["─" * width for width in widths], *rows):
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    print()


def parse_input(text: str | None) -> dict[str, int | None]:
    """``3x32x32`` as the setting's fields."""
    if text is None:
        return {}
    sizes = text.split("x")
    if len(sizes) != 3 or not all(size.isdigit() for size in sizes):
        raise HwnasError(f"cannot read input shape {text!r}", "write CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    return dict(zip(("image_channels", "height", "width"), map(int, sizes), strict=True))
