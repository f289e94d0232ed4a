"""Write v1.json and v2.json. They were written once, by the code of their time, and never change, because every table
that was ever written must remain readable. A new version of the format gets a file of its own.

    python tests/support/frozen_tables/make.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

from hwnas.spaces import get_space
from hwnas.tables.io import write_table
from hwnas.tables.schema import (
    Additivity,
    CellCosts,
    Correction,
    Device,
    EdgeCosts,
    Entry,
    LatencyTable,
    MeasuredNetwork,
    Protocol,
    Quality,
    Runtime,
)

NETWORK = "nasbench201/16x5/3x32x32/10"
CONV = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|"
POOL = "|avg_pool_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
DEVICE = Device(
    name="Example board",
    kind="embedded",
    model="Example core, 4 of them",
    cores=4,
    memory_bytes=4 << 30,
    os="Linux aarch64",
    fingerprint="0123456789abcdef",
)
RUNTIME = Runtime(
    name="onnxruntime",
    version="1.20.0",
    provider="CPUExecutionProvider",
    threads=2,
    batch=1,
    options={"spinning": False, "level": 3, "share": 0.5, "mode": "sequential"},
)
PROTOCOL = Protocol(
    version=2,
    statistic="median over processes",
    rounds=30,
    processes=5,
    visit_ms=3.0,
    warmup_runs=2,
    warmup_ms=0.5,
    processors=[1, 2],
    governor="performance",
    load=0.25,
    waited=0.001,
    stolen=0.0,
    date="2026-01-02T03:04:05Z",
    tool_version="0.1.0",
)
REPORT = Additivity(
    networks=20,
    mape=1.5,
    within_5_percent=0.95,
    within_10_percent=1.0,
    kendall_tau=0.98,
    worst=6.25,
    bias=-0.125,
    floor=0.5,
)


def entries() -> list[Entry]:
    sizes = ((16, 32, 0.02), (32, 16, 0.0175), (64, 8, 1e-05))
    conv = [
        Entry(
            op="nor_conv_3x3",
            in_channels=channels,
            out_channels=channels,
            height=side,
            width=side,
            stride=1,
            latency_ms=ms,
            error_ms=ms / 64,
            p10_ms=ms * 0.96875,
            p90_ms=ms * 1.0625,
            samples=12,
            macs=9 * channels**2 * side**2 + 2 * channels * side**2,
            macs_conv_linear=9 * channels**2 * side**2,
            params=9 * channels**2 + 2 * channels,
        )
        for channels, side, ms in sizes
    ]
    relu = Entry(
        op="relu",
        in_channels=16,
        out_channels=16,
        height=32,
        width=32,
        stride=1,
        latency_ms=0.0,
        p10_ms=-0.0005,
        p90_ms=0.0005,
        samples=3,
        macs=0,
        macs_conv_linear=0,
        params=0,
    )
    return [*conv, relu]


def version_1() -> LatencyTable:
    """Every field there is, those that may be absent among them."""
    return LatencyTable(
        version=1,
        device=DEVICE,
        runtime=RUNTIME,
        protocol=PROTOCOL,
        quality=Quality(
            sentinel_ms=0.125,
            sentinel_drift=0.03125,
            worst_relative_error=0.015625,
            unstable=["relu-16-16-32x32-s1"],
            noise=["an example of a reason"],
            additivity={NETWORK: REPORT},
            residual={NETWORK: REPORT.model_copy(update={"mape": 1.25})},
        ),
        correction={
            NETWORK: Correction(
                offset_ms=-0.0625, scale=1.03125, factors={"pool": 0.96875}, rewrites=["share", "fuse"], networks=2
            )
        },
        networks={
            NETWORK: [
                MeasuredNetwork(architecture=CONV, latency_ms=0.75, error_ms=0.0078125, fitted=True),
                MeasuredNetwork(architecture=POOL, latency_ms=0.25, error_ms=None, fitted=False),
            ]
        },
        provenance="measured",
        source="an example",
        licence="CC0-1.0",
        entries=entries(),
    )


def version_2() -> LatencyTable:
    """Costs by edge: what a 3x3 convolution costs depends on the edge, what is dead costs a little all the same."""
    operations = list(get_space("nasbench201").operations)
    live = {"none": 0.0, "skip_connect": 0.0, "nor_conv_1x1": 0.0625, "nor_conv_3x3": 0.25, "avg_pool_3x3": 0.125}
    macs = {"nor_conv_1x1": 4_096_000, "nor_conv_3x3": 36_864_000}
    params = {"nor_conv_1x1": 7_280, "nor_conv_3x3": 62_160}
    size = 1 + 2 * 6 * 4
    return LatencyTable(
        version=2,
        device=DEVICE.model_copy(update={"kind": "mobile", "name": "Example phone"}),
        runtime=RUNTIME.model_copy(update={"options": {}}),
        protocol=Protocol(
            version=2, statistic="as given", rounds=0, visit_ms=0.0, date="2026-01-02T03:04:05Z", tool_version="0.1.0"
        ),
        quality=Quality(),
        provenance="fitted",
        entries=[],
        edge_costs={
            NETWORK: EdgeCosts(
                operations=operations,
                base_ms=0.5,
                base_macs=7_000_000,
                base_params=73_000,
                cells={
                    "cell": CellCosts(
                        live_ms=[[live[op] * (1 + edge / 8) for op in operations] for edge in range(6)],
                        always_ms=[[0.0 if op == "none" else 0.0078125 for op in operations] for _ in range(6)],
                        error_ms=[[0.0 if op == "none" else 0.015625 for op in operations] for _ in range(6)],
                        macs=[[macs.get(op, 0) for op in operations]] * 6,
                        params=[[params.get(op, 0) for op in operations]] * 6,
                    )
                },
                covariance=[[0.0] * row + [0.0001220703125] for row in range(size)],
                scatter_ms=0.0078125,
                scatter_share=0.015625,
                degrees_of_freedom=4.0,
                measurements=30,
                pool=["Example board"],
            )
        },
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    write_table(folder / "v1.json", version_1())
    write_table(folder / "v2.json", version_2())
