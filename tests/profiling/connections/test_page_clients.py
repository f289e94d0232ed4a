"""Clients of a page that break the rules, and pages that cannot run a job."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.profiling.connections import page_serving
from hwnas.profiling.connections.page_server import MOST_BYTES, PageServer
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from support.page_client import Command, PageClient
from support.page_jobs import RUNTIME, client_of, job_of, run_on


def test_only_the_right_token_opens_the_page(server: PageServer) -> None:
    client = client_of(server)
    for path in ("/", "/x/", f"/{server.token[:-1]}/", f"/{server.token}x/model", "/x/model"):
        status, text = client.request("GET", path, Accept="text/html")
        assert (status, "Open the address, or scan the code" in text) == (403, True), path
    assert client.request("POST", "/x/next", b"{}")[0] == 403
    assert client.request("GET", f"/{server.token}")[0] == 302
    assert "<title>hwnas profiler</title>" in client.request("GET", "")[1]


def test_only_the_files_of_the_job_are_served(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    served: dict[str, str] = {}

    def change(command: Command, answer: Any) -> Any:
        if command["do"] == "load":
            served[str(command["number"])] = client.request("GET", "model")[1]
        return answer

    client = client_of(server, change)
    client.request("GET", "")
    assert client.request("GET", "model")[0] == 404  # none yet
    assert client.request("GET", "ort.js") == (200, RUNTIME)
    assert client.request("GET", "ort/ort-wasm-simd-threaded.wasm")[0] == 200
    paths = ["secret.txt", "ort/secret.txt", "../job/a.onnx", "ort/../../job/a.onnx", "%2e%2e/job/a.onnx", "a.onnx"]
    assert {client.request("GET", path)[0] for path in [*paths, "ort/", "index.html"]} == {404}
    client.start()
    run_on(spec, folder, job_of("ab"))
    assert list(served.values()) == ["the model a.onnx", "the model b.onnx"]


def test_a_second_client_is_refused(
    spec: DeviceSpec, server: PageServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client_of(server).start()
    ask(spec)
    second = PageClient(server.exchange.address, "0" * 32)
    for path in ("", "ort.js", "model", f"alive?page={second.page}"):
        status, text = second.request("GET", path, Accept="text/html")
        assert (status, "Another browser has opened this address" in text) == (403, True), path
    assert second.post("next", number=0, answer={})[0] == 403
    assert second.post("state", hidden=True)[0] == 403
    assert "a second browser, on 127.0.0.1, has opened the page: it was refused" in capsys.readouterr().err
    assert len(run_on(spec, folder, job_of("ab")).runs) == 2  # the first goes on


def test_a_browser_without_cookies_is_told_so(server: PageServer) -> None:
    status, text = client_of(server).post("next", number=0, answer={})
    assert (status, "needs cookies" in text) == (403, True)


def test_messages_of_other_forms_are_refused(server: PageServer) -> None:
    client = client_of(server)
    client.request("GET", "")
    for body in (b"", b"[]", b"{}", b"\xff", b'{"page": "x", "number": 0, "answer": {}}', b"[" * 10_000):
        assert client.request("POST", "next", body)[0] == 400, body
    assert client.post("next", number=-1, answer={})[0] == 400
    assert client.post("next", number=True, answer={})[0] == 400
    assert client.post("next", number=0, answer={}, more=1)[0] == 400
    assert client.post("state", hidden="yes")[0] == 400
    assert client.request("POST", "elsewhere", b"{}")[0] == 404
    assert client.request("POST", "next", b" " * (MOST_BYTES + 1))[0] == 413
    assert client.request("POST", "next", None, **{"Content-Length": "-1"})[0] == 411
    assert not server.exchange.opened


def changed(do: str, **fields: Any) -> Callable[[Command, Any], Any]:
    return lambda command, answer: {**answer, **fields} if command["do"] == do else answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("values", times=[math.nan] * 3), "times.0"),
        (changed("values", times=[math.inf] * 3), "times.0"),
        (changed("values", times=[0.0] * 3), "times.0"),
        (changed("values", times=[-1.0] * 3), "times.0"),
        (changed("values", times=["1"] * 3), "times.0"),
        (changed("values", times=[]), "times"),
        (changed("values", times=[1e-3] * 2), "2 times where 3 to 40 were asked for"),
        (changed("values", times=[1e-3] * 41), "41 times where 3 to 40 were asked for"),
        (changed("values", times=[1e-3] * 1001), "times"),
        (changed("values", wall_ms=9e5), "after it was asked for"),
        (changed("values", times=[5e3] * 3), "times of more than"),
        (changed("values", runs=10**6), "times of more than"),
        (changed("values", runs=0), "runs"),
        (changed("values", extra=1), "extra"),
        (changed("load", model=7), "the number of a model that it was not given"),
        (changed("load", load_ms=-1.0), "load_ms"),
        (changed("describe", cores=0), "cores"),
        (changed("describe", renderer="\x1b[2J"), "renderer"),
        (changed("describe", model="x" * 301), "model"),
        (changed("hello", clock_ms=0), "clock_ms"),
        (changed("hello", version="1; rm"), "version"),
        (changed("hello", agent="\u202e"), "agent"),
        (lambda command, answer: {} if command["do"] == "values" else answer, "times"),
    ],
)
def test_a_lying_client_is_an_error(
    spec: DeviceSpec, server: PageServer, folder: Path, change: Callable[[Command, Any], Any], words: str
) -> None:
    client_of(server, change).start()
    with pytest.raises(HwnasError, match=re.escape(words)) as caught:
        run_on(spec, folder, job_of("ab"))
    assert "the page sent what cannot be true" in caught.value.problem
    assert caught.value.problem.isprintable()
    journal = [json.loads(line) for line in (folder / "pass0.jsonl").read_text().splitlines()]
    assert "visit" not in [line["event"] for line in journal]


@pytest.mark.parametrize(
    ("device", "change", "words"),
    [
        ("page?threads=4", changed("hello", isolated=False), "one thread when it was opened by http on a network"),
        ("page?threads=9", changed("hello", isolated=True), "9 threads are more than the 8 processors"),
        ("page", changed("hello", version=None), "onnxruntime-web does not start in Chromium 143"),
        ("page", changed("hello", clock_ms=16.7), "the clock of Chromium 143 has steps of 16.7 ms"),
        ("page+webgpu", changed("describe"), "no WebGPU in a page that was opened by http on a network address"),
        ("page+webgpu", changed("describe", secure=True), "Chromium 143 has no WebGPU on this device"),
        ("page", changed("values", error="out of memory\x1b[2J"), "the page failed: out of memory?[2J"),
    ],
)
def test_a_page_that_cannot_run_the_job_is_one_clear_error(
    spec: DeviceSpec, folder: Path, device: str, change: Callable[[Command, Any], Any], words: str
) -> None:
    device += ("&" if "?" in device else "?") + f"host=localhost&port={spec.port}"
    this = parse_device(device)
    client_of(page_serving.serve_page(this), change).start()
    with pytest.raises(HwnasError, match=re.escape(words)) as caught:
        run_on(this, folder, job_of("ab", this.threads))
    assert caught.value.fix


def test_webgpu_has_scripts_and_an_adapter_of_its_own(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    """The page of one provider is loaded again for the other."""
    client_of(server, changed("describe", secure=True, adapter="arm valhall")).start()
    ask(spec)
    webgpu = parse_device(f"page+webgpu?host=localhost&port={spec.port}")
    start = ask(webgpu)
    assert (start.runtime, start.provider) == ("webgpu", "onnxruntime-web")
    assert start.options["adapter"] == "arm valhall"
    assert server.files["ort.js"].name == "ort.webgpu.min.js"
