"""Pages that any browser opens: their addresses and their jobs."""

from __future__ import annotations

import re
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.export.timing import spec_of
from hwnas.profiling.connections import page_exchange, page_serving
from hwnas.profiling.connections.page_server import TOKEN_LENGTH, PageServer
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from hwnas.tables.io import read_table
from support.command import Run
from support.page_client import DESCRIBED, Command, PageClient, free_port
from support.page_jobs import client_of, job_of, run_on, wait_for

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
