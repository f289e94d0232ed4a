"""Run hwnas in processes that have imported it already: forks of one process, which is started once."""

from __future__ import annotations

import gc
import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from hwnas.cli import main
from support.no_finalists import train_none_by_default

SLOW_IMPORTS = [
    *("hwnas.benchmark.benchmark", "hwnas.profiling.profile", "hwnas.runs.search", "hwnas.runs.train"),
    *("onnx", "matplotlib.pyplot", "torch._dynamo"),  # which functions import
]


class WarmProcess:
    """A process that calls ``work(*arguments)``, with the parts of ``subprocess.Popen`` that tests need.

    Importing torch and the rest takes a process three seconds; this one takes a few milliseconds. It has the variables
    of this process and ``variables``. Standard output and standard error are one file.
    """

    def __init__(
        self, work: Callable[..., None], *arguments: object, cwd: Path | None = None, variables: Mapping[str, str] = {}
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(SLOW_IMPORTS)
        self._output = tempfile.NamedTemporaryFile("r", prefix="hwnas-")  # noqa: SIM115 (removed with this object)
        environment = {**os.environ, **variables}
        settings = (self._output.name, str(cwd or Path.cwd()), environment)
        self._process = context.Process(target=_call, args=(settings, work, arguments), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, -N after signal N, None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def communicate(self) -> tuple[str, None]:
        """Wait for the end and return what was printed."""
        self.wait()
        self._output.seek(0)
        return self._output.read(), None

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _call(settings: tuple[str, str, dict[str, str]], work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    output, folder, variables = settings
    gc.freeze()  # a collection of what was imported would copy its memory
    with Path(output).open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    if "OMP_NUM_THREADS" in variables:  # which torch read when it was imported
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    train_none_by_default(pytest.MonkeyPatch())
    work(*arguments)


def run_torchrun(*arguments: str) -> None:
    """Run torchrun in this process; the processes that it starts are new ones."""
    sys.argv = ["torchrun", *arguments]
    runpy.run_module("torch.distributed.run", run_name="__main__", alter_sys=True)


def run_hwnas(*arguments: str) -> None:
    """Run the command line in this process."""
    sys.argv = ["hwnas", *arguments]
    main()
