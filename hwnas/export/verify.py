"""Does an exported network keep its budget on the device? Timed again, in the machine's state that the table knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.device import DeviceSpec, this_device
from hwnas.profiling.models import write_model
from hwnas.profiling.profile import sentinel
from hwnas.profiling.session import SENTINEL_NAME, make_job, run_job
from hwnas.profiling.statistics import correct_drift
from hwnas.tables.schema import LatencyTable

ROUNDS = 60
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Measured:
    """A network's latency. ``latency_ms`` is in the machine's state when the table was measured (both timed the same
    sentinel workload), ``raw_ms`` the plain median now, ``error_ms`` the half width of a 95 % interval over several
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
    """The device spec whose profiler made the table."""
    hardware = "cuda:0" if table.device.kind == "gpu" else "cpu"
    return DeviceSpec(hardware, table.runtime.name, table.runtime.threads, table.runtime.batch)


def require_its_device(table: LatencyTable) -> None:
    """Raises HwnasError when this is not the machine that the table describes."""
    spec = spec_of(table)
    if this_device(spec).fingerprint != table.device.fingerprint:
        raise HwnasError(
            f"the table describes {table.device.name}, which this machine is not",
            f"run there, or time here all the same with 'hwnas verify DIR --device {spec.hardware}+{spec.runtime}'",
        )


def time_networks(
    networks: Mapping[str, Path | ChildNetwork], spec: DeviceSpec, table: LatencyTable, key: str, progress: Progress
) -> dict[str, Measured]:
    """Time ONNX files (or child networks, for a torch runtime) in interleaved rounds with the sentinel.

    Without a sentinel in the table, or on another machine or runtime than the table's, latencies are as the clock says.
    """
    here = this_device(spec).fingerprint == table.device.fingerprint and spec == spec_of(table)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        files = {SENTINEL_NAME: f"sentinel{spec.model_suffix}"}
        write_model(*sentinel(spec.batch), folder / files[SENTINEL_NAME])
        for number, (network_name, network) in enumerate(networks.items()):
            file = folder / f"{number}{spec.model_suffix}"
            if isinstance(network, Path):
                file.symlink_to(network.resolve())
            else:
                s = network.network.setting
                write_model(network, [torch.zeros(spec.batch, s.image_channels, s.height, s.width)], file)
            files[network_name] = file.name
        job = make_job(spec, files, ROUNDS)
        recording = run_job(spec, job, folder, lambda done: progress("timing networks", done, len(job.visits)))
    reference = table.quality.sentinel_ms if here else None
    additivity = table.quality.additivity.get(key)
    floor = additivity.floor / 100 if additivity else 0.0
    whole = correct_drift(recording.visits, reference)
    processes = [
        correct_drift(recording.visits[first:stop], reference or whole.sentinel_ms)
        for first, stop in pairwise(job.bounds)
    ]
    result = {}
    for network_name in networks:
        medians = np.array([np.median(process.rounds_ms[network_name]) for process in processes])
        latency, error = float(np.median(medians)), half_interval(medians)
        raw = whole.raw_median_ms[network_name]
        slowdown = whole.sentinel_ms / reference if reference else None
        result[network_name] = Measured(latency, max(error, floor * latency), raw, slowdown)
    return result


def half_interval(values: NDArray[np.float64]) -> float:
    """The half width of the 95 % interval (Student's t) of the mean of independent readings."""
    from scipy.stats import t

    if len(values) < 2:
        return 0.0
    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
