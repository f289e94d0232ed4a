"""Timings that take a fraction of their time, for tests that need a table or a latency, but not its precision."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from hwnas.profiling import assemble
from hwnas.profiling.protocol import Job

SHORT_JOB = partial(Job, first_warmup_ms=1.0, visit_ms=0.5)


def shorten_timings(patch: pytest.MonkeyPatch, pieces: Path) -> None:
    """Run every model for a moment and in few processes. ``pieces`` is a folder of exported operations to share."""
    export = assemble._piece
    patch.setattr("hwnas.profiling.protocol.Job", SHORT_JOB)
    patch.setattr("hwnas.profiling.plan.MOST_PROCESSES", 1)
    patch.setattr("hwnas.export.timing.PROCESSES", 3)
    patch.setattr(assemble, "_piece", lambda workload, folder, opset: export(workload, pieces, opset))
