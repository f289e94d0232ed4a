"""The published accuracies, and benchmarks whose searches run in the process of the tests, which has imported torch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from hwnas.benchmark import processes
from hwnas.benchmark.plan import BenchmarkRun
from hwnas.benchmark.worker import search_one
from hwnas.progress import Progress
from support.paths import SHARED

PUBLISHED = SHARED / "nb201_accuracy.csv.gz"
needs_accuracies = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not there")


def search_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a benchmark run the searches of its workers one after another, without their processes."""

    def run_all(runs: Sequence[BenchmarkRun], jobs: int, progress: Progress) -> None:
        threads = torch.get_num_threads()
        for run in runs:
            search_one(run.folder, lambda message, run=run: processes._handle_message(run, message, progress))  # type: ignore[misc]
        torch.set_num_threads(threads)

    monkeypatch.setattr("hwnas.benchmark.benchmark.run_processes", run_all)
