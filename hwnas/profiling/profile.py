"""A complete latency table for a space on a device: every workload, and proof of how well their sums add up."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from hwnas import __version__
from hwnas.calibration.correction import fit_correction
from hwnas.calibration.residual import fit_residual
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.networks.count import count_workload
from hwnas.profiling.models import repetitions
from hwnas.profiling.names import network_names
from hwnas.profiling.noise import OR_MARKED, check_quiet, noise_of, stolen_share
from hwnas.profiling.plan import (
    ProfilePlan,
    existing,
    models_to_time,
    partial_folder,
    random_architectures,
    write_models,
)
from hwnas.profiling.session import PROTOCOL, Recording, ask, connect
from hwnas.profiling.statistics import STATISTIC, Readings, estimate, read, report, spread
from hwnas.profiling.timing import entry_estimates, is_tight, time_models, usual_network_ms
from hwnas.spaces import Architecture, Workload
from hwnas.spaces.encoding import encode
from hwnas.tables.io import write_table
from hwnas.tables.schema import Entry, LatencyTable, MeasuredNetwork, Protocol, Quality, Runtime, today

Progress = Callable[[str, int, int], None]


def profile(plan: ProfilePlan, out: Path, progress: Progress) -> LatencyTable:
    """Measure what ``out`` lacks of the space's workloads, fit and report the correction, and write ``out``.

    Everything is timed in interleaved rounds, spread over several processes of the profiler, so that entries and
    networks meet the same machine. What has a tight confidence interval is left out of further processes; what has not
    is timed in more. Models and readings are kept in ``OUT.partial/`` until the table is written: a killed run goes on
    from there.

    Raises HwnasError when ``out`` is a table of another device or runtime, when the profiler fails, or when the machine
    is too noisy to give a table that can be trusted and the plan does not accept that.
    """
    start = ask(plan.spec)
    before = existing(plan, out, start)
    workloads = plan.workloads(before)
    if before and not workloads and plan.sized.key in before.correction:
        if plan.licence and plan.licence != before.licence:
            before = before.model_copy(update={"licence": plan.licence})
            write_table(out, before)
        return before
    folder = partial_folder(plan, out, workloads, start)
    networks = random_architectures(plan)
    models = models_to_time(plan, workloads, networks)
    files = write_models(plan.spec, models, folder, progress)
    with connect(plan.spec, folder) as lines:
        if not plan.accept_noise:
            check_quiet(plan.spec, lines, folder, progress, OR_MARKED)
        recordings = time_models(plan, files, workloads, lines, folder, progress)
    # New readings are brought to the state of the machine that the old ones describe.
    readings = read(recordings, before.quality.sentinel_ms if before else None)
    try:
        noise = noise_of(plan, readings, recordings, entry_estimates(readings, workloads), network_names(networks))
        table = _assemble(plan, before, recordings, readings, workloads, noise)
        table = _with_correction(table, plan, networks, readings)
    except HwnasError:
        # A further run must not believe these readings.
        for journal in folder.glob("*.jsonl"):
            journal.unlink()
        raise
    write_table(out, table)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # another question's models may be there
        folder.parent.rmdir()
    return table


def _assemble(
    plan: ProfilePlan,
    before: LatencyTable | None,
    recordings: Sequence[Recording],
    readings: Readings,
    workloads: Sequence[Workload],
    noise: Sequence[str],
) -> LatencyTable:
    """The table without a correction for this network."""
    estimates = entry_estimates(readings, workloads)
    whole_ms = usual_network_ms(readings)
    entries = list(before.entries) if before else []
    for workload, found in estimates.items():
        few, many = repetitions(workload)
        p10_ms, p90_ms = spread(readings, f"{workload.key}@{few}", f"{workload.key}@{many}", many - few)
        counts = count_workload(workload)
        entries.append(
            Entry(
                **asdict(workload),
                latency_ms=max(found.latency_ms, 0.0),
                error_ms=known(found.error_ms),
                p10_ms=p10_ms,
                p90_ms=p90_ms,
                samples=len(readings.rounds[f"{workload.key}@{many}"]),
                macs=counts.macs_fvcore,
                macs_conv_linear=counts.macs_conv_linear,
                params=counts.params,
            )
        )
    unstable = {workload.key for workload, found in estimates.items() if not is_tight(found, whole_ms)}
    old = before.quality if before else Quality()
    start = recordings[0].start
    assert start
    return LatencyTable(
        device=start.device,
        runtime=Runtime(
            name=start.runtime,
            version=start.version,
            provider=start.provider,
            threads=plan.spec.threads,
            batch=plan.spec.batch,
            precision=plan.spec.precision,
            options=start.options,
        ),
        protocol=Protocol(
            version=PROTOCOL,
            statistic=STATISTIC,
            rounds=plan.rounds,
            processes=len(recordings),
            visit_ms=recordings[0].job.visit_ms,
            warmup_ms=recordings[0].job.warmup_ms,
            processors=start.processors,
            governor=start.governor,
            load=start.load,
            waited=readings.waited,
            stolen=stolen_share(recordings),
            date=today(),
            tool_version=__version__,
        ),
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


def _worst_relative_error(entries: Sequence[Entry]) -> float | None:
    """None when the error of any entry is not known."""
    errors = [(entry.error_ms, entry.latency_ms) for entry in entries if entry.latency_ms > 0]
    return (
        max((error / ms for error, ms in errors if error is not None), default=None)
        if all(error is not None for error, _ in errors)
        else None
    )


def known(error_ms: float) -> float | None:
    """An error as a table holds it: None where one process alone gives none."""
    return error_ms if math.isfinite(error_ms) else None


def _with_correction(
    table: LatencyTable, plan: ProfilePlan, networks: Sequence[Architecture], readings: Readings
) -> LatencyTable:
    """Fit the correction on the first networks, report on the others."""
    if not networks:
        return table
    passes = [readings.passes[name] for name in network_names(networks)]
    found = [estimate(values) for values in passes]
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
    model = build_cost_models(table, plan.sized)["latency_ms"]
    additivity = report(model.predict_many(choices[fitted:]), passes[fitted:])
    residual = report(fit_residual(table, plan.sized).predict_many(choices[fitted:]), passes[fitted:])
    quality = table.quality.model_copy(
        update={
            "additivity": {**table.quality.additivity, plan.sized.key: additivity},
            "residual": {**table.quality.residual, plan.sized.key: residual},
        }
    )
    return table.model_copy(update={"quality": quality})
