"""Fixtures of pages: a device, its server and the models of a job."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hwnas.profiling.connections import page_exchange, page_server, page_serving
from hwnas.profiling.connections.page_server import PageServer
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from support.page_client import free_port
from support.page_jobs import RUNTIME


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceSpec]:
    """A page on a free port, with stand-ins for the scripts of onnxruntime-web."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    for name in (RUNTIME, "ort.webgpu.min.js", "ort-wasm-simd-threaded.wasm", "secret.txt"):
        (scripts / name).write_text(name)
    monkeypatch.setenv("HWNAS_ONNXRUNTIME_WEB", str(scripts))
    monkeypatch.setattr(page_server, "LAST_S", 0.2)
    for limit in ("OPEN_S", "AWAY_S", "SILENT_S"):  # a client that fails ends its test before long
        monkeypatch.setattr(page_exchange, limit, 20.0)
    yield parse_device(f"page?host=localhost&port={free_port()}")
    page_serving.stop_serving()


@pytest.fixture
def server(spec: DeviceSpec) -> PageServer:
    return page_serving.serve_page(spec)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    for name in ("a.onnx", "b.onnx"):
        (folder / name).write_text(f"the model {name}")
    return folder
