"""Run the command line, in this process or in another."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner, Result

from hwnas.cli import app
from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from support.noise import until_quiet
from support.warm import WarmProcess, run_hwnas

Run = Callable[..., Result]


def invoke(*arguments: object) -> Result:
    """Run ``hwnas ARGUMENTS`` in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def timed(run: Run, *arguments: object) -> Result:
    """Run ``hwnas ARGUMENTS``, which times networks on this machine; repeat it while noise prevents that, then skip."""
    return until_quiet(lambda: run(*arguments), lambda result: result.output)


def profile(run: Run, *arguments: object) -> LatencyTable:
    """Run ``hwnas profile`` on this machine, with noise accepted, and return the table. ``--out FILE`` comes last.

    Noise can still leave an entry without a number, which the command refuses.
    """
    result = timed(run, "profile", "--accept-noise", *arguments)
    assert result.exit_code == 0, result.output
    return read_table(Path(str(arguments[-1])))


def assert_one_clear_line(result: Result, *patterns: str) -> None:
    """Check for exit code 2, one error line on standard error in which every pattern is found, and no traceback."""
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    lines = [line for line in result.stderr.splitlines() if line.startswith("hwnas: error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.rstrip().endswith(lines[0])
    assert "Traceback" not in result.output
    for pattern in patterns:
        assert re.search(pattern, lines[0]), f"{pattern!r} is not in {lines[0]!r}"


def hwnas_process(*arguments: object, cwd: Path | None = None) -> WarmProcess:
    """Start ``hwnas ARGUMENTS`` in a process of its own, where Ctrl-C works even if the tests run in the background."""
    return WarmProcess(run_hwnas, *map(str, arguments), cwd=cwd)


def python_process(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start ``python ARGUMENTS``, likewise, which imports everything anew."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
