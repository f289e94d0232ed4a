"""Progress in a log: few lines, each with the time left, estimated from this run's own part of the stage."""

from __future__ import annotations

import pytest

from hwnas import progress as module
from hwnas.progress import Progress


def test_a_log_gets_few_lines_with_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with Progress() as progress:
        for _ in range(2):  # the second use of a stage starts anew, an hour later
            for done in range(31):
                progress("timing", done, 30)
                clock[0] += 1
            progress("timing", 30, 30)
            clock[0] += 3600
        progress.log("done")
    once = ["timing: 5/30, 25 s left", "timing: 15/30, 15 s left", "timing: 25/30, 5 s left", "timing: 30/30"]
    assert capsys.readouterr().err.splitlines() == [*once, *once, "done"]


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(quiet=True) as progress:
        progress("timing", 1, 2)
        progress.log("something")
    assert capsys.readouterr().err == ""
