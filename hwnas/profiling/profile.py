"""Profile a space on a device: a latency table of all workloads, with a report on how well they add up."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hwnas import __version__
from hwnas.calibration.correction import fit_correction
from hwnas.calibration.residual import fit_residual
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.networks.count import count_workload
from hwnas.networks.plain import require_plain
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.gpu_state import over_processes
from hwnas.profiling.models import repetitions
from hwnas.profiling.names import network_names
from hwnas.profiling.noise import OR_MARKED, check_quiet, noise_of, stolen_share
from hwnas.profiling.plan import (
    ProfilePlan,
    existing,
    models_to_time,
    partial_folder,
    write_models,
)
from hwnas.profiling.protocol import PROTOCOL, JobValues, Start
from hwnas.profiling.session import ask
from hwnas.profiling.statistics import STATISTIC, Estimate, Readings, estimate, read, report, spread
from hwnas.profiling.timing import entry_estimates, is_tight, time_models, usual_network_ms
from hwnas.progress import OnProgress
from hwnas.spaces import Architecture, Workload
from hwnas.spaces.encoding import encode
from hwnas.tables.io import write_table
from hwnas.tables.schema import Entry, LatencyTable, MeasuredNetwork, Protocol, Quality, Runtime, today


def profile(plan: ProfilePlan, out: Path, on_progress: OnProgress) -> LatencyTable:
    """Measure what ``out`` lacks of the space's workloads, fit and report the correction, and write ``out``.

    All models are timed in interleaved rounds, spread over several processes of the profiler, so that entries and
    networks see the same machine. Models with a narrow confidence interval are left out of further processes; the
    others are timed in more. Models and values are kept in ``OUT.partial/`` until the table is written, so that an
    interrupted run resumes.

    Raises HwnasError when ``out`` is a table of another device or runtime, when the profiler fails, or when the machine
    is too noisy for a reliable table and the plan does not accept that.
    """
    require_plain(plan.sized)
    start = ask(plan.spec)
    before = existing(plan, out, start)
    workloads = plan.workloads(before)
    if before and not workloads and plan.sized.key in before.correction:
        if plan.licence and plan.licence != before.licence:
            before = before.model_copy(update={"licence": plan.licence})
            write_table(out, before)
        return before
    folder = partial_folder(plan, out, workloads, start)
    networks = plan.networks()
    models = models_to_time(plan, workloads, networks)
    files = write_models(plan.spec, models, folder, on_progress)
    with connect(plan.spec, folder) as connection:
        if not plan.accept_noise:
            check_quiet(plan.spec, connection, folder, on_progress, OR_MARKED)
        job_values = time_models(plan, files, workloads, connection, folder, on_progress)
    # New values are scaled to the state of the machine that the old ones describe.
    readings = read(job_values, before.quality.sentinel_ms if before else None)
    try:
        noise = noise_of(plan, readings, job_values, entry_estimates(readings, workloads), network_names(networks))
        table = _without_correction(plan, before, job_values, readings, workloads, noise)
        table = _with_correction(table, plan, networks, readings)
    except HwnasError:
        # A further run must not use these values.
        for journal in folder.glob("*.jsonl"):
            journal.unlink()
        raise
    write_table(out, table)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another profile's models may be there
        folder.parent.rmdir()
    return table


def _without_correction(
    plan: ProfilePlan,
    before: LatencyTable | None,
    job_values: Sequence[JobValues],
    readings: Readings,
    workloads: Sequence[Workload],
    noise: Sequence[str],
) -> LatencyTable:
    """Return the table without a correction for this network."""
    estimates = entry_estimates(readings, workloads)
    whole_ms = usual_network_ms(readings)
    entries = list(before.entries) if before else []
    entries += [_entry(readings, workload, found) for workload, found in estimates.items()]
    unstable = {workload.key for workload, found in estimates.items() if not is_tight(found, whole_ms)}
    old = before.quality if before else Quality()
    start = job_values[0].start
    assert start
    return LatencyTable(
        device=start.device,
        runtime=_runtime(plan, start),
        protocol=_protocol(plan, job_values, readings),
        quality=Quality(
            sentinel_ms=old.sentinel_ms or readings.sentinel_ms,
            sentinel_drift=readings.drift,
            worst_relative_error=_worst_relative_error(entries),
            unstable=sorted(unstable | set(old.unstable)),
            noise=list(dict.fromkeys([*old.noise, *noise])),
            additivity=old.additivity,
            residual=old.residual,
        ),
        correction=before.correction if before else {},
        networks=before.networks if before else {},
        provenance="measured",
        source="hwnas profile",
        licence=plan.licence or (before.licence if before else ""),
        entries=entries,
    )


def _entry(readings: Readings, workload: Workload, found: Estimate) -> Entry:
    few, many = repetitions(workload)
    p10_ms, p90_ms = spread(readings, f"{workload.key}@{few}", f"{workload.key}@{many}", many - few)
    counts = count_workload(workload)
    return Entry(
        **asdict(workload),
        latency_ms=max(found.latency_ms, 0.0),
        error_ms=known(found.error_ms),
        p10_ms=p10_ms,
        p90_ms=p90_ms,
        samples=len(readings.run_times[f"{workload.key}@{many}"]),
        macs=counts.macs_fvcore,
        macs_conv_linear=counts.macs_conv_linear,
        params=counts.params,
    )


def _runtime(plan: ProfilePlan, start: Start) -> Runtime:
    return Runtime(
        name=start.runtime,
        version=start.version,
        provider=start.provider,
        threads=plan.spec.threads,
        batch=plan.spec.batch,
        precision=plan.spec.precision,
        options={**start.options, **plan.spec.table_options},
    )


def _protocol(plan: ProfilePlan, job_values: Sequence[JobValues], readings: Readings) -> Protocol:
    job, start = job_values[0].job, job_values[0].start
    assert start
    return Protocol(
        version=PROTOCOL,
        statistic=STATISTIC,
        rounds=plan.rounds,
        processes=len(job_values),
        visit_ms=job.visit_ms,
        warmup_ms=job.warmup_ms,
        processors=start.processors,
        governor=start.governor,
        load=start.load,
        waited=readings.waited,
        stolen=stolen_share(job_values),
        gpu=over_processes(job_values),
        clock_ms=start.clock_ms,
        date=today(),
        tool_version=__version__,
    )


def _worst_relative_error(entries: Sequence[Entry]) -> float | None:
    """Return the largest relative error of an entry; None if the error of any entry is unknown."""
    errors = [(entry.error_ms, entry.latency_ms) for entry in entries if entry.latency_ms > 0]
    return (
        max((error / ms for error, ms in errors if error is not None), default=None)
        if all(error is not None for error, _ in errors)
        else None
    )


def known(error_ms: float) -> float | None:
    """Return an error as a table holds it: None if it is infinite, as with a single process."""
    return error_ms if math.isfinite(error_ms) else None


def _with_correction(
    table: LatencyTable, plan: ProfilePlan, networks: Sequence[Architecture], readings: Readings
) -> LatencyTable:
    """Fit the correction on the first networks and report on the others."""
    if not networks:
        return table
    process_times = [readings.process_times[name] for name in network_names(networks)]
    found = [estimate(values) for values in process_times]
    measured = np.array([each.latency_ms for each in found])
    choices = encode(plan.sized.space, list(networks))
    fitted = len(networks) * plan.fit_networks // (plan.fit_networks + plan.report_networks)
    correction = fit_correction(table, plan.sized, choices[:fitted], measured[:fitted], plan.spec.rewrites)
    timed = [
        MeasuredNetwork(
            architecture=plan.sized.space.format(architecture, True),
            latency_ms=each.latency_ms,
            error_ms=known(each.error_ms),
            fitted=number < fitted,
        )
        for number, (architecture, each) in enumerate(zip(networks, found, strict=True))
    ]
    table = table.model_copy(
        update={
            "correction": {**table.correction, plan.sized.key: correction},
            "networks": {**table.networks, plan.sized.key: timed},
        }
    )
    model = build_cost_models(table, plan.sized)[LATENCY.name]
    additivity = report(model.predict_many(choices[fitted:]), process_times[fitted:])
    residual = report(fit_residual(table, plan.sized).predict_many(choices[fitted:]), process_times[fitted:])
    quality = table.quality.model_copy(
        update={
            "additivity": {**table.quality.additivity, plan.sized.key: additivity},
            "residual": {**table.quality.residual, plan.sized.key: residual},
        }
    )
    return table.model_copy(update={"quality": quality})
