"""The published accuracies, and benchmarks whose searches run in the process of the tests, which has imported torch."""

from __future__ import annotations

import pytest

from hwnas.jobs.in_process import InProcess
from support.paths import SHARED

PUBLISHED = SHARED / "nb201_accuracy.csv.gz"
needs_accuracies = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not there")


def search_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the local executor run the jobs of a benchmark or a search one after another in this process."""
    monkeypatch.setattr("hwnas.jobs.choose.LocalExecutor", lambda workers, threads: InProcess(threads))
