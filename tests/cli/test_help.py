"""The help of the command line: order, examples, option texts, and no import of torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from hwnas.cli import app, options
from hwnas.cli.app import WORKFLOW
from hwnas.spaces import SPACES
from support.command import Run


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return the path and the object of every command and group below ``group``."""
    for name, command in group.commands.items():
        yield (*path, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))


COMMANDS = dict(commands(get_command(app)))


def test_commands_are_listed_in_the_order_of_the_workflow(run: Run) -> None:
    listed = run("--help").stdout
    positions = [listed.index(f"│ {name} ") for name in WORKFLOW]
    assert positions == sorted(positions)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_command_has_an_example_and_explains_its_options(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help
    assert command.help[0].isupper()
    assert (command.epilog or "").startswith("Example: `hwnas ")
    if not hasattr(command, "commands"):
        assert f"hwnas {' '.join(path)} " in command.epilog.replace("`", " ")
    for parameter in command.params:
        assert parameter.help, parameter.name


@pytest.mark.parametrize("arguments", ["--help", "table --help", "search --help", "table show TABLE", "--version"])
def test_torch_is_not_imported(arguments: str, table_file: Path) -> None:
    line = arguments.replace("TABLE", str(table_file)).split()
    program = (
        "import sys\nfrom hwnas.cli import app\n"
        f"try:\n    app({line!r})\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_help_names_every_built_in_space() -> None:
    assert options.SPACES.startswith(f"{', '.join(SPACES)} ")
    assert options.SPACES.endswith(", FILE.yaml, package.module:NAME or python:MODULE:NAME")
