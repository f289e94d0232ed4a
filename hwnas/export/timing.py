"""Time exported networks on a device, in the state of the machine that a latency table describes."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hwnas.cost.carried_head import known_network
from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.deployed import deployed, deployed_inputs
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.models import SENTINEL, write_model
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.protocol import JobValues, make_job
from hwnas.profiling.session import ask, run_job
from hwnas.profiling.statistics import estimate, read
from hwnas.progress import OnProgress
from hwnas.runtimes.android import ANY_PHONE, BENCHMARK, on_android
from hwnas.runtimes.device_spec import DeviceSpec, require_models, with_provider
from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.runtimes.onnx_batch import fix_batch
from hwnas.runtimes.opset import opset_of
from hwnas.runtimes.providers import CPU_PROVIDER, FALLBACK, options_of, provider_of
from hwnas.runtimes.registry import RUNTIMES
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import NOT_KNOWN, LatencyTable

PROCESSES, ROUNDS = 5, 12


@dataclass(frozen=True)
class Measured:
    """A network's latency.

    ``latency_ms`` is in the machine's state when the table was measured (the same sentinel workload is timed both
    times), ``raw_ms`` as timed now. ``error_ms`` is the half width of a 95 % interval over several processes, and at
    least the difference that the table states between repeated measurements of a network. ``machine_slowdown`` is None
    where the table's sentinel was not timed on this machine and runtime.
    """

    latency_ms: float
    error_ms: float
    raw_ms: float
    machine_slowdown: float | None

    def within(self, bound_ms: float) -> bool:
        return self.latency_ms <= bound_ms + self.error_ms


def spec_of(table: LatencyTable) -> DeviceSpec:
    """Return the device spec whose profiler made the table. Raises HwnasError when hwnas has no such profiler."""
    if table.runtime.name not in RUNTIMES:
        raise HwnasError(
            f"there is no profiler for the table's runtime {table.runtime.name!r}",
            f"time the ONNX file there, or here with `hwnas verify DIR --device cpu`; known are {', '.join(RUNTIMES)}",
        )
    precision = FLOAT32 if table.runtime.precision == NOT_KNOWN else table.runtime.precision
    spec = DeviceSpec(
        table.hardware,
        RUNTIMES[table.runtime.name],
        table.runtime.threads,
        table.runtime.batch,
        precision=precision,
        opset=opset_of(table.runtime.options),
    )
    if spec.runtime.name == "onnxruntime":
        spec = with_provider(spec, provider_of(table.runtime.provider))
        options = options_of(spec.provider, table.runtime.options)
        spec = replace(spec, provider_options=options, fallback=FALLBACK in table.runtime.options)
    if BENCHMARK in table.runtime.options:
        spec = replace(spec, runtime=on_android(spec.runtime), serial=ANY_PHONE)
    require_models(spec)
    return spec


def require_its_device(table: LatencyTable) -> None:
    """Raise HwnasError when this is not the machine that the table describes."""
    spec = spec_of(table)
    if spec.serial:
        raise HwnasError(
            f"the table describes {table.device.name}, a phone that is timed over adb",
            f"time there with `hwnas verify DIR --device 'android://SERIAL+{spec.runtime.name}?binary=PATH'`",
        )
    if ask(spec).device.fingerprint != table.device.fingerprint:
        raise HwnasError(
            f"the table describes {table.device.name}, which is not this machine",
            f"run there, or time on this machine with 'hwnas verify DIR --device {spec.hardware}+{spec.runtime.name}'",
        )


def time_networks(
    networks: Mapping[str, Path | ChildNetwork],
    spec: DeviceSpec,
    table: LatencyTable | None,
    sized: SizedSpace | None,
    on_progress: OnProgress,
) -> dict[str, Measured]:
    """Time networks in interleaved rounds with the sentinel.

    They are ONNX files or files in the runtime's own format; child networks for a runtime that takes no ONNX.

    ``sized`` is the space at the networks' sizes. Without a table or a sentinel in it, or on another machine or
    runtime than the table's, latencies are as timed now. Raises HwnasError when the machine is too noisy to time
    anything.
    """
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        files = _write_models(networks, spec, Path(name))
        job_values = _time(files, spec, Path(name), on_progress)
    reference_ms = table.quality.sentinel_ms if table and _describes(table, spec, job_values[0]) else None
    readings = read(job_values, reference_ms)
    slowdown = readings.sentinel_ms / reference_ms if reference_ms else None
    floor = _repeatability(table, sized) if table and sized else 0.0
    measured = {}
    for network in networks:
        found = estimate(readings.process_times[network])
        if not np.isfinite([found.latency_ms, found.error_ms]).all():
            raise HwnasError(
                "this machine is too noisy: other programs held the processor whenever a network was to be timed",
                "stop other programs ('top' shows them) and run the same command again",
            )
        raw_ms = np.median([run.median_ms for values in job_values for run in values.runs if run.model == network])
        error_ms = max(found.error_ms, floor * found.latency_ms)
        measured[network] = Measured(found.latency_ms, error_ms, float(raw_ms), slowdown)
    return measured


def _repeatability(table: LatencyTable, sized: SizedSpace) -> float:
    """Return the difference between repeated measurements of a network, as a share, that a table states."""
    additivity = table.quality.additivity.get(known_network(table, sized).key)
    return (additivity.floor or 0.0) / 100 if additivity else 0.0


def _write_models(networks: Mapping[str, Path | ChildNetwork], spec: DeviceSpec, folder: Path) -> dict[str, str]:
    """Write the sentinel and the networks for the spec's runtime; return file names by model name."""
    runtime = spec.runtime
    files = {SENTINEL_NAME: f"sentinel{runtime.suffix}"}
    write_model(SENTINEL, spec, folder / files[SENTINEL_NAME])
    for number, (name, network) in enumerate(networks.items()):
        file = folder / f"{number}{runtime.suffix}"
        if isinstance(network, ChildNetwork):
            runtime.write(deployed(network), deployed_inputs(network.network.setting, spec.batch), file)
        elif runtime.convert and network.suffix == ".onnx":
            source = network
            if runtime.fixed_batch and spec.batch > 1:
                source = folder / f"{number}.fixed.onnx"
                fix_batch(network, source, spec.batch)
            runtime.convert(source, file)
        elif runtime.fixed_batch and network.suffix == ".onnx":
            fix_batch(network, file, spec.batch)
        else:
            if runtime.fixed_batch and spec.batch > 1:
                raise HwnasError(f"{network} takes one image, {spec.text} takes {spec.batch}", "leave out batch=")
            file = folder / f"{number}{''.join(network.suffixes)}"
            for each in {network, network.with_suffix(".bin")}:  # weights may be a file of their own
                if each.exists():
                    file.with_suffix(each.suffix).symlink_to(each.resolve())
        files[name] = file.name
    return files


def _time(files: Mapping[str, str], spec: DeviceSpec, folder: Path, on_progress: OnProgress) -> list[JobValues]:
    """Run the profiler in several processes, one after the other."""
    job_values = []
    with connect(spec, folder) as connection:
        for number in range(PROCESSES):
            job = make_job(spec, files, ROUNDS, number, {})
            total = PROCESSES * len(job.visits)
            done_before = number * total // PROCESSES

            def on_run(done: int, before: int = done_before, total: int = total) -> None:
                on_progress("timing networks", before + done, total)

            job_values.append(run_job(connection, job, folder, f"pass{number}", on_run))
    return job_values


def _describes(table: LatencyTable, spec: DeviceSpec, values: JobValues) -> bool:
    """Return whether a table describes the machine of a process and the runtime, threads and batch of a spec."""
    runtime, start = table.runtime, values.start
    there = (runtime.name, runtime.threads, runtime.batch)
    same_runtime = there == (spec.runtime.name, spec.threads, spec.batch) and _settings(spec_of(table)) == _settings(
        spec
    )
    return same_runtime and start is not None and start.device.fingerprint == table.device.fingerprint


def _settings(spec: DeviceSpec) -> tuple[str, Mapping[str, object], str]:
    """Return the provider, the options, and the precision of the sentinel, whose latencies are compared."""
    precision = FLOAT32 if spec.precision == INT8 and spec.provider == CPU_PROVIDER else spec.precision
    return spec.provider, spec.table_options, precision
