"""Run the command line, in this process or in another."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from hwnas.tables.io import read_table
from hwnas.tables.schema import LatencyTable
from support.noise import skip_for_noise

Run = Callable[..., Result]


def profile(run: Run, *arguments: object) -> LatencyTable:
    """Run ``hwnas profile`` on this machine, with noise accepted, and return the table. ``--out FILE`` comes last.

    Noise can leave an entry without a number, which the command refuses: then profile again, and in the end skip the
    test.
    """
    for _ in range(5):
        result = run("profile", "--accept-noise", *arguments)
        if "too noisy" not in result.output:
            break
    else:
        skip_for_noise(result.output)
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


def hwnas_process(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start ``hwnas ARGUMENTS`` in a process of its own, where Ctrl-C works even if the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "hwnas", *map(str, arguments)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
