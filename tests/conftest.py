"""Shared pieces: a table with exact counts and made-up latencies, the command line in this process or another."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from chromium import Chromium, find_chromium
from typer.testing import CliRunner, Result

from hwnas.cli import app
from hwnas.networks.count import count
from hwnas.operations import build_operation, num_inputs
from hwnas.spaces import SearchSpace, Setting, get_space
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Device, Entry, LatencyTable, Protocol, Quality, Runtime

SHARED = Path(__file__).parents[2] / "shared" / "data"


def make_table(space: SearchSpace, setting: Setting, seed: int = 0) -> LatencyTable:
    """Every workload of a space: counts by fvcore, latencies drawn at random."""
    generator = np.random.default_rng(seed)
    entries = []
    for workload in space.network(setting).workloads():
        shape = (1, workload.in_channels, workload.height, workload.width)
        counts = count(build_operation(workload), *(torch.zeros(shape) for _ in range(num_inputs(workload))))
        latency_ms = float(generator.uniform(0.001, 0.1))
        entries.append(
            Entry(
                **asdict(workload),
                latency_ms=latency_ms,
                p10_ms=latency_ms,
                p90_ms=latency_ms,
                samples=1,
                macs=counts.macs_fvcore,
                macs_conv_linear=counts.macs_conv_linear,
                params=counts.params,
            )
        )
    return LatencyTable(
        device=Device(name="made up", kind="cpu", model="none", cores=1, memory_bytes=1, os="none", fingerprint="0"),
        runtime=Runtime(name="onnxruntime", version="0", provider="CPUExecutionProvider", threads=1, batch=1),
        protocol=Protocol(
            version=1, statistic="made up", rounds=0, visit_ms=0, warmup_runs=0, date="2026-01-01", tool_version="0"
        ),
        quality=Quality(),
        provenance="fitted",
        entries=entries,
    )


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """A table of nasbench201 at 4 channels, one cell a stage, 3x16x16 images, 10 classes."""
    space = get_space("nasbench201")
    write_table(tmp_path / "table.json", make_table(space, Setting(channels=4, depth=1, height=16, width=16)))
    return tmp_path / "table.json"


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ``hwnas ARGUMENTS`` in this process."""
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return call


def profile(run: Run, *arguments: object) -> LatencyTable:
    """``hwnas profile`` of this machine as it is now, however noisy; ``--out`` comes last.

    What noise can leave without a number is refused even so, and timed again.
    """
    for _ in range(5):
        result = run("profile", "--accept-noise", *arguments)
        if "too noisy" not in result.output:
            break
    assert result.exit_code == 0, result.output
    return read_table(Path(str(arguments[-1])))


def assert_one_clear_line(result: Result, *words: str) -> None:
    """Exit code 2, one line on standard error that names the thing, no traceback."""
    assert result.exit_code == 2, (result.exit_code, result.output, result.exception)
    lines = [line for line in result.stderr.splitlines() if line.startswith("hwnas: error: ")]
    assert len(lines) == 1, result.stderr
    assert result.stderr.rstrip().endswith(lines[0])
    assert "Traceback" not in result.output
    for word in words:
        assert re.search(word, lines[0]), f"{word!r} is not in {lines[0]!r}"


def hwnas_process(*arguments: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """``hwnas ARGUMENTS`` as a process of its own, which hears Ctrl-C even where the tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "hwnas", *map(str, arguments)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    """For tests that are marked with ``needs_browser`` of ``pages``."""
    program = find_chromium()
    assert program
    with Chromium(program, tmp_path / "profile") as chromium:
        yield chromium
