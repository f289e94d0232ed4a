"""The Typer applications of the command line, and the decorator that registers a command."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from hwnas.errors import HwnasError

# The commands in the order in which they are used.
WORKFLOW = (
    "profile",
    "search",
    "verify",
    "train",
    "prune",
    "evaluate",
    "export",
    "derive",
    "report",
    "space",
    "table",
    "benchmark",
    "demo",
)


class WorkflowGroup(TyperGroup):
    """A group that lists its commands in the order of the workflow."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=WORKFLOW.index)


app = typer.Typer(
    cls=WorkflowGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="Measure a device, search for networks within a budget, and export ONNX that keeps the budget on that device.",
    epilog="Start with: `hwnas demo`",
)
space_app = typer.Typer(
    no_args_is_help=True,
    help="Show a search space, preview budgets on a device, count an architecture.",
    epilog="Example: `hwnas space preview --table cpu.json --budget moderate`",
)
table_app = typer.Typer(
    no_args_is_help=True,
    help="Show, check, compare, convert, fit and share latency tables.",
    epilog="Example: `hwnas table show cpu.json`",
)
benchmark_app = typer.Typer(
    no_args_is_help=True,
    help="Compare search methods by a table of the accuracies of every cell of a space.",
    epilog="Example: `hwnas benchmark nasbench201 --help`",
)


def command(
    group: typer.Typer, name: str, example: str, resumes: bool = False, distributed: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a command whose help ends in ``example``.

    An error that the user can fix becomes one line on standard error and exit code 2. ``resumes`` says that the
    command continues an interrupted run, ``distributed`` that several processes can run it together.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            try:
                with _processes(name, distributed):
                    function(*args, **kwargs)
            except HwnasError as error:
                fail(str(error))
            except KeyboardInterrupt:
                how = "; run the same command again to resume" if resumes else ""
                print(f"hwnas: interrupted{how}", file=sys.stderr)
                raise typer.Exit(130) from None
            except BrokenPipeError:
                raise typer.Exit(0) from None
            except OSError as error:
                fail(f"{error.filename or 'a file'}: {error.strerror or error}")

        return group.command(name, epilog=f"Example: `{example}`")(guarded)

    return register


@contextmanager
def _processes(name: str, distributed: bool) -> Iterator[None]:
    """Join the other processes when torchrun has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield
        return
    from hwnas.training.processes import join_process_group

    with join_process_group():
        if not distributed:
            raise HwnasError(f"hwnas {name} runs in one process", "start it without torchrun")
        yield


def fail(line: str) -> None:
    print(f"hwnas: error: {' '.join(line.split())}", file=sys.stderr)
    raise typer.Exit(2)
