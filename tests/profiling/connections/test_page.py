"""Pages that any browser opens: their addresses, their messages, and clients that break the rules."""

from __future__ import annotations

import json
import math
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.export.timing import spec_of
from hwnas.profiling.connections import page_exchange, page_server, page_serving
from hwnas.profiling.connections.page import page_lines
from hwnas.profiling.connections.page_device import browser_of, gpu_of, system_of
from hwnas.profiling.connections.page_server import MOST_BYTES, TOKEN_LENGTH, PageServer
from hwnas.profiling.noise import check_quiet
from hwnas.profiling.protocol import Job, JobValues
from hwnas.profiling.session import ask, run_job
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.tables.io import read_table
from support.command import Run
from support.page_client import DESCRIBED, Command, PageClient, free_port

RUNTIME = "ort.wasm.min.js"


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


def job_of(names: str, threads: int = 1) -> Job:
    return Job("page", threads, 1, {name: f"{name}.onnx" for name in names}, list(names))


def client_of(server: PageServer, change: Callable[[Command, Any], Any] | None = None) -> PageClient:
    return PageClient(server.exchange.address, change=change)


def run_on(spec: DeviceSpec, folder: Path, job: Job, on_run: Callable[[int], None] = lambda done: None) -> JobValues:
    return run_job(partial(page_lines, spec), job, folder, "pass0", on_run)


# --- specs and addresses


def test_a_page_is_a_device() -> None:
    spec = parse_device("page?threads=4&host=192.168.1.5&port=9000&name=My+phone")
    assert (spec.hardware, spec.runtime.name, spec.threads) == ("page", "onnxruntime-web", 4)
    assert (spec.address, spec.port, spec.name) == ("192.168.1.5", 9000, "My phone")
    # Where it is served does not belong to the device: an interrupted job resumes on another port.
    assert spec.text == "page+onnxruntime-web?threads=4&batch=1&name=My%20phone"
    assert parse_device(spec.text).name == "My phone"
    assert parse_device("page+webgpu").runtime.name == "webgpu"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("page?port=80", "1024 to 65535"),
        ("page?port=x", "1024 to 65535"),
        ("page?host=a/b", "name or IPv4 address"),
        ("page?host=-x", "name or IPv4 address"),
        ("page?name=", "at most 100 characters"),
        ("page?name=%1b[2J", "at most 100 characters"),
        ("page?python=x", "threads, batch, opset, host, port and name can be given"),
        ("cpu?port=9000", "unknown option 'port' in device 'cpu?port=9000'; threads, batch, precision, opset"),
        ("page+torch", "use page+onnxruntime-web"),
        ("browser+webgpu", "does not run on browser"),
        ("ssh://me@board/page", "a page on another machine"),
        ("page?precision=int8", "not profiled with precision"),
    ],
)
def test_specs_of_pages_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError, match=re.escape(words)):
        parse_device(text)


def test_the_address_in_the_local_network_is_one_of_this_machine() -> None:
    address = page_serving.lan_address()
    with socket.socket() as probe:
        probe.bind((address, 0))  # fails for an address of another machine
    with socket.create_server((address, 0)) as there, socket.create_connection(there.getsockname(), 5) as client:
        assert client.getpeername()[0] == address


def test_a_port_in_use_and_a_foreign_address_are_errors(spec: DeviceSpec, server: PageServer) -> None:
    with pytest.raises(HwnasError, match=rf"127\.0\.0\.1:{spec.port}: .*'page\?port={spec.port + 1}'"):
        page_serving.serve_page(parse_device(f"page?host=127.0.0.1&port={spec.port}"))
    with pytest.raises(HwnasError, match=r"cannot serve a page on 203\.0\.113\.77:.*an address of this machine"):
        page_serving.serve_page(parse_device("page?host=203.0.113.77"))


def test_every_server_has_a_token_of_its_own(server: PageServer) -> None:
    again = PageServer("localhost", free_port())
    again.close("")
    assert re.fullmatch(rf"http://localhost:\d+/[a-z2-9]{{{TOKEN_LENGTH}}}/", server.exchange.address)
    assert again.token != server.token


def test_a_terminal_gets_a_code_of_the_address(
    spec: DeviceSpec, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    where = page_serving.serve_page(parse_device(f"page?host=0.0.0.0&port={spec.port}")).exchange.address
    printed = capsys.readouterr().err
    assert f"open {where} in a browser of the same network" in printed
    assert where.startswith(f"http://{page_serving.lan_address()}:{spec.port}/")
    assert sum(set(line.strip()) <= set("█▀▄ ") and "█" in line for line in printed.splitlines()) > 12


def test_without_onnxruntime_web_there_is_no_page(spec: DeviceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWNAS_ONNXRUNTIME_WEB", "/nowhere")
    with pytest.raises(HwnasError, match=r"there is no onnxruntime-web in .*npm install onnxruntime-web"):
        ask(spec)


# --- jobs


def test_a_device_describes_itself(spec: DeviceSpec, server: PageServer) -> None:
    client_of(server).start()
    start = ask(spec)
    assert start.device.name == "Android, Adreno (TM) 730, Chromium 143"
    assert (start.device.kind, start.device.cores, start.device.memory_bytes) == ("browser", 8, 0)
    assert (start.runtime, start.version, start.provider) == ("onnxruntime-web", "1.30.0", "wasm")
    assert start.clock_ms == 0.1
    assert start.options["page"] is True


def test_the_fingerprint_is_the_same_however_the_page_was_opened(spec: DeviceSpec, server: PageServer) -> None:
    """A page of localhost says more than one of a network address."""
    secure = {**DESCRIBED, "secure": True, "model": "Pixel 7", "adapter": "arm valhall"}

    def change(command: Command, answer: Any) -> Any:
        return secure if command["do"] == "describe" and len(asked) == 1 else answer

    asked: list[str] = []
    client_of(server, change).start()
    first = ask(spec)
    asked.append("")
    second = ask(spec)
    assert second.device.name == "Pixel 7, Adreno (TM) 730, Chromium 143"
    assert first.device.fingerprint == second.device.fingerprint


def test_runs_come_in_order_with_their_times(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    client = client_of(server)
    client.start()
    values = run_on(spec, folder, job_of("abab"))
    assert [value.model for value in values.runs] == list("abab")
    assert all(0 < value.min_ms <= value.median_ms for value in values.runs)
    assert [bool(value.load_ms) for value in values.runs] == [True, True, False, False]
    assert [c["do"] for c in client.commands] == ["describe", "load", "values", "load", "values", "values", "values"]
    assert [(c["done"], c["total"]) for c in client.commands if c["do"] == "values"] == [(n, 4) for n in range(4)]


def test_every_job_begins_on_a_page_without_models(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    clients: list[str] = []

    def change(command: Command, answer: Any) -> Any:
        clients.extend(["hello"] * (command["do"] == "hello"))
        return answer

    client_of(server, change).start()
    run_on(spec, folder, job_of("a"))
    (folder / "pass0.jsonl").unlink()
    run_on(spec, folder, job_of("ab"))
    assert clients == ["hello"] * 2


def test_a_repeated_message_counts_once(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    """A reply that is lost on the way makes a page repeat its message: the answer to a run must not be taken for the
    next one."""

    def change(command: Command, answer: Any) -> Any:
        if command["do"] == "values":
            repeated = threading.Thread(
                target=client.post, args=("next",), kwargs={"number": command["number"], "answer": answer}
            )
            repeated.start()
        return answer

    client = client_of(server, change)
    client.start()
    assert [value.model for value in run_on(spec, folder, job_of("abba")).runs] == list("abba")
    numbers = [command["number"] for command in client.commands]
    assert numbers == sorted(set(numbers))


def test_a_page_that_is_opened_again_resumes(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    """The tab is closed during the third run; the same browser opens the address again."""
    ended: list[PageClient] = []

    def both() -> None:
        first = client_of(server)
        ended.append(first.work(lambda command: command.get("done") == 2))
        second = PageClient(server.exchange.address, first.cookie)
        ended.append(second.work())

    threading.Thread(target=both, daemon=True).start()
    values = run_on(spec, folder, job_of("ababa"))
    assert [value.model for value in values.runs] == list("ababa")
    page_serving.stop_serving()
    wait_for(lambda: len(ended) == 2)
    assert [c["do"] for c in ended[1].commands[:3]] == ["describe", "load", "values"]
    assert "run it again and open the address" in ended[1].stopped


def test_another_tab_takes_over(spec: DeviceSpec, server: PageServer) -> None:
    first = client_of(server)
    thread = first.start()
    ask(spec)
    second = PageClient(server.exchange.address, first.cookie)
    second.start()
    thread.join(10)
    assert first.stopped == page_exchange.OTHER_TAB
    assert ask(spec).device.cores == 8
    assert second.commands


def test_a_page_of_another_device_does_not_resume_a_job(spec: DeviceSpec, server: PageServer, folder: Path) -> None:
    def both() -> None:
        first = client_of(server)
        first.work(lambda command: command.get("done") == 1)
        other = PageClient(server.exchange.address, first.cookie)
        other.change = lambda command, answer: {**answer, "cores": 4} if command["do"] == "describe" else answer
        other.work()

    threading.Thread(target=both, daemon=True).start()
    with pytest.raises(HwnasError, match="the device or its runtime has changed"):
        run_on(spec, folder, job_of("aba"))


@pytest.mark.slow
@pytest.mark.usefixtures("short_timings")
def test_profile_on_a_page(spec: DeviceSpec, server: PageServer, run: Run, tmp_path: Path) -> None:
    """The table says on what, with which clock, and that it is of a page."""
    out = tmp_path / "phone.json"
    client_of(server).start()
    small = ("--space", "nasbench201", "--channels", 4, "--cells", 1, "--input", "3x16x16")
    quick = ("--rounds", 3, "--fit-networks", 3, "--report-networks", 3, "--accept-noise")
    device = f"page?host=localhost&port={spec.port}&name=My+phone"
    result = run("profile", "--device", device, *small, *quick, "--out", out)
    assert result.exit_code == 0, result.output
    table = read_table(out)
    assert (table.device.name, table.device.kind, table.device.os) == ("My phone", "browser", "Android")
    assert (table.hardware, spec_of(table).text) == ("page", "page+onnxruntime-web?threads=1&batch=1")
    assert table.protocol.clock_ms == 0.1
    assert {entry.op for entry in table.entries} >= {"nor_conv_3x3", "avg_pool_3x3"}


# --- pages that are away


def wait_for(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_a_page_that_nobody_opens_is_an_error(spec: DeviceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_exchange, "OPEN_S", 0.05)
    with pytest.raises(HwnasError, match=rf"no browser has opened the page .*adb reverse tcp:{spec.port}"):
        ask(spec)
    with pytest.raises(HwnasError, match=r"no browser has opened the page .*no firewall here may block port"):
        ask(parse_device(f"page?host=0.0.0.0&port={free_port()}"))


def test_a_hidden_page_is_waited_for(
    spec: DeviceSpec,
    server: PageServer,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(page_exchange, "GRACE_S", 0.0)
    printed: list[str] = []

    def change(command: Command, answer: Any) -> Any:
        if command.get("done") == 1:
            client.post("state", hidden=True)
            wait_for(lambda: "the page is hidden: bring it to the front" in printed[-1] if read() else False)
            client.post("state", hidden=False)
        return answer

    def read() -> bool:
        printed.append("".join(printed) + capsys.readouterr().err)
        return True

    client = client_of(server, change)
    client.start()
    assert len(run_on(spec, folder, job_of("aba")).runs) == 3
    read()
    assert "the page is back" in printed[-1]


def test_a_page_that_works_is_not_hidden_though_that_message_was_lost(
    spec: DeviceSpec, server: PageServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_exchange, "GRACE_S", 0.0)

    def change(command: Command, answer: Any) -> Any:
        if command.get("done") == 1:
            client.post("state", hidden=True)
            client.state = {"hidden": False}
        return answer

    client = client_of(server, change)
    client.start()
    assert len(run_on(spec, folder, job_of("abab")).runs) == 4
    assert server.exchange._hidden_s is None


@pytest.mark.parametrize("way", ["hidden", "closed", "silent"])
def test_a_page_that_stays_away_is_an_error_and_the_job_resumes(
    spec: DeviceSpec, server: PageServer, folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    limits = {"GRACE_S": 0.0, "AWAY_S": 1.0, "SILENT_S": 1.0 if way == "silent" else 60.0}

    def leave(command: Command) -> bool:
        if command.get("done") != 2:
            return False
        if way == "hidden":
            client.post("state", hidden=True)
        if way == "closed":
            with socket.create_connection(("localhost", spec.port)) as alive:
                cookie = f"Cookie: hwnas={client.cookie}"
                alive.sendall(f"GET /{server.token}/alive?page={client.page} HTTP/1.1\r\n{cookie}\r\n\r\n".encode())
                assert b"200 OK" in alive.recv(1000)
        return True

    client = client_of(server)
    client.start(leave)
    words = {"hidden": "the page is hidden", "closed": "the page is closed or cut off", "silent": "has not answered"}
    with monkeypatch.context() as patch:
        for name, value in limits.items():
            patch.setattr(page_exchange, name, value)
        with pytest.raises(HwnasError, match=f"{words[way]}.*run the same command again to resume"):
            run_on(spec, folder, job_of("abab"))
    # The same command, later: another token, the rest of the runs.
    page_serving.stop_serving()
    later = client_of(page_serving.serve_page(spec))
    later.start()
    assert [value.model for value in run_on(spec, folder, job_of("abab")).runs] == list("abab")
    assert [command["done"] for command in later.commands if command["do"] == "values"] == [2, 3]


def test_a_device_that_slows_down_is_refused(
    spec: DeviceSpec, server: PageServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phone that is throttled by heat: the sentinel takes three times as long after a while."""
    monkeypatch.setattr("hwnas.profiling.noise.PAUSE_S", 0.0)

    def change(command: Command, answer: Any) -> Any:
        if command.get("done", 0) > 30:
            answer = {**answer, "times": [3 * ms for ms in answer["times"]], "wall_ms": 3 * answer["wall_ms"]}
        return answer

    client_of(server, change).start()
    words = r"the device of the page is too noisy .*its speed moved by 200%.*let it cool down"
    with pytest.raises(HwnasError, match=words):
        check_quiet(spec, partial(page_lines, spec), tmp_path, lambda *_: None)


# --- clients that break the rules


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


# --- devices


@pytest.mark.parametrize(
    ("agent", "browser", "system"),
    [
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "Version/18.5 Mobile/15E148 Safari/604.1",
            "Safari 18.5",
            "iOS 18.5",
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 17_7 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
            "CriOS/130.0.6723.90 Mobile/15E148 Safari/604.1",
            "Chrome 130",
            "iOS 17.7",
        ),
        (
            "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/26.0 "
            "Chrome/122.0.0.0 Mobile Safari/537.36",
            "Samsung Internet 26",
            "Android",
        ),
        ("Mozilla/5.0 (Android 15; Mobile; rv:139.0) Gecko/139.0 Firefox/139.0", "Firefox 139", "Android"),
        (
            "Mozilla/5.0 (Web0S; Linux/SmartTV) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/108.0.5359.211 "
            "Safari/537.36",
            "Chromium 108",
            "webOS",
        ),
        (
            "Mozilla/5.0 (SMART-TV; LINUX; Tizen 8.0) AppleWebKit/537.36 (KHTML, like Gecko) "
            "SamsungBrowser/7.0 Chrome/108.0.5359.1 TV Safari/537.36",
            "Samsung Internet 7",
            "Tizen",
        ),
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/137.0.0.0 "
            "Safari/537.36 Edg/137.0.0.0",
            "Edge 137",
            "Windows",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.4 "
            "Safari/605.1.15",
            "Safari 18.4",
            "macOS",
        ),
        ("Mozilla/5.0 (X11; Linux aarch64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox 128", "Linux aarch64"),
        ("something else", "unknown browser", "unknown system"),
    ],
)
def test_user_agents(agent: str, browser: str, system: str) -> None:
    assert (browser_of(agent), system_of(agent)) == (browser, system)


@pytest.mark.parametrize(
    ("renderer", "gpu"),
    [
        ("ANGLE (Qualcomm, Adreno (TM) 730, OpenGL ES 3.2)", "Adreno (TM) 730"),
        ("ANGLE (Apple, ANGLE Metal Renderer: Apple M1, Unspecified Version)", "Apple M1"),
        ("Apple GPU", "Apple GPU"),
        ("", ""),
    ],
)
def test_names_of_gpus(renderer: str, gpu: str) -> None:
    assert gpu_of(renderer) == gpu
