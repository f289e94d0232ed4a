"""A complete latency table for a space on a device: every workload, and proof of how well their sums add up."""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.cost.model import build_cost_models, decode, encode
from hwnas.cost.networks import network_key
from hwnas.errors import HwnasError
from hwnas.files import sha256_of
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count
from hwnas.operations import build_operation, num_inputs
from hwnas.profiling.device import DeviceSpec, this_device
from hwnas.profiling.models import (
    SENTINEL,
    SENTINEL_COPIES,
    Chain,
    randomise,
    repetitions,
    timed_module,
    write_model,
)
from hwnas.profiling.session import SENTINEL_NAME, Job, Recording, make_job, run_job
from hwnas.profiling.statistics import (
    STATISTIC,
    Slope,
    Timings,
    correct_drift,
    fit_correction,
    report_additivity,
    slope,
)
from hwnas.spaces import Architecture, SearchSpace, Setting, Workload
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Entry, LatencyTable, Protocol, Quality, Runtime, today

UNSTABLE = 0.25  # relative error of the median beyond which an entry is marked
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ProfilePlan:
    """What to measure and how long: rounds over all workloads, networks for the correction and for its report."""

    spec: DeviceSpec
    space: SearchSpace
    setting: Setting
    rounds: int = 30
    fit_networks: int = 10
    report_networks: int = 20
    licence: str = ""


def profile(plan: ProfilePlan, out: Path, progress: Progress) -> LatencyTable:
    """Measure what ``out`` lacks of the space's workloads, fit and report the correction, and write ``out``.

    Everything is timed in one set of interleaved rounds, so that entries and networks meet the same machine. Models
    and readings are kept in ``OUT.partial/`` until the table is written: a killed run goes on from there.

    Raises HwnasError when ``out`` is a table of another device or runtime, when the profiler fails, or when the machine
    is too noisy to give every workload a positive latency.
    """
    before = _existing(plan, out)
    network = plan.space.network(plan.setting)
    known = {entry.workload for entry in before.entries} if before else set()
    workloads = [workload for workload in network.workloads() if workload not in known]
    key = network_key(plan.space, plan.setting)
    if before and not workloads and key in before.correction:
        return before
    made_of = [__version__, plan.spec.text, key, [w.key for w in workloads], plan.fit_networks, plan.report_networks]
    folder = out.with_name(out.name + ".partial") / sha256_of(made_of)[:12]
    _make(folder)

    networks = _random_architectures(plan)
    models = _write_models(plan, workloads, networks, folder, progress)
    job = make_job(plan.spec, models, plan.rounds)
    recording = run_job(plan.spec, job, folder, lambda done: progress("timing", done, len(job.visits)))
    # New readings are brought to the state of the machine that the old ones describe.
    reference_ms = before.quality.sentinel_ms if before else None
    timings = correct_drift(recording.visits, reference_ms)

    slopes = {}
    for w in workloads:
        few, many = repetitions(w)
        slopes[w] = slope(timings.rounds_ms[f"{w.key}@{few}"], timings.rounds_ms[f"{w.key}@{many}"], many - few)
    _refuse_nonpositive(slopes, timings.drift)
    table = _assemble(plan, before, job, recording, timings, slopes)
    table = _with_correction(plan, table, networks, timings)
    write_table(out, table)
    shutil.rmtree(folder.parent, ignore_errors=True)
    return table


def _existing(plan: ProfilePlan, out: Path) -> LatencyTable | None:
    """The table that ``out`` already holds, if it is of this very device and runtime."""
    device = this_device(plan.spec)
    if not out.exists():
        return None
    try:
        table = read_table(out)
    except HwnasError as error:
        raise HwnasError(error.problem, f"remove it (rm {out}) or write to another file with --out") from None
    spec, runtime = plan.spec, table.runtime
    installed = importlib.import_module(spec.runtime).__version__
    here = (device.fingerprint, spec.runtime, installed, spec.threads, spec.batch)
    there = (table.device.fingerprint, runtime.name, runtime.version, runtime.threads, runtime.batch)
    if here != there:
        raise HwnasError(
            f"{out} is a table of another device or runtime ({table.describe()})", "write to another file with --out"
        )
    return table


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
    except OSError as error:
        raise HwnasError(
            f"cannot write to folder {folder.parent.parent}: {error.strerror}", "give another --out"
        ) from error


def _random_architectures(plan: ProfilePlan) -> list[Architecture]:
    """Different random architectures that have at least one path from input to output in every cell."""
    generator = np.random.default_rng(201)
    found: dict[Architecture, None] = {}
    wanted = min(plan.fit_networks + plan.report_networks, plan.space.num_architectures // 4)
    while len(found) < wanted:
        choices: NDArray[np.intp] = generator.integers(len(plan.space.operations), size=plan.space.num_edges)
        architecture = decode(plan.space, choices)
        cells = zip(plan.space.cells.values(), architecture.cells, strict=True)
        if all(any(cell.live_edges(operations)) for cell, operations in cells):
            found[architecture] = None
    return list(found)


def _write_models(
    plan: ProfilePlan, workloads: list[Workload], networks: list[Architecture], folder: Path, progress: Progress
) -> dict[str, str]:
    """Write every model to be timed; returns name -> file."""
    torch.manual_seed(0)
    total = 1 + 2 * len(workloads) + len(networks)
    models: dict[str, str] = {}

    def add(name: str, build: Callable[[], tuple[torch.nn.Module, list[torch.Tensor]]]) -> None:
        file = (
            f"{len(models)}{plan.spec.model_suffix}" if name != SENTINEL_NAME else f"sentinel{plan.spec.model_suffix}"
        )
        if not (folder / file).exists():
            write_model(*build(), folder / file)
        models[name] = file
        progress("writing models", len(models), total)

    add(SENTINEL_NAME, lambda: sentinel(plan.spec.batch))
    for workload in workloads:
        for copies in repetitions(workload):
            add(f"{workload.key}@{copies}", lambda w=workload, c=copies: timed_module(w, c, plan.spec.batch))  # type: ignore[misc]
    s = plan.setting
    for number, architecture in enumerate(networks):
        add(
            f"network{number}",
            lambda a=architecture: (  # type: ignore[misc]
                ChildNetwork(plan.space, a, plan.setting, prune=True),
                [torch.zeros(plan.spec.batch, s.image_channels, s.height, s.width)],
            ),
        )
    return models


def sentinel(batch: int) -> tuple[torch.nn.Module, list[torch.Tensor]]:
    """The workload that tells how fast the machine is at this moment, the same for every space."""
    operations = [randomise(build_operation(SENTINEL)) for _ in range(SENTINEL_COPIES)]
    return Chain(operations), [torch.zeros(batch, SENTINEL.in_channels, SENTINEL.height, SENTINEL.width)]


def _refuse_nonpositive(slopes: dict[Workload, Slope], drift: float) -> None:
    bad = [workload.key for workload, measured in slopes.items() if not measured.median_ms > 0]
    if bad:
        raise HwnasError(
            f"this machine is too noisy: {len(bad)} workloads have no positive latency ({', '.join(bad[:3])}), "
            f"and its speed moved by {drift:.0%} while they were timed",
            "stop other programs and run the same command with --rounds 40",
        )


def _assemble(
    plan: ProfilePlan,
    before: LatencyTable | None,
    job: Job,
    recording: Recording,
    timings: Timings,
    slopes: dict[Workload, Slope],
) -> LatencyTable:
    entries = list(before.entries) if before else []
    for workload, measured in slopes.items():
        shape = (1, workload.in_channels, workload.height, workload.width)
        counts = count(build_operation(workload), *(torch.zeros(shape) for _ in range(num_inputs(workload))))
        entries.append(
            Entry(
                **asdict(workload),
                latency_ms=measured.median_ms,
                p10_ms=measured.p10_ms,
                p90_ms=measured.p90_ms,
                samples=measured.samples,
                macs=counts.macs_fvcore,
                macs_conv_linear=counts.macs_conv_linear,
                params=counts.params,
            )
        )
    unstable = {workload.key for workload, measured in slopes.items() if measured.relative_error > UNSTABLE}
    worst = max((measured.relative_iqr for measured in slopes.values()), default=0.0)
    old = before.quality if before else Quality()
    return LatencyTable(
        device=this_device(plan.spec),
        runtime=Runtime(
            name=plan.spec.runtime,
            version=recording.runtime["version"],
            provider=recording.runtime["provider"],
            threads=plan.spec.threads,
            batch=plan.spec.batch,
            options={"spinning": False} if plan.spec.runtime == "onnxruntime" else {},
        ),
        protocol=Protocol(
            version=1,
            statistic=STATISTIC,
            rounds=plan.rounds,
            visit_ms=job.visit_ms,
            warmup_runs=job.warmup_runs,
            date=today(),
            tool_version=__version__,
        ),
        quality=Quality(
            sentinel_ms=old.sentinel_ms or timings.sentinel_ms,
            sentinel_drift=timings.drift,
            worst_relative_iqr=max(worst, old.worst_relative_iqr or 0.0),
            unstable=sorted(unstable | set(old.unstable)),
            additivity=old.additivity,
        ),
        correction=before.correction if before else {},
        provenance="measured",
        source="hwnas profile",
        licence=plan.licence or (before.licence if before else ""),
        entries=entries,
    )


def _with_correction(
    plan: ProfilePlan, table: LatencyTable, networks: list[Architecture], timings: Timings
) -> LatencyTable:
    """Fit offset and scale on the first networks, report on the others."""
    if not networks:
        return table
    key = network_key(plan.space, plan.setting)
    plain = table.model_copy(update={"correction": {k: v for k, v in table.correction.items() if k != key}})
    sums = build_cost_models(plain, plan.space, plan.setting)["latency_ms"].predict_many(encode(plan.space, networks))
    rounds = [timings.rounds_ms[f"network{number}"] for number in range(len(networks))]
    fitted = min(plan.fit_networks, len(networks) // 2)
    correction = fit_correction(sums[:fitted], np.array([np.median(r) for r in rounds[:fitted]]))
    predicted = correction.offset_ms + correction.scale * sums[fitted:]
    additivity = report_additivity(predicted, rounds[fitted:])
    quality = table.quality.model_copy(update={"additivity": {**table.quality.additivity, key: additivity}})
    return plain.model_copy(update={"correction": {**plain.correction, key: correction}, "quality": quality})
