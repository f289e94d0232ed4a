"""Schema of the outcome of ``hwnas prune`` in ``architecture.json``. Imports no torch."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hwnas.runs.record_units import Accuracy, Milliseconds
from hwnas.validation import Record


class PrunedTiming(Record):
    """A narrower network that was timed, before its training, to find the widths that keep a limit on latency."""

    macs: int
    measured_ms: Milliseconds
    measured_error_ms: Milliseconds
    kept: bool


class PruningResult(Record):
    """The outcome of ``hwnas prune``: ``layers`` has the channels that each layer reads and makes, by its name.

    ``source_sha256`` names the weights of the network that was pruned. What ends in ``_before`` is that network's;
    ``timings`` and ``measured_ms_before`` are there for a limit on latency.
    """

    settings: dict[str, Any]
    source_sha256: str
    layers: dict[str, list[int]]
    macs_before: int
    params_before: int
    validation_accuracy_before: Accuracy
    measured_ms_before: Milliseconds | None = None
    timings: list[PrunedTiming] = Field(default_factory=list)
