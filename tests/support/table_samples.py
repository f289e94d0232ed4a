"""Frozen tables, tables of a few entries, and tables drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import (
    Entry,
    LatencyTable,
    Quality,
)
from support.paths import FROZEN_TABLES

SIZE_OPTIONS = ("--channels", 4, "--cells", 1, "--input", "3x16x16")


FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


V1, V2 = read_table(FROZEN_TABLES / "v1.json"), read_table(FROZEN_TABLES / "v2.json")


NETWORK = "nasbench201/16x5/3x32x32/10"


def entry_of(
    op: str = "relu", channels: int = 16, side: int = 8, ms: float = 1.0, error_ms: float | None = None
) -> Entry:
    """Return an entry of a square image that leaves as many channels as it takes."""
    sizes = {"op": op, "in_channels": channels, "out_channels": channels, "height": side, "width": side, "stride": 1}
    counts = {"macs": 0, "macs_conv_linear": 0, "params": 0}
    return Entry(**sizes, latency_ms=ms, error_ms=error_ms, p10_ms=ms, p90_ms=ms, samples=1, **counts)


def table_of(*entries: Entry, **changes: Any) -> LatencyTable:
    """Return the frozen table of version 1 with these entries in place of its own."""
    return V1.model_copy(
        update={"entries": list(entries), "quality": Quality(), "correction": {}, "networks": {}, **changes}
    )


def save(path: Path, table: LatencyTable) -> Path:
    write_table(path, table)
    return path


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


latencies = st.floats(1e-6, 1e3)


@st.composite
def entries_lists(draw: st.DrawFn, ops: st.SearchStrategy[str] = names) -> list[Entry]:
    found: dict[str, Entry] = {}
    for _ in range(draw(st.integers(1, 6))):
        ms = draw(latencies)
        new = Entry(
            op=draw(ops),
            in_channels=draw(st.integers(1, 512)),
            out_channels=draw(st.integers(1, 512)),
            height=draw(st.integers(1, 64)),
            width=draw(st.integers(1, 64)),
            stride=draw(st.integers(1, 2)),
            latency_ms=ms,
            error_ms=draw(st.none() | st.floats(0, 1)),
            p10_ms=draw(st.floats(-1, 1)),
            p90_ms=draw(st.floats(-1, 1e3)),
            samples=draw(st.integers(0, 100)),
            macs=draw(st.integers(0, 2**60)),
            macs_conv_linear=draw(st.integers(0, 2**60)),
            params=draw(st.integers(0, 2**60)),
        )
        found[new.workload.key] = new
    return list(found.values())


@st.composite
def tables(draw: st.DrawFn) -> LatencyTable:
    runtime = V1.runtime.model_copy(
        update={"name": draw(names), "options": draw(st.dictionaries(names, st.booleans() | st.integers(0, 9) | names))}
    )
    sentinel = draw(st.none() | st.floats(0.1, 10))
    return table_of(
        *draw(entries_lists()),
        runtime=runtime,
        device=V1.device.model_copy(update={"name": draw(names)}),
        quality=Quality(sentinel_ms=sentinel),
    )


def by_key(table: LatencyTable) -> dict[str, Entry]:
    return {entry.workload.key: entry for entry in table.entries}
