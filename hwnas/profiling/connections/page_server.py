"""The server of a page: a token in the address, the first browser that opens it, and the files of the job, no others.

Everything that arrives is untrusted: sizes are limited, messages are checked against models.
"""

from __future__ import annotations

import html
import http.server
import json
import re
import runpy
import secrets
import threading
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.profiling.connections.page_exchange import Exchange, log

LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # none that look alike: some type the address by hand
TOKEN_LENGTH = 10
MOST_BYTES = 64 * 1024  # of a message: an answer has at most some hundred numbers
READ_S = 30.0  # for a request to arrive
LAST_S = 2.0  # for a page to get its last text
COOKIE = "hwnas"
ID = r"[0-9a-f]{32}"
WRONG_TOKEN = (
    "This address is not valid, or not any more: each run of hwnas has a new one. "
    "Open the address, or scan the code, that hwnas shows now in its terminal."
)
OTHER_CLIENT = (
    "Another browser has opened this address, and it is for one browser only. "
    "To use this one, stop hwnas, run its command again, and open the address that it prints then."
)
NO_COOKIE = "This page needs cookies. Allow them for this address, or leave the private mode, and load the page again."


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    page: str = Field(pattern=f"^{ID}$")


class Message(_Sent):
    """The answer to a command, by its number; 0 is the first message of a page. ``hidden``: whether the page is."""

    number: int = Field(ge=0, le=10**9)
    answer: dict[str, Any]
    hidden: bool | None = None


class State(_Sent):
    """The visibility of the page."""

    hidden: bool


class PageServer:
    """Serve the page of one exchange until ``close``. Raises HwnasError when the address cannot be used."""

    def __init__(self, address: str, port: int) -> None:
        self.exchange = Exchange()
        self.token = "".join(secrets.choice(LETTERS) for _ in range(TOKEN_LENGTH))
        self.model: Path | None = None
        self.files: dict[str, Path] = {}
        self.types: dict[str, str] = {}
        self.provider = ""
        self._client = ""
        self._refused: set[str] = set()
        self._lock = threading.Lock()
        try:
            self._http = _Http((address, port), _Handler)
        except OSError as error:
            other = f"name another port with --device 'page?port={port + 1}', or an address of this machine with ?host="
            raise HwnasError(f"cannot serve a page on {address}:{port}: {error.strerror or error}", other) from None
        self._http.page = self
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self, text: str) -> None:
        """Show a last text on the page and stop serving it."""
        self.exchange.end(text, LAST_S)
        self._http.shutdown()
        self._http.server_close()

    def use(self, provider: str) -> None:
        """Serve the scripts of a provider (``wasm``, ``webgpu``). Raises HwnasError when they are not installed."""
        if provider == self.provider:
            return
        found = runpy.run_path(str(shipped("profilers") / "web_runtime.py"))
        try:
            self.files = {"": shipped("profilers") / "browser.html", **found["runtime_files"](provider)}
        except FileNotFoundError as error:
            problem, _, fix = str(error).partition(": ")
            raise HwnasError(problem, fix) from None
        self.types, self.provider = found["TYPES"], provider
        self.exchange.used = True  # a page that is open has the scripts of another provider

    def admit(self, client: str) -> bool:
        """Return whether a client, by its cookie, is the one that the page belongs to: the first that computes."""
        with self._lock:
            self._client = self._client or client
            return bool(client) and secrets.compare_digest(self._client, client)

    def is_taken_from(self, client: str) -> bool:
        """Return whether the page belongs to another client."""
        return bool(self._client) and not secrets.compare_digest(self._client, client)

    def refuse(self, address: str) -> None:
        """Name a second client on standard error, once."""
        with self._lock:
            known = address in self._refused or len(self._refused) > 10
            self._refused.add(address)
        if not known:
            log(f"a second browser, on {address}, has opened the page: it was refused")


class _Http(http.server.ThreadingHTTPServer):
    daemon_threads = True
    page: PageServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a broken connection; the exchange names a page that does not answer."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Http
    server_version, sys_version = "hwnas", ""
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = READ_S

    def do_GET(self) -> None:
        name, page = self._name(), self.server.page
        if name is None:
            self._refuse(403, WRONG_TOKEN)
        elif not urlsplit(self.path).path.startswith(f"/{page.token}/"):
            self._reply(302, "text/plain", b"", to=f"/{page.token}/")
        elif page.is_taken_from(self._client()):
            page.refuse(self.client_address[0])
            self._refuse(403, OTHER_CLIENT)
        elif name == "alive" and page.admit(self._client()):
            self._stay_open()
        elif name == "model" and page.model and page.admit(self._client()):
            self._reply(200, "application/octet-stream", page.model.read_bytes())
        elif name in page.files:
            file = page.files[name]
            kept = 3600 if name.startswith("ort/") else 0
            self._reply(200, page.types[file.suffix], file.read_bytes(), kept)
        else:
            self._refuse(404, "There is nothing here.")

    def do_POST(self) -> None:
        name, page, client = self._name(), self.server.page, self._client()
        body = self._body()
        if body is None:
            return
        if name is None:
            self._refuse(403, WRONG_TOKEN)
        elif not client:
            self._refuse(403, NO_COOKIE)
        elif page.is_taken_from(client) or not page.admit(client):
            page.refuse(self.client_address[0])
            self._refuse(403, OTHER_CLIENT)
        elif name not in ("next", "state"):
            self._refuse(404, "There is nothing here.")
        else:
            self._take(name, body)

    def _take(self, name: str, body: bytes) -> None:
        exchange = self.server.page.exchange
        try:
            if name == "state":
                state = State.model_validate_json(body)
                exchange.hide(state.page, state.hidden)
                self._reply(200, "text/plain", b"")
                return
            message = Message.model_validate_json(body)
        except ValidationError:
            self._refuse(400, "This message is not of hwnas's protocol.")
            return
        command = exchange.receive(message.page, message.number, message.answer, message.hidden)
        self._reply(200, "application/json", json.dumps(command).encode())

    def _name(self) -> str | None:
        """Return the path after the token; None without the right token."""
        found = re.fullmatch(r"/([^/]*)(?:/(.*))?", urlsplit(self.path).path)
        right = found and secrets.compare_digest(found[1].encode(), self.server.page.token.encode())
        return (found[2] or "") if found and right else None

    def _client(self) -> str:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return ""
        return found.value if found and re.fullmatch(ID, found.value) else ""

    def _body(self) -> bytes | None:
        """Return the body of a request; None after a refusal of one that is too long, or of unknown length."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,9}", length, re.ASCII):
            self.close_connection = True
            self._refuse(411, "The length of this message is missing.")
        elif int(length) > MOST_BYTES:
            self.close_connection = True
            self._refuse(413, "This message is too long.")
        else:
            return self.rfile.read(int(length))
        return None

    def _stay_open(self) -> None:
        """Keep a connection open for as long as the page lives, and note its end."""
        exchange = self.server.page.exchange
        page = (parse_qs(urlsplit(self.path).query).get("page") or [""])[0]
        exchange.arrive(page)
        self.close_connection = True
        self._reply(200, "text/plain", None)
        self.connection.settimeout(None)
        try:
            self.rfile.read(1)  # no data comes; it returns when the page dies
        finally:
            exchange.leave(page)

    def _refuse(self, status: int, text: str) -> None:
        """Show a text: as a page to somebody who opens it, as plain text to the page's own requests."""
        if "text/html" not in self.headers.get("Accept", ""):
            self._reply(status, "text/plain", text.encode())
            return
        viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
        style = "font: 1.2rem/1.5 sans-serif; max-width: 36rem; margin: 2rem auto; padding: 0 1rem"
        page = (
            f'<!doctype html><meta charset="utf-8">{viewport}<title>hwnas</title><body style="{style}"><h1>hwnas</h1>'
        )
        self._reply(status, "text/html", f"{page}<p>{html.escape(text)}</p>".encode())

    def _reply(self, status: int, kind: str, content: bytes | None, kept_s: int = 0, to: str = "") -> None:
        self.send_response(status)
        if to:
            self.send_header("Location", to)
        self.send_header("Content-Type", kind if kind.startswith("application") else f"{kind}; charset=utf-8")
        self.send_header("Cache-Control", f"private, max-age={kept_s}" if kept_s else "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        # These two allow the page a fine clock and threads, where the browser trusts the address.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        if content is not None:
            self.send_header("Content-Length", str(len(content)))
        if status == 200 and kind == "text/html" and not self._client():
            scope = f"Path=/{self.server.page.token}/; Max-Age=604800; HttpOnly; SameSite=Lax"
            self.send_header("Set-Cookie", f"{COOKIE}={secrets.token_hex(16)}; {scope}")
        self.end_headers()
        if content:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing for a request."""
