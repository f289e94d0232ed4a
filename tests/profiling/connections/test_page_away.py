"""Pages that are hidden, closed, silent or hot: they are waited for, or end the job, which resumes."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hwnas.errors import HwnasError
from hwnas.profiling.connections import page_exchange, page_serving
from hwnas.profiling.connections.page import page_lines
from hwnas.profiling.connections.page_server import PageServer
from hwnas.profiling.noise import check_quiet
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import DeviceSpec, parse_device
from support.page_client import Command, free_port
from support.page_jobs import client_of, job_of, run_on, wait_for


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
