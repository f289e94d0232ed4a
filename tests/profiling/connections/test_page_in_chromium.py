"""A page opened by Chromium: on this machine, and as a client on a network of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.profiling.connections import page_exchange, page_serving
from hwnas.profiling.connections.page import page_lines
from hwnas.profiling.models import Repeated, write_model
from hwnas.profiling.protocol import Job, JobValues
from hwnas.profiling.session import ask, run_job
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.spaces import Workload
from support.chromium import Chromium, find_chromium
from support.page_client import PageClient, free_port
from support.paths import ROOT

HOST, CLIENT = "10.213.87.1", "10.213.87.2"

pytestmark = [
    pytest.mark.alone,
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here: make browser"),
    pytest.mark.skipif(
        not (ROOT / "node_modules/onnxruntime-web").exists(), reason="there is no onnxruntime-web here: make browser"
    ),
]


@pytest.fixture(autouse=True)
def _served(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HWNAS_ONNXRUNTIME_WEB", str(ROOT / "node_modules/onnxruntime-web/dist"))
    yield
    page_serving.stop_serving()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    spec = parse_device("page")
    for name, copies in (("one", 1), ("many", 13)):
        write_model(Repeated(Workload("nor_conv_3x3", 16, 16, 32, 32), copies), spec, folder / f"{name}.onnx")
    return folder


@pytest.fixture
def folder(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models, tmp_path / "job"))


def job_of(runs: Sequence[str], threads: int = 1) -> Job:
    return Job("page", threads, 1, {name: f"{name}.onnx" for name in runs}, list(runs))


def run(spec: DeviceSpec, folder: Path, job: Job, on_run: Callable[[int], None] = lambda done: None) -> JobValues:
    return run_job(partial(page_lines, spec), job, folder, "pass0", on_run)


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    with started(tmp_path / "profile") as browser:
        yield browser


def started(profile: Path, before: Sequence[str] = (), flags: Sequence[str] = ()) -> Chromium:
    program = find_chromium()
    assert program
    return Chromium(program, profile, before, flags)


@pytest.fixture
def local() -> DeviceSpec:
    return parse_device(f"page?host=localhost&port={free_port()}&threads=2")


def test_a_job_runs_on_a_page_of_this_machine(local: DeviceSpec, folder: Path, chromium: Chromium) -> None:
    """localhost is a secure context: threads and a fine clock."""
    chromium.go(page_serving.serve_page(local).exchange.address)
    values = run(local, folder, job_of(["one", "many"] * 4, 2))
    assert values.start
    assert values.start.device.cores == os.cpu_count()
    assert ", Chromium " in values.start.device.model
    assert 0 < (values.start.clock_ms or 0) <= 0.02
    one, many = (min(r.min_ms for r in values.runs if r.model == name) for name in ("one", "many"))
    assert many > 1.5 * one
    assert chromium.evaluate("document.getElementById('advice').textContent") == ""  # it keeps the screen on
    assert "Timing: run " in chromium.evaluate("document.getElementById('status').textContent")
    page_serving.stop_serving()
    time.sleep(1)
    assert "hwnas has ended" in chromium.evaluate("document.getElementById('status').textContent")


def test_a_hidden_tab_pauses_and_resumes(
    local: DeviceSpec,
    folder: Path,
    chromium: Chromium,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(page_exchange, "GRACE_S", 0.2)
    at: list[int] = []

    def come_back() -> None:
        at.append(len(done))
        time.sleep(2)
        at.append(len(done))
        chromium.show()

    def on_run(number: int) -> None:
        done.append(number)
        if number == 5:
            chromium.hide()
            threading.Timer(1, come_back).start()

    done: list[int] = []
    chromium.go(page_serving.serve_page(local).exchange.address)
    assert len(run(local, folder, job_of(["one"] * 300, 2), on_run).runs) == 300
    assert at[0] == at[1] < 300  # it computed nothing in between
    printed = capsys.readouterr().err
    assert "hwnas: the page is hidden: bring it to the front and keep the screen on\nhwnas: the page is back" in printed


def test_a_closed_page_resumes_when_it_is_opened_again(local: DeviceSpec, folder: Path, chromium: Chromium) -> None:
    address = page_serving.serve_page(local).exchange.address
    reported: list[int] = []

    def on_run(number: int) -> None:
        reported.append(number)
        if reported.count(3) == 1 and number == 3:  # a resumed job reports its runs again
            chromium.go("about:blank")
            threading.Timer(1, lambda: chromium.go(address)).start()

    chromium.go(address)
    runs = run(local, folder, job_of(["one", "many"] * 4, 2), on_run).runs
    assert [value.model for value in runs] == ["one", "many"] * 4
    assert sum(value.load_ms > 0 for value in runs) == 4  # both models were loaded twice


def test_a_second_browser_is_refused(local: DeviceSpec, folder: Path, chromium: Chromium, tmp_path: Path) -> None:
    address = page_serving.serve_page(local).exchange.address
    chromium.go(address)
    ask(local)
    with started(tmp_path / "second") as second:
        second.go(address)
        assert "Another browser has opened this address" in second.evaluate("document.body.textContent")
        second.go(address.replace(address.split("/")[3], "x" * 10))
        assert "Open the address, or scan the code" in second.evaluate("document.body.textContent")
    assert ask(local).device.cores == os.cpu_count()


def test_webgpu_computes_on_a_software_adapter(tmp_path: Path) -> None:
    spec = parse_device(f"page+webgpu?host=localhost&port={free_port()}")
    write_model(Repeated(Workload("nor_conv_1x1", 4, 4, 4, 4), 1), spec, tmp_path / "one.onnx")
    software = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
    with started(tmp_path / "profile", flags=software) as browser:
        browser.go(page_serving.serve_page(spec).exchange.address)
        if not browser.evaluate("navigator.gpu?.requestAdapter().then(Boolean) ?? false"):
            pytest.skip("this Chromium has no software adapter for WebGPU")
        values = run(spec, tmp_path, job_of(["one"] * 3))
    assert values.start
    assert (values.start.runtime, values.start.options["adapter"]) == ("webgpu", "google swiftshader")
    assert len(values.runs) == 3


# --- a client on a network of its own


def ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture
def network() -> Iterator[str]:
    """A network namespace with a cable to this machine, which has ``HOST`` there. Skips where it cannot be made."""
    if not shutil.which("ip"):
        pytest.skip("there is no program ip here: a client cannot have a network of its own")
    name = f"hwnas{os.getpid()}"
    made = ip("netns", "add", name)
    try:
        link = f"link add {name}a type veth peer name {name}b netns {name}"
        for words in (
            link,
            f"address add {HOST}/30 dev {name}a",
            f"link set {name}a up",
            f"-netns {name} address add {CLIENT}/30 dev {name}b",
            f"-netns {name} link set {name}b up",
            f"-netns {name} link set lo up",
        ):
            made = made if made.returncode else ip(*words.split())
        if made.returncode:
            pytest.skip(f"a client cannot have a network of its own here: {made.stderr.strip()}")
        yield name
    finally:
        ip("link", "delete", f"{name}a")
        ip("netns", "delete", name)


@pytest.fixture
def remote(network: str, tmp_path: Path) -> Iterator[Chromium]:
    with started(tmp_path / "profile", ("ip", "netns", "exec", network)) as browser:
        yield browser


def test_a_client_in_another_network(network: str, remote: Chromium, folder: Path, tmp_path: Path) -> None:
    """Open the page by http on a network address: one thread, a coarser clock, and a connection that is cut."""
    port = free_port()
    spec = parse_device(f"page?host={HOST}&port={port}&name=A+phone")

    def on_run(number: int) -> None:
        if number == 5:
            ip("link", "set", f"{network}a", "down")
            threading.Timer(3, lambda: ip("link", "set", f"{network}a", "up")).start()

    remote.go(page_serving.serve_page(spec).exchange.address)
    values = run(spec, folder, job_of(["one", "many"] * 10), on_run)
    assert [value.model for value in values.runs] == ["one", "many"] * 10
    assert values.start
    assert values.start.device.name == "A phone"
    assert 0.02 < (values.start.clock_ms or 0) <= 1
    one, many = (min(r.min_ms for r in values.runs if r.model == name) for name in ("one", "many"))
    assert many > 1.5 * one
    assert "Keep the screen on yourself" in remote.evaluate("document.getElementById('advice').textContent")
    with pytest.raises(HwnasError, match="one thread when it was opened by http on a network address"):
        ask(parse_device(f"page?host={HOST}&port={port}&threads=2"))
    with pytest.raises(HwnasError, match="no WebGPU in a page that was opened by http on a network address"):
        ask(parse_device(f"page+webgpu?host={HOST}&port={port}"))
    # The page is not on the other addresses of this machine.
    with pytest.raises(ConnectionRefusedError):
        PageClient(f"http://127.0.0.1:{port}/").request("GET", "")
