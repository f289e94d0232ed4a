"""Shelves on http servers, bad ones too."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from hwnas.sharing import transport
from support.command import Run, assert_one_clear_line
from support.shelves import bounded, re_escape, refuses_pull

Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


class Web:
    """A web server that serves a folder, and answers some paths in its own way."""

    def __init__(self, folder: Path) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append(self.path)
                path = self.path.lstrip("/")
                data = (folder / path).read_bytes() if (folder / path).is_file() else b""
                self.close_connection = True
                try:
                    if answer := web.answers.get(path.split("/")[0]):
                        answer(self, data)
                    elif not data:
                        self.send_error(404)
                    else:
                        send(self, len(data), data)
                except OSError:
                    pass  # the reader had enough

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def send(handler: BaseHTTPRequestHandler, length: int | None, data: bytes, **headers: str) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(data)


def endless(length: int | None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        send(handler, length, data)
        while True:
            handler.wfile.write(b" " * (1 << 16))

    return answer


@pytest.fixture
def web(folder: Path) -> Iterator[Web]:
    served = Web(folder)
    thread = threading.Thread(target=served.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield served
    served.server.shutdown()
    served.server.server_close()
    thread.join()


def test_a_table_is_pulled_over_http(run: Run, tmp_path: Path, cpu: Path, web: Web) -> None:
    result = run("table", "pull", "cpu", web.url, "--out", tmp_path / "got.json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "got.json").read_bytes() == cpu.read_bytes()
    digest = hashlib.sha256(cpu.read_bytes()).hexdigest()
    assert web.asked == ["/index.json", f"/tables/{digest}.json"], "one request a file"
    assert "cpu" in run("table", "list", "--shelf", f"{web.url}/").stdout


def test_nothing_is_pushed_over_http(run: Run, web: Web, cpu: Path) -> None:
    assert_one_clear_line(
        run("table", "push", cpu, web.url), re_escape(web.url), "can only be read", "folder or bucket"
    )
    assert web.asked == []


ANSWERS: dict[str, tuple[Answer, str]] = {
    "truncated": (lambda h, data: send(h, len(data), data[: len(data) // 2]), "cannot be read.*[Pp]ayload"),
    "truncated without a length": (lambda h, data: send(h, None, data[: len(data) // 2]), "breaks off|not valid JSON"),
    "a length too small": (lambda h, data: send(h, len(data) // 2, data), "breaks off|not valid JSON|Data after"),
    "a length too large": (lambda h, data: send(h, 1 << 40, data), "[Pp]ayload|goes on"),
    "a changed byte": (lambda h, data: send(h, len(data), data.replace(b"made up", b"made Up", 1)), "was changed"),
    "endless": (endless(None), "is longer than|larger than"),
    "endless with a lie": (endless(1 << 40), "is longer than|larger than"),
    "refused": (lambda h, data: h.send_error(403), "403"),
    "broken": (lambda h, data: h.send_error(500), "500"),
    "gone": (lambda h, data: h.send_error(404), "is missing|is not a shelf"),
    "no answer": (lambda h, data: None, "[Dd]isconnected"),
    "no http": (lambda h, data: (h.wfile.write(b"\x00\x01garbage\r\n\r\n"), None)[1], "cannot be read"),
    "in circles": (lambda h, data: redirect(h), "[Rr]edirect"),
    "a bomb": (lambda h, data: bomb(h), "is longer than|not a text file|breaks off|was changed"),
}


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.send_header("Content-Length", "0")
    handler.send_header("Connection", "close")
    handler.end_headers()


BOMB = gzip.compress(bytes(200 << 20), compresslevel=1)


def bomb(handler: BaseHTTPRequestHandler) -> None:
    send(handler, len(BOMB), BOMB, Content_Encoding="gzip")


@pytest.mark.slow
@pytest.mark.parametrize("part", ["index.json", "tables"])
@pytest.mark.parametrize("kind", list(ANSWERS))
def test_errors_of_a_server_are_one_line(run: Run, tmp_path: Path, web: Web, kind: str, part: str) -> None:
    web.answers[part], words = ANSWERS[kind]
    if (kind, part) == ("a changed byte", "index.json"):
        assert run("table", "pull", "cpu", web.url).exit_code == 0, "nothing proves an unsigned description"
        return
    bounded(lambda: refuses_pull(run, web.url, tmp_path, re_escape(web.url), words), 70)


def test_a_stalled_server_is_a_timeout(run: Run, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "READ_S", 0.2)
    release = threading.Event()

    def stall(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        send(handler, len(data), data[:100])
        release.wait(20)

    web.answers["tables"] = stall
    refuses_pull(run, web.url, tmp_path, "cannot be read", "[Tt]imeout")
    release.set()


def test_no_network_is_one_line(run: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    refuses_pull(run, f"http://127.0.0.1:{port}/x", tmp_path, f"127.0.0.1:{port}/x cannot be read", "network")
    refuses_pull(run, f"http://me:secret@127.0.0.1:{port}/x", tmp_path, r"//\*\*\*@127")
    assert "secret" not in run("table", "pull", "cpu", f"http://me:secret@127.0.0.1:{port}/x").output
