"""Does an exported network keep its budget on the device? Timed again, in the machine's state that the table knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.models import SENTINEL, write_model
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.session import ask, connect, make_job, run_job
from hwnas.profiling.statistics import estimate, read
from hwnas.runtimes.device_spec import DeviceSpec, require_precision
from hwnas.runtimes.int8 import FLOAT32
from hwnas.runtimes.runtime import RUNTIMES
from hwnas.tables.schema import NOT_KNOWN, LatencyTable

PASSES, ROUNDS = 5, 12
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """A network's latency. ``latency_ms`` is in the machine's state when the table was measured (both timed the same
    sentinel workload), ``raw_ms`` as the clock says now, ``error_ms`` the half width of a 95 % interval over several
    processes, and no less than what the table says of how well the same network repeats.
    ``machine_slowdown`` is None where the table's sentinel says nothing about this machine or runtime.
    """

    latency_ms: float
    error_ms: float
    raw_ms: float
    machine_slowdown: float | None

    def within(self, bound_ms: float) -> bool:
        return self.latency_ms <= bound_ms + self.error_ms


def spec_of(table: LatencyTable) -> DeviceSpec:
    """The device spec whose profiler made the table. Raises HwnasError when there is no such profiler."""
    if table.runtime.name not in RUNTIMES:
        raise HwnasError(
            f"there is no profiler for the table's runtime {table.runtime.name!r}", f"known: {', '.join(RUNTIMES)}"
        )
    hardware = {"gpu": "cuda:0", "browser": "browser"}.get(table.device.kind, "cpu")
    precision = FLOAT32 if table.runtime.precision == NOT_KNOWN else table.runtime.precision
    spec = DeviceSpec(hardware, table.runtime.name, table.runtime.threads, table.runtime.batch, precision=precision)
    require_precision(spec)
    return spec


def require_its_device(table: LatencyTable) -> None:
    """Raises HwnasError when this is not the machine that the table describes."""
    spec = spec_of(table)
    if ask(spec).device.fingerprint != table.device.fingerprint:
        raise HwnasError(
            f"the table describes {table.device.name}, which this machine is not",
            f"run there, or time here all the same with 'hwnas verify DIR --device {spec.hardware}+{spec.runtime}'",
        )


def time_networks(
    networks: Mapping[str, Path | ChildNetwork], spec: DeviceSpec, table: LatencyTable, key: str, progress: Progress
) -> dict[str, Measured]:
    """Time ONNX files (or child networks, for a runtime that takes none) in interleaved rounds with the sentinel.

    Without a sentinel in the table, or on another machine or runtime than the table's, latencies are as the clock says.
    """
    suffix = spec.made_by.suffix
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        files = {SENTINEL_NAME: f"sentinel{suffix}"}
        write_model(SENTINEL, spec, folder / files[SENTINEL_NAME])
        for number, (network_name, network) in enumerate(networks.items()):
            file = folder / f"{number}{suffix}"
            if isinstance(network, Path):
                if spec.made_by.convert:
                    spec.made_by.convert(network, file)
                else:
                    file.symlink_to(network.resolve())
            else:
                s = network.network.setting
                spec.made_by.write(network, [torch.zeros(spec.batch, s.image_channels, s.height, s.width)], file)
            files[network_name] = file.name
        recordings = []
        with connect(spec, folder) as lines:
            for number in range(PASSES):
                job = make_job(spec, files, ROUNDS, number, {})
                total = PASSES * len(job.visits)
                recordings.append(
                    run_job(
                        lines,
                        job,
                        folder,
                        f"pass{number}",
                        lambda n, k=number, t=total: progress("timing networks", k * t // PASSES + n, t),  # type: ignore[misc]
                    )
                )
    start = recordings[0].start
    made_alike = (table.runtime.name, table.runtime.threads, table.runtime.batch) == (
        spec.runtime,
        spec.threads,
        spec.batch,
    )
    here = start is not None and start.device.fingerprint == table.device.fingerprint and made_alike
    reference = table.quality.sentinel_ms if here else None
    additivity = table.quality.additivity.get(key)
    floor = (additivity.floor or 0.0) / 100 if additivity else 0.0
    readings = read(recordings, reference)
    estimates = {network_name: estimate(readings.passes[network_name]) for network_name in networks}
    if not all(np.isfinite([found.latency_ms, found.error_ms]).all() for found in estimates.values()):
        raise HwnasError(
            "this machine is too noisy: other programs held the processor whenever a network was to be timed",
            "stop other programs ('top' shows them) and run the same command again",
        )
    result = {}
    for network_name, found in estimates.items():
        raw_ms = np.median([v.median_ms for r in recordings for v in r.visits if v.model == network_name])
        slowdown = readings.sentinel_ms / reference if reference else None
        error_ms = max(found.error_ms, floor * found.latency_ms)
        result[network_name] = Measured(found.latency_ms, error_ms, float(raw_ms), slowdown)
    return result
