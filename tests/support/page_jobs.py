"""Jobs on a page, with a client of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hwnas.profiling.connections.page import page_lines
from hwnas.profiling.connections.page_server import PageServer
from hwnas.profiling.protocol import Job, JobValues
from hwnas.profiling.session import run_job
from hwnas.runtimes.device_spec import DeviceSpec
from support.page_client import Command, PageClient

RUNTIME = "ort.wasm.min.js"


def job_of(names: str, threads: int = 1) -> Job:
    return Job("page", threads, 1, {name: f"{name}.onnx" for name in names}, list(names))


def client_of(server: PageServer, change: Callable[[Command, Any], Any] | None = None) -> PageClient:
    return PageClient(server.exchange.address, change=change)


def run_on(spec: DeviceSpec, folder: Path, job: Job, on_run: Callable[[int], None] = lambda done: None) -> JobValues:
    return run_job(partial(page_lines, spec), job, folder, "pass0", on_run)


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
