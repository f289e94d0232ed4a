"""A client of a page without a browser: it executes commands by answers that a test chooses."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

PHONE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Mobile Safari/537.36"
)
HELLO = {"version": "1.30.0", "agent": PHONE, "isolated": False, "clock_ms": 0.1}
DESCRIBED = {"secure": False, "cores": 8, "model": None, "renderer": "Adreno (TM) 730", "adapter": None}
INFERENCE_MS = 1e-3  # so short that it can have been timed before the answer arrives

Command = dict[str, Any]
Execute = Callable[[Command], dict[str, Any]]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PageClient:
    """One load of a page. ``change`` gets every command and its answer and returns the answer that is sent."""

    def __init__(self, address: str, cookie: str = "", change: Callable[[Command, Any], Any] | None = None) -> None:
        self.address, self.cookie, self.page = urlsplit(address), cookie, uuid.uuid4().hex
        self.change = change or (lambda command, answer: answer)
        self.hello = dict(HELLO)
        self.models_ms: list[float] = []  # the longer, the larger a model's file is
        self.commands: list[Command] = []
        self.stopped = ""
        self.state: dict[str, bool] = {}  # what further messages say of the page: whether it is hidden

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
        """Make a request relative to the page's address, or to its root for a path with a slash in front."""
        connection = http.client.HTTPConnection(self.address.netloc, timeout=30)
        target = path if path.startswith("/") else self.address.path + path
        own = {"Cookie": f"hwnas={self.cookie}"} if self.cookie else {}
        try:
            connection.request(method, target, body, {**own, **headers})
            response = connection.getresponse()
            given = response.getheader("Set-Cookie") or ""
            if given and not self.cookie:
                self.cookie = given.partition("=")[2].partition(";")[0]
            return response.status, response.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def post(self, name: str, **content: Any) -> tuple[int, str]:
        return self.request("POST", name, json.dumps({"page": self.page, **content}).encode())

    def next(self, number: int, answer: Any) -> Command:
        """Post an answer until a command comes back."""
        while True:
            status, text = self.post("next", number=number, answer=answer, **self.state)
            command: Command = json.loads(text) if status == 200 else {"do": "stop", "text": text}
            if command["do"] != "wait":
                return command

    def work(self, until: Callable[[Command], bool] = lambda command: False) -> PageClient:
        """Open the page and execute commands until it is stopped, or until one that is not executed any more.

        Returns the client that ended: the page may have been loaded again.
        """
        assert self.request("GET", "")[0] == 200
        command = self.next(0, self.change({"do": "hello"}, self.hello))
        while command["do"] != "stop" and not until(command):
            self.commands.append(command)
            if command["do"] == "reload":
                again = PageClient(self.address.geturl(), self.cookie, self.change)
                again.hello = self.hello
                return again.work(until)
            command = self.next(command["number"], self.change(command, self.executed(command)))
        self.stopped = command.get("text", "")
        return self

    def executed(self, command: Command) -> dict[str, Any]:
        if command["do"] == "describe":
            return dict(DESCRIBED)
        if command["do"] == "load":
            status, model = self.request("GET", "model")
            assert status == 200
            self.models_ms.append(INFERENCE_MS * (1 + len(model) / 1e4))
            return {"model": len(self.models_ms) - 1, "load_ms": 1.0}
        model_ms = self.models_ms[command["model"]]
        times = [model_ms * (1 + 0.01 * number) for number in range(command["min_blocks"])]
        return {"times": times, "runs": 1, "wall_ms": 2 * sum(times)}

    def start(self, until: Callable[[Command], bool] = lambda command: False) -> threading.Thread:
        """Work in a thread of its own."""
        thread = threading.Thread(target=self.work, args=(until,), daemon=True)
        thread.start()
        return thread
