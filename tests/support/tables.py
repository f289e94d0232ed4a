"""Tables with exact counts and made-up latencies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from functools import cache

import numpy as np

from hwnas.cost.fusion import pieces
from hwnas.networks.count import count_workload
from hwnas.profiling.protocol import PROTOCOL
from hwnas.profiling.session import ask
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SizedSpace, Workload
from hwnas.tables.schema import (
    Correction,
    Device,
    Entry,
    LatencyTable,
    Protocol,
    Quality,
    Runtime,
)

counts_of = cache(count_workload)


def make_table(sized: SizedSpace, seed: int = 0, more: Iterable[Workload] = ()) -> LatencyTable:
    """Return a table of every workload of a space, and of ``more``: counts by fvcore, latencies drawn at random."""
    generator = np.random.default_rng(seed)
    entries = []
    for workload in (*sized.network.workloads(), *more):
        counts = counts_of(workload)
        latency_ms = float(generator.uniform(0.001, 0.1))
        entries.append(
            Entry(
                **asdict(workload),
                latency_ms=latency_ms,
                p10_ms=latency_ms,
                p90_ms=latency_ms,
                samples=1,
                macs=counts.macs_fvcore,
                macs_conv_linear=counts.macs_conv_linear,
                params=counts.params,
            )
        )
    return LatencyTable(
        device=Device(name="made up", kind="cpu", model="none", cores=1, memory_bytes=1, os="none", fingerprint="0"),
        runtime=Runtime(name="onnxruntime", version="0", provider="CPUExecutionProvider", threads=1, batch=1),
        protocol=Protocol(
            version=1, statistic="made up", rounds=0, visit_ms=0, warmup_runs=0, date="2026-01-01", tool_version="0"
        ),
        quality=Quality(),
        provenance="fitted",
        entries=entries,
    )


def of_this_machine(sized: SizedSpace) -> LatencyTable:
    """Return a made-up table of this machine in which ``hwnas profile`` lacks nothing."""
    table, start = make_table(sized, more=pieces(sized.network)), ask(parse_device("cpu"))
    changes = {
        "device": start.device,
        "runtime": table.runtime.model_copy(
            update={"version": start.version, "provider": start.provider, "options": start.options}
        ),
        "protocol": table.protocol.model_copy(update={"version": PROTOCOL}),
        "correction": {sized.key: Correction(offset_ms=0, scale=1, networks=1)},
    }
    return table.model_copy(update=changes)
