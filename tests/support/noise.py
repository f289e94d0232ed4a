"""Tests that time this machine skip, with the measured noise, when other programs disturb it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

import pytest

from hwnas.tables.schema import LatencyTable

ATTEMPTS = 3
Outcome = TypeVar("Outcome")


def assert_timing(holds: bool, *tables: LatencyTable) -> None:
    """Check a statement about timings, unless the tables of the same minutes record that the machine was too noisy."""
    noise = [problem for table in tables for problem in table.quality.noise]
    if not holds and noise:
        pytest.skip(f"the machine was too noisy to time anything: {'; '.join(noise)}")
    assert holds


def skip_for_noise(message: str) -> NoReturn:
    """Skip the test with the first line of a command's output that says how noisy the machine was."""
    line = next(line for line in message.splitlines() if "too noisy" in line)
    pytest.skip(f"the machine stayed too noisy in every attempt: {line.strip()}")


def until_quiet(call: Callable[[], Outcome], printed: Callable[[Outcome], str]) -> Outcome:
    """Return the outcome of a command that times this machine; repeat it while noise keeps it from a number, then skip.

    ``printed`` gives what the command printed.
    """
    for _ in range(ATTEMPTS):
        outcome = call()
        if "too noisy" not in printed(outcome):
            return outcome
    skip_for_noise(printed(outcome))
