"""Check whether a table still describes its device, by timing the sentinel and a sample of entries again."""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwnas.errors import HwnasError
from hwnas.files import canonical_json
from hwnas.profiling.assemble import Assembled
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.models import SENTINEL, repeated, repetitions
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.noise import check_quiet, too_noisy
from hwnas.profiling.plan import write_models
from hwnas.profiling.protocol import Start, make_job
from hwnas.profiling.session import run_job, stage
from hwnas.profiling.statistics import read, slope
from hwnas.progress import OnProgress
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.tables.schema import LatencyTable

PROCESSES, ROUNDS = 4, 6
TOLERATED = 0.1  # the relative difference of an entry that is tolerated, beyond both errors
SLOWDOWN = 0.15  # … of the sentinel, or as much as it moved when the table was made
MOST_OUTSIDE = 0.1  # the share of entries that may differ by more: intervals are of 95 %


@dataclass(frozen=True)
class CheckedEntry:
    """One entry then and now, scaled to the same state of the machine. ``ratio`` may differ from 1 by ``tolerance``."""

    key: str
    table_ms: float
    now_ms: float
    ratio: float
    tolerance: float


@dataclass(frozen=True)
class Checked:
    """The result of a check: ``entries``, worst first, and ``problems``, sentences about what differs, if anything."""

    slowdown: float
    entries: list[CheckedEntry]
    problems: list[str]


def check_table(table: LatencyTable, spec: DeviceSpec, sample: int, on_progress: OnProgress) -> Checked:
    """Time ``sample`` entries again, chosen at random with a fixed seed.

    Raises HwnasError when the table has no latency of the sentinel, or the machine is too noisy now.
    """
    if not table.quality.sentinel_ms:
        raise HwnasError("the table has no latency of the sentinel", "profile the device again with 'hwnas profile'")
    measurable = [entry for entry in table.entries if entry.latency_ms > 0]
    chosen = sorted(random.Random(0).sample(measurable, min(sample, len(measurable))), key=lambda e: e.workload)
    models: dict[str, Assembled] = {SENTINEL_NAME: SENTINEL}
    for entry in chosen:
        models |= repeated(entry.workload, spec)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder, job_values = Path(name), []
        files = write_models(spec, models, folder, on_progress)
        with connect(spec, folder) as connection:
            check_quiet(spec, connection, folder, on_progress)
            for number in range(PROCESSES):
                job = make_job(spec, files, ROUNDS, number, {})
                on_run = stage(on_progress, f"timing, process {number + 1} of {PROCESSES}", job)
                job_values.append(run_job(connection, job, folder, f"pass{number}", on_run))
    readings = read(job_values, table.quality.sentinel_ms)
    slowdown = readings.sentinel_ms / table.quality.sentinel_ms
    entries = []
    for entry in chosen:
        few, many = repetitions(entry.workload)
        now = slope(readings, f"{entry.workload.key}@{few}", f"{entry.workload.key}@{many}", many - few)
        if not np.isfinite([now.latency_ms, now.error_ms]).all():
            raise too_noisy([f"{entry.workload.key} was never timed twice undisturbed"], spec)
        tolerance = TOLERATED + (now.error_ms + (entry.error_ms or 0.0)) / entry.latency_ms
        ratio = now.latency_ms / entry.latency_ms
        entries.append(CheckedEntry(entry.workload.key, entry.latency_ms, now.latency_ms, ratio, tolerance))
    entries.sort(key=lambda e: -abs(e.ratio - 1) / e.tolerance)
    start = job_values[0].start
    assert start
    return Checked(slowdown, entries, [*_differences(table, spec, start), *_deviations(table, slowdown, entries)])


def _differences(table: LatencyTable, spec: DeviceSpec, start: Start) -> list[str]:
    """Return sentences about the differences between the device and runtime and those of the table."""
    pairs = {
        "device": (table.device.name, start.device.name),
        "system": (table.device.os, start.device.os),
        "runtime": (table.runtime.name, start.runtime),
        "version of the runtime": (table.runtime.version, start.version),
        "provider": (table.runtime.provider, start.provider),
        "options": (canonical_json(table.runtime.options), canonical_json({**start.options, **spec.table_options})),
    }
    found = [f"the {what} was {then}, is {now}" for what, (then, now) in pairs.items() if then != now]
    if not found and table.device.fingerprint != start.device.fingerprint:
        found.append("the number of cores or the memory is another")
    return found


def _deviations(table: LatencyTable, slowdown: float, entries: list[CheckedEntry]) -> list[str]:
    found = []
    allowed = max(SLOWDOWN, table.quality.sentinel_drift or 0.0)
    if not 1 / (1 + allowed) <= slowdown <= 1 + allowed:
        found.append(f"the machine takes {slowdown:.2f} times as long as then, where {allowed:.0%} is usual")
    outside = [entry for entry in entries if not abs(entry.ratio - 1) <= entry.tolerance]
    if len(outside) > MOST_OUTSIDE * len(entries):
        worst = ", ".join(f"{entry.key} ({entry.ratio:.2f})" for entry in outside[:3])
        found.append(f"{len(outside)} of {len(entries)} entries differ beyond their errors: {worst}")
    middle = float(np.median([entry.ratio for entry in entries]))
    if abs(middle - 1) > TOLERATED:
        found.append(f"entries are {middle:.2f} times what they were, the sentinel's drift divided out")
    return found
