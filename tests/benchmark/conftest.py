"""Fixtures of tests of benchmarks."""

from __future__ import annotations

import pytest

from hwnas.benchmark.accuracy import AccuracyTable, read_accuracy
from support.benchmarks import PUBLISHED


@pytest.fixture(scope="module")
def published() -> AccuracyTable:
    """Return the published accuracies of all cells."""
    return read_accuracy(str(PUBLISHED))
