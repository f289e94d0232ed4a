"""Check whether the machine is quiet enough for a table, before the timing and from its values."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hwnas.errors import HwnasError
from hwnas.profiling.connections.connection import Connection
from hwnas.profiling.gpu_state import throttling
from hwnas.profiling.models import SENTINEL, write_model
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.protocol import JobValues, Run, new_job
from hwnas.profiling.session import run_job, stage
from hwnas.profiling.statistics import WAITED, Estimate, Readings
from hwnas.profiling.timing import is_tight, usual_network_ms
from hwnas.progress import OnProgress
from hwnas.runtimes.device_spec import PAGE, DeviceSpec
from hwnas.spaces import Workload

QUIET_RUNS = 60
ATTEMPTS, PAUSE_S = 4, 5.0
MOST_WAITED = 0.4  # largest share of runs that waited for a processor, before the timing …
MOST_UNUSED = 0.7  # … and during it, where runs that waited are not used
MOST_STOLEN = 0.25  # largest share of time that a virtual machine's host takes away
MOST_DRIFT = 1.0  # the sentinel's 90th percentile may be twice its 10th
MOST_FLOOR = 0.1  # largest difference of the same network between two halves of its values
ENOUGH_ROUNDS = 10  # with fewer rounds the floor is not checked: the table is a first look
OR_MARKED = "; --accept-noise makes a table that is marked as noisy"


def check_quiet(
    spec: DeviceSpec, connection: Connection, folder: Path, on_progress: OnProgress, otherwise: str = ""
) -> None:
    """Time the sentinel alone, for less than a second. Wait and try again, a few times, while the machine is busy.

    Raises HwnasError when it stays busy, with a fix that ends in ``otherwise``.
    """
    file = f"quiet{spec.runtime.suffix}"
    write_model(SENTINEL, spec, folder / file)
    job = new_job(spec, {SENTINEL_NAME: file}, [SENTINEL_NAME] * QUIET_RUNS)
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S if attempt else 0)
        (folder / "quiet.jsonl").unlink(missing_ok=True)  # an earlier state of the machine does not count
        again = f"is it quiet now? (attempt {attempt + 1} of {ATTEMPTS})"
        on_run = stage(on_progress, again if attempt else "is the machine quiet?", job)
        values = run_job(connection, job, folder, "quiet", on_run)
        problems = _problems(values.runs, [values], MOST_WAITED)
        if not problems:
            return
    raise too_noisy(problems, spec, otherwise)


def _problems(runs: Sequence[Run], job_values: Sequence[JobValues], most_waited: float) -> list[str]:
    sentinels = [run.min_ms for run in runs if run.model == SENTINEL_NAME]
    low, high = np.percentile(sentinels, [10, 90])
    waited = float(np.mean([run.waited > WAITED for run in runs]))
    stolen = stolen_share(job_values) or 0.0
    found = []
    if waited > most_waited:
        found.append(f"other programs held the processor in {waited:.0%} of the runs")
    if stolen > MOST_STOLEN:
        found.append(f"the host of this virtual machine took {stolen:.0%} of its time")
    if slowed := throttling(job_values):
        found.append(slowed)
    if high / low - 1 > MOST_DRIFT:
        found.append(f"its speed moved by {high / low - 1:.0%}")
    return found


def stolen_share(job_values: Sequence[JobValues]) -> float | None:
    """Return the share of time that a virtual machine's host took away; None if the system does not report it."""
    known = [(r.stolen, r.wall_ms) for r in job_values if r.stolen is not None]
    return sum(share * ms for share, ms in known) / max(sum(ms for _, ms in known), 1e-9) if known else None


def noise_of(
    plan: ProfilePlan,
    readings: Readings,
    job_values: Sequence[JobValues],
    estimates: Mapping[Workload, Estimate],
    networks: Sequence[str],
) -> list[str]:
    """Return the reasons why the values do not make a reliable table; none on a quiet machine.

    Raises HwnasError when there are reasons and the plan does not accept noise, and when a latency is missing.
    """
    lacking = []
    # A latency of zero, if precise, is valid: a runtime may do an operation inside the one before.
    whole_ms = usual_network_ms(readings)
    bad = [w.key for w, found in estimates.items() if not found.latency_ms > 0 and not is_tight(found, whole_ms)]
    if bad:
        lacking.append(f"{len(bad)} workloads have no positive latency ({', '.join(bad[:3])})")
    unread = [name for name, values in readings.process_times.items() if np.isnan(values).all()]
    if unread:
        lacking.append(f"{len(unread)} models were never timed undisturbed")
    if lacking:
        raise too_noisy(lacking, plan.spec)
    runs = [run for values in job_values for run in values.runs]
    problems = _problems(runs, job_values, MOST_UNUSED)
    halves = [readings.process_times[name][~np.isnan(readings.process_times[name])] for name in networks]
    floor = [abs(np.median(v[::2]) / np.median(v[1::2]) - 1) for v in halves if len(v) > 1]
    if plan.rounds >= ENOUGH_ROUNDS and floor and np.mean(floor) > MOST_FLOOR:
        problems.append(f"the same networks timed twice differ by {np.mean(floor):.1%}")
    if problems and not plan.accept_noise:
        raise too_noisy(problems, plan.spec, OR_MARKED)
    return problems


def too_noisy(problems: Sequence[str], spec: DeviceSpec, otherwise: str = "") -> HwnasError:
    which, quieter = f"{spec.host or 'this machine'} is", "stop other programs ('top' shows them)"
    if spec.hardware == PAGE:
        which, quieter = "the device of the page is", "close its other tabs and programs, plug it in, let it cool down,"
    return HwnasError(
        f"{which} too noisy for a latency table: {'; '.join(problems)}",
        f"{quieter} and run the same command again{otherwise}",
    )
