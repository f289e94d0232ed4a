"""Does an exported network keep its budget on the device? Timed again, in the machine's state that the table knows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

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
    sentinel workload), ``raw_ms`` the plain median now, ``error_ms`` the half width of a 95 % interval of the median,
    and no less than what the table says of how well the same network repeats.
    """

    latency_ms: float
    error_ms: float
    raw_ms: float
    machine_slowdown: float

    def within(self, bound_ms: float) -> bool:
        return self.latency_ms <= bound_ms + self.error_ms


def spec_of(table: LatencyTable) -> DeviceSpec:
    """The device spec whose profiler made the table."""
    hardware = "cuda:0" if table.device.kind == "gpu" else "cpu"
    return DeviceSpec(hardware, table.runtime.name, table.runtime.threads, table.runtime.batch)


def time_networks(
    networks: Mapping[str, Path | ChildNetwork], spec: DeviceSpec, table: LatencyTable, key: str, progress: Progress
) -> dict[str, Measured]:
    """Time ONNX files (or child networks, for a torch runtime) in interleaved rounds with the sentinel.

    Without a sentinel in the table, or on another machine than the table's, latencies are as the clock says.
    """
    here = this_device(spec).fingerprint == table.device.fingerprint
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
    timings = correct_drift(recording.visits)
    reference = table.quality.sentinel_ms if here and table.quality.sentinel_ms else timings.sentinel_ms
    speed = timings.sentinel_ms / reference
    additivity = table.quality.additivity.get(key)
    floor = additivity.floor / 100 if additivity else 0.0
    result = {}
    for network_name in networks:
        rounds = timings.rounds_ms[network_name] / speed
        low, median, high = np.percentile(rounds, [25, 50, 75])
        error = max(1.57 * (high - low) / np.sqrt(len(rounds)), floor * median)
        result[network_name] = Measured(float(median), float(error), timings.raw_median_ms[network_name], float(speed))
    return result
