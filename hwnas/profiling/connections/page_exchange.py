"""The exchange with a page: commands go out and answers come back, one at a time.

The page asks for its next command with a message that holds the answer to the last one, and repeats the message until
it gets a reply. So a cut connection loses nothing. The threads of the server call ``receive``, ``hide``, ``leave`` and
``arrive``; the thread that runs a job calls ``fresh`` and ``ask``.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from hwnas.errors import HwnasError
from hwnas.text import duration

POLL_S = 20.0  # until a page without a command is to ask again
OPEN_S = 600.0  # for a page to be opened at all
AWAY_S = 900.0  # for a page that was hidden, closed or silent to come back
GRACE_S = 5.0  # a page that is hidden or closed may just be loading again
SILENT_S = 60.0  # a page that computes does not ask, but not for so long
LOOK_S = 0.25
OTHER_TAB = "This page was opened again, in another tab or window, which has taken over."
RESUME = "run the same command again to resume, and open the address that it prints"

Command = dict[str, Any]


class PageReplacedError(Exception):
    """The page was loaded again: the models that it held are gone."""


class Exchange:
    """Commands to one page at a time: the one that was loaded last."""

    def __init__(self) -> None:
        self.address = ""  # where to open the page
        self.used = False  # whether the page holds models, or scripts of another job
        self.hello: Any = None  # what the page said first
        self._changed = threading.Condition()
        self._page = self._job_page = ""
        self._pages: set[str] = set()
        self._number = 0
        self._command: Command | None = None
        self._answer: Any = None
        self._seen_s = 0.0
        self._hidden_s: float | None = None
        self._closed_s: float | None = None
        self._ended = ""
        self._told = threading.Event()

    # --- for the threads of the server

    def receive(self, page: str, number: int, answer: Any, hidden: bool | None = None) -> Command:
        """Take a message of a page; return its next command, after ``POLL_S`` the command to ask again.

        ``hidden`` as in ``hide``; None where the message does not say.
        """
        with self._changed:
            if number == 0 and page not in self._pages:
                self._pages.add(page)
                self._page, self.hello, self.used = page, answer, False
                self._command = self._answer = self._hidden_s = None
            elif page == self._page and self._command and number == self._number:
                self._command, self._answer = None, answer
            if page == self._page:
                self._meet()
                self._note_hidden(hidden)
            self._changed.wait_for(lambda: self._command or self._ended or page != self._page, POLL_S)
            if page != self._page:
                return {"do": "stop", "text": OTHER_TAB}
            self._seen_s = time.monotonic()
            if self._ended:
                self._told.set()
                return {"do": "stop", "text": self._ended}
            return self._command or {"do": "wait"}

    def arrive(self, page: str) -> None:
        """Note that a page has opened the connection that stays open."""
        with self._changed:
            if page == self._page:
                self._meet()

    def leave(self, page: str) -> None:
        """Note that this connection has ended: the page is closed, or cut off."""
        with self._changed:
            if page == self._page:
                self._closed_s = time.monotonic()

    def hide(self, page: str, hidden: bool) -> None:
        """Note that a page is hidden, and computes nothing, or visible again."""
        with self._changed:
            if page == self._page:
                self._meet()
                self._note_hidden(hidden)

    def _note_hidden(self, hidden: bool | None) -> None:
        if hidden is not None:
            self._hidden_s = (self._hidden_s or time.monotonic()) if hidden else None

    def _meet(self) -> None:
        self._seen_s, self._closed_s = time.monotonic(), None
        self._changed.notify_all()

    # --- for the thread of the job

    @property
    def opened(self) -> bool:
        return bool(self._page)

    def fresh(self, what_to_try: str) -> Any:
        """Return the first message of a page without models; one that holds some is loaded again.

        Raises HwnasError, with ``what_to_try``, when no page is opened at all, and as ``ask`` does.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._page, OPEN_S):
                raise HwnasError(f"no browser has opened the page for {duration(OPEN_S)}", what_to_try)
            if self.used:
                page = self._page
                self._send({"do": "reload"})
                self._wait(lambda: self._page != page)
            self._job_page = self._page
            return self.hello

    def ask(self, command: Command) -> Any:
        """Return the answer to a command of the page that ``fresh`` has returned.

        A page that is hidden, closed or silent is waited for, and named on standard error. Raises PageReplacedError
        when it was loaded again, HwnasError when it stays away for ``AWAY_S``.
        """
        with self._changed:
            if self._page == self._job_page:
                self._send(command)
                self._wait(lambda: self._answer is not None or self._page != self._job_page)
            if self._page != self._job_page:
                raise PageReplacedError
            return self._answer

    def end(self, text: str, within_s: float) -> None:
        """Let the page show a last text; wait for a while until it has it."""
        with self._changed:
            self._ended = text
            self._changed.notify_all()
        if self.opened:
            self._told.wait(within_s)

    def _send(self, command: Command) -> None:
        self._number += 1
        self._command, self._answer = {**command, "number": self._number}, None
        self._seen_s = max(self._seen_s, time.monotonic())
        self._changed.notify_all()

    def _wait(self, done: Callable[[], bool]) -> None:
        said = ""
        while not done():
            reason, since_s = self._away()
            if reason != said:
                log(reason or "the page is back")
                said = reason
            if reason and time.monotonic() - since_s > AWAY_S:
                raise HwnasError(f"{reason.split(':')[0]}, for {duration(AWAY_S)}", RESUME)
            self._changed.wait(LOOK_S)
        if said:
            log("the page is back")

    def _away(self) -> tuple[str, float]:
        """Return why the page computes nothing, and since when; nothing if it does as far as is known."""
        now_s = time.monotonic()
        if self._closed_s is not None and now_s - self._closed_s > GRACE_S:
            return f"the page is closed or cut off: open {self.address} again", self._closed_s
        if self._hidden_s is not None and now_s - self._hidden_s > GRACE_S:
            return "the page is hidden: bring it to the front and keep the screen on", self._hidden_s
        if now_s - self._seen_s > SILENT_S:
            return f"the page has not answered for {duration(SILENT_S)}: is the device asleep?", self._seen_s
        return "", 0.0


def log(text: str) -> None:
    """Print one line about the page on standard error."""
    print(f"hwnas: {text}", file=sys.stderr, flush=True)
