"""Is the machine quiet enough for a table? Asked before anything is timed, and of everything that was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hwnas.errors import HwnasError
from hwnas.profiling.connections.connection import Connection
from hwnas.profiling.models import SENTINEL, write_model
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.protocol import Job, JobValues, Run
from hwnas.profiling.session import run_job, stage
from hwnas.profiling.statistics import WAITED, Estimate, Readings
from hwnas.profiling.timing import is_tight, usual_network_ms
from hwnas.progress import OnProgress
from hwnas.runtimes.device_spec import DeviceSpec
from hwnas.spaces import Workload

QUIET_RUNS = 60
ATTEMPTS, PAUSE_S = 4, 5.0
MOST_WAITED = 0.4  # of the readings may have had to wait for a processor before anything is timed …
MOST_UNUSED = 0.7  # … and of all readings, those that waited being left out
MOST_STOLEN = 0.25  # of the time may a virtual machine's host take away
MOST_DRIFT = 1.0  # the sentinel's 90th percentile may be twice its 10th
MOST_FLOOR = 0.1  # by so much may the same network differ between two halves of its own readings
ENOUGH_ROUNDS = 10  # whoever asks for fewer wants a first look; the report says what it is worth
OR_MARKED = "; --accept-noise makes a table that is marked as noisy"


def check_quiet(
    spec: DeviceSpec, connection: Connection, folder: Path, on_progress: OnProgress, otherwise: str = ""
) -> None:
    """Time the sentinel alone, for less than a second; wait and try again, a few times, while the machine is busy.

    Raises HwnasError when it stays so, with advice that ends in ``otherwise``.
    """
    file = f"quiet{spec.runtime.suffix}"
    write_model(SENTINEL, spec, folder / file)
    job = Job(spec.hardware, spec.threads, spec.batch, {SENTINEL_NAME: file}, [SENTINEL_NAME] * QUIET_RUNS)
    for attempt in range(ATTEMPTS):
        time.sleep(PAUSE_S if attempt else 0)
        (folder / "quiet.jsonl").unlink(missing_ok=True)  # what the machine was like earlier says nothing
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
        found.append(f"other programs held the processor in {waited:.0%} of the readings")
    if stolen > MOST_STOLEN:
        found.append(f"the host of this virtual machine took {stolen:.0%} of its time")
    if high / low - 1 > MOST_DRIFT:
        found.append(f"its speed moved by {high / low - 1:.0%}")
    return found


def stolen_share(job_values: Sequence[JobValues]) -> float | None:
    """The share of the whole time that a virtual machine's host took away; None where the system does not say."""
    known = [(r.stolen, r.wall_ms) for r in job_values if r.stolen is not None]
    return sum(share * ms for share, ms in known) / max(sum(ms for _, ms in known), 1e-9) if known else None


def noise_of(
    plan: ProfilePlan,
    readings: Readings,
    job_values: Sequence[JobValues],
    estimates: Mapping[Workload, Estimate],
    networks: Sequence[str],
) -> list[str]:
    """Why the readings cannot make a table that deserves trust: nothing, on a quiet machine.

    Raises HwnasError, with advice, when there is anything and the plan does not accept noise, or when a number is
    missing: no table has one of those.
    """
    lacking = []
    # Nothing, known closely, is an answer too: a runtime may do an operation inside the one before.
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
    which = f"{spec.host} is" if spec.host else "this machine is"
    return HwnasError(
        f"{which} too noisy for a latency table: {'; '.join(problems)}",
        f"stop other programs ('top' shows them) and run the same command again{otherwise}",
    )
