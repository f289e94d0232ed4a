"""Tables compared, merged, checked, drawn, written as rows, and made of other projects' tables."""

from __future__ import annotations

import csv
import json
import pickle
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from torch import nn

from hwnas.errors import HwnasError
from hwnas.networks.count import count
from hwnas.spaces import SizedSpace, Workload
from hwnas.tables.check import disorders
from hwnas.tables.diff import diff_tables
from hwnas.tables.export import COLUMNS, TABLE_COLUMNS, export_table, table_rows
from hwnas.tables.importers import Stated, import_table
from hwnas.tables.importers.blocks import count_layers
from hwnas.tables.importers.fbnet import fbnet_operation, hw_nas_bench_key
from hwnas.tables.importers.layers import ofa_key, proxyless_key
from hwnas.tables.io import read_table, write_table
from hwnas.tables.merge import merge_tables
from hwnas.tables.plot import plot_table
from hwnas.tables.schema import (
    Additivity,
    Correction,
    Entry,
    LatencyTable,
    MeasuredNetwork,
    Quality,
)
from hwnas.text import short_number
from support.command import Run, assert_one_clear_line
from support.paths import FROZEN_TABLES
from support.spaces import NB201, SMALL
from support.tables import make_table

SIZE_OPTIONS = ("--channels", 4, "--cells", 1, "--input", "3x16x16")
KEY = SizedSpace(NB201, SMALL["nasbench201"]).key
FEW = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
V1, V2 = read_table(FROZEN_TABLES / "v1.json"), read_table(FROZEN_TABLES / "v2.json")
NETWORK = "nasbench201/16x5/3x32x32/10"


def entry(op: str = "relu", channels: int = 16, side: int = 8, ms: float = 1.0, error_ms: float | None = None) -> Entry:
    sizes = {"op": op, "in_channels": channels, "out_channels": channels, "height": side, "width": side, "stride": 1}
    counts = {"macs": 0, "macs_conv_linear": 0, "params": 0}
    return Entry(**sizes, latency_ms=ms, error_ms=error_ms, p10_ms=ms, p90_ms=ms, samples=1, **counts)


def table_of(*entries: Entry, **changes: Any) -> LatencyTable:
    return V1.model_copy(
        update={"entries": list(entries), "quality": Quality(), "correction": {}, "networks": {}, **changes}
    )


def save(path: Path, table: LatencyTable) -> Path:
    write_table(path, table)
    return path


# --- tables drawn at random

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


# --- check


def test_a_whole_table_is_in_order_and_nothing_is_timed(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    file = save(tmp_path / "t.json", table)
    result = run("table", "check", file, *SIZE_OPTIONS)
    assert result.exit_code == 0, result.output
    assert f"complete for {KEY}" in result.stdout
    assert "not timed again: a fitted table" in result.stdout
    told = json.loads(run("table", "check", file, *SIZE_OPTIONS, "--json").stdout)
    assert (told["fine"], told["describes"], told["slowdown"], told["entries"]) == (True, None, None, [])
    assert told["contents"]["coverage"] == [
        {"network": KEY, "needed": 16, "missing": [], "command": told["contents"]["coverage"][0]["command"]}
    ]


def test_without_a_named_network_it_says_so(run: Run, tmp_path: Path) -> None:
    result = run("table", "check", save(tmp_path / "t.json", make_table(SizedSpace(NB201, SMALL["nasbench201"]))))
    assert result.exit_code == 0
    assert "--space tells" in result.stdout


@pytest.mark.parametrize("rewrites", [[], ["share"]])
def test_missing_workloads_are_listed_with_the_command(run: Run, tmp_path: Path, rewrites: list[str]) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    correction = Correction(offset_ms=0, scale=1, rewrites=rewrites, networks=2)
    gone = [e for e in table.entries if e.op == "nor_conv_3x3"]
    rest = [e for e in table.entries if e not in gone]
    file = save(tmp_path / "t.json", table.model_copy(update={"entries": rest, "correction": {KEY: correction}}))
    result = run("table", "check", file)
    assert result.exit_code == 1, result.output
    told = json.loads(run("table", "check", file, "--json").stdout)
    assert (told["fine"], told["describes"]) == (False, None)
    (covered,) = told["contents"]["coverage"]
    # A runtime that shares needs to know what a ReLU alone takes.
    relu = {f"relu-{c}-{c}-{s}x{s}-s1" for c, s in ((4, 16), (8, 8), (16, 4))} if rewrites else set()
    assert set(covered["missing"]) == {e.workload.key for e in gone} | relu
    assert covered["needed"] == 16 + len(relu)
    for key in covered["missing"]:
        assert key in result.stdout
    assert f"hwnas profile --space nasbench201 --channels 4 --layers 1 --input 3x16x16 --out {file}" in result.stdout
    complete = run("table", "check", save(file, table.model_copy(update={"correction": {}})), *SIZE_OPTIONS)
    assert complete.exit_code == 0


def test_costs_by_edge_cover_their_network(run: Run, tmp_path: Path) -> None:
    assert run("table", "check", FROZEN_TABLES / "v2.json").exit_code == 0
    assert run("table", "check", FROZEN_TABLES / "v2.json", "--space", "darts").exit_code == 1
    costs = V2.edge_costs[NETWORK]
    other = ["none", "skip_connect", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3"]
    swapped = costs.model_copy(update={"operations": other})
    file = save(tmp_path / "t.json", V2.model_copy(update={"edge_costs": {NETWORK: swapped}}))
    result = run("table", "check", file)
    assert result.exit_code == 1
    assert "cell cell" in result.stdout


def test_more_work_in_less_time_is_a_warning_and_with_strict_a_fault(run: Run, tmp_path: Path) -> None:
    slow, quick = entry(channels=16, ms=1.0, error_ms=0.01), entry(channels=32, ms=0.8, error_ms=0.01)
    file = save(tmp_path / "t.json", table_of(slow, quick))
    result = run("table", "check", file, "--contents")
    assert result.exit_code == 0
    assert "relu-32-32-8x8-s1 takes 0.8 ms, relu-16-16-8x8-s1 takes 1 ms: more channels in 0.80 times" in result.stdout
    strict = run("table", "check", file, "--contents", "--strict", "--json")
    assert strict.exit_code == 1
    told = json.loads(strict.stdout)["contents"]
    assert told["disorders"] == [
        {
            "what": "channels",
            "smaller": "relu-16-16-8x8-s1",
            "smaller_ms": 1.0,
            "larger": "relu-32-32-8x8-s1",
            "larger_ms": 0.8,
        }
    ]
    assert told["problems"] == ["1 entries are quicker than smaller ones"]


def test_only_pairs_are_compared_of_which_one_is_larger_in_every_size() -> None:
    small = entry(channels=16, side=8, ms=1.0)
    assert disorders([small, entry(channels=16, side=16, ms=0.5)])[0].what == "resolution"
    assert disorders([small, entry(channels=32, side=8, ms=0.5)])[0].what == "channels"
    fine = [
        entry(channels=16, side=8, ms=0.91),  # itself, within a tenth of the next
        entry(channels=32, side=4, ms=0.5),  # more channels of a smaller image
        entry(op="sum", channels=32, ms=0.5),  # another operation
        entry(channels=32, ms=0.95).model_copy(update={"stride": 2, "latency_ms": 0.1}),
        entry(channels=32, ms=0.89, error_ms=0.02),  # within the errors
    ]
    assert not disorders([small.model_copy(update={"channels": 16}), *fine[1:]])
    narrow = small.model_copy(update={"in_channels": 8, "out_channels": 64})
    assert not disorders([narrow, entry(channels=32, ms=0.1)])
    assert not disorders([entry(ms=1.0, error_ms=0.2), entry(channels=32, ms=0.75)])
    assert disorders([entry(ms=1.0, error_ms=0.2), entry(channels=32, ms=0.65)])


@FEW
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.floats(0, 10), st.floats(0, 1)), max_size=12))
def test_disorders_are_those_of_the_definition(listed: list[tuple[int, int, float, float]]) -> None:
    found = {
        (i, o): entry(ms=ms, error_ms=error).model_copy(update={"in_channels": i, "out_channels": o})
        for i, o, ms, error in listed
    }
    expected = {
        large.workload.key
        for size, large in found.items()
        for other, small in found.items()
        if other != size
        and all(a <= b for a, b in zip(other, size, strict=True))
        and large.latency_ms + large.error_ms < 0.9 * small.latency_ms - small.error_ms  # type: ignore[operator]
    }
    assert {d.larger for d in disorders(found.values())} == expected


def test_twenty_thousand_entries_of_one_operation_are_gone_through() -> None:
    many = [
        entry(ms=1.0).model_copy(update={"in_channels": n % 317 + 1, "out_channels": n // 317 + 1})
        for n in range(20_000)
    ]
    assert not disorders(many)


def test_a_table_whose_contents_fail_is_not_timed(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"])).model_copy(update={"provenance": "measured"})
    file = save(tmp_path / "t.json", table.model_copy(update={"entries": table.entries[1:]}))
    result = run("table", "check", file, *SIZE_OPTIONS)
    assert result.exit_code == 1
    assert "not timed again: its contents come first" in result.stdout
    # Whole, it would be timed, but it does not say how fast its machine was.
    assert_one_clear_line(run("table", "check", save(file, table), *SIZE_OPTIONS), "how fast its machine was")
    assert run("table", "check", file, *SIZE_OPTIONS, "--contents").exit_code == 0


# --- diff


def test_the_same_table_does_not_differ(run: Run) -> None:
    for version in (1, 2):
        file = FROZEN_TABLES / f"v{version}.json"
        result = run("table", "diff", file, file)
        assert result.exit_code == 0
        assert "nothing differs" in result.stdout


def test_differences_are_listed_worst_first(run: Run, tmp_path: Path) -> None:
    a = save(
        tmp_path / "a.json",
        table_of(
            entry("relu", ms=1.0, error_ms=0.05),
            entry("sum", ms=1.0, error_ms=0.05),
            entry("conv", ms=2.0),
            entry("pool", ms=1.0, error_ms=0.01),
            entry("gone", ms=1.0),
        ),
    )
    runtime = V1.runtime.model_copy(update={"threads": 4, "version": "1.30.0"})
    b = save(
        tmp_path / "b.json",
        table_of(
            entry("relu", ms=1.09, error_ms=0.05),  # within both errors
            entry("sum", ms=1.2, error_ms=0.05),  # twice both errors
            entry("conv", ms=2.5),  # its errors count as 10 %: 0.2 + 0.25
            entry("pool", ms=1.5, error_ms=0.01),  # 25 times
            entry("new", ms=1.0),
            runtime=runtime,
            licence="MIT",
        ),
    )
    result = run("table", "diff", a, b, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["header"] == {
        "runtime.threads": [2, 4],
        "runtime.version": ["1.20.0", "1.30.0"],
        "licence": ["CC0-1.0", "MIT"],
    }
    assert (told["only_a"], told["only_b"]) == (["gone-16-16-8x8-s1"], ["new-16-16-8x8-s1"])
    assert [d["name"].split("-")[0] for d in told["differing"]] == ["pool", "sum", "conv"]
    assert told["differing"][0]["ratio"] == pytest.approx(1.5)
    assert told["differing"][0]["excess"] == pytest.approx(25)
    assert [d["errors_known"] for d in told["differing"]] == [True, True, False]
    assert told["common"] == 4
    assert told["errors_unknown"] == 1
    assert told["median_ratio"] == pytest.approx((1.2 + 1.25) / 2)
    shown = run("table", "diff", a, b)
    assert shown.exit_code == 1
    assert "runtime.threads" in shown.stdout
    assert "3 differ beyond their errors" in shown.stdout
    assert "only A holds 1: gone-16-16-8x8-s1" in shown.stdout
    within = run("table", "diff", a, save(tmp_path / "c.json", table_of(*read_table(a).entries, licence="MIT")))
    assert within.exit_code == 0  # descriptions alone are no difference


def test_costs_by_edge_are_compared_by_their_place(run: Run, tmp_path: Path) -> None:
    costs = V2.edge_costs[NETWORK]
    cell = costs.cells["cell"]
    live = [list(row) for row in cell.live_ms]
    live[4][3] += 0.1  # beyond 2 x 0.015625
    live[2][2] += 0.01  # within
    changed = costs.model_copy(update={"base_ms": 0.6, "cells": {"cell": cell.model_copy(update={"live_ms": live})}})
    b = save(tmp_path / "b.json", V2.model_copy(update={"edge_costs": {NETWORK: changed}}))
    result = run("table", "diff", FROZEN_TABLES / "v2.json", b, "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [d["name"] for d in told["differing"]] == [
        f"{NETWORK} cell edge 4 nor_conv_3x3",
        f"{NETWORK} base",
    ]
    assert told["common"] == 1 + 6 * 4
    assert told["differing"][0]["b_ms"] - told["differing"][0]["a_ms"] == pytest.approx(0.1)
    other = costs.model_copy(update={"operations": ["none", "a", "b", "c", "d"]})
    unlike = diff_tables(V2, V2.model_copy(update={"edge_costs": {NETWORK: other}}))
    assert (unlike.unlike, unlike.common, unlike.differs) == ([NETWORK], 0, True)
    lacking = diff_tables(V2, V1)
    assert len(lacking.only_a) == 25
    assert set(lacking.only_b) == set(by_key(V1))


@FEW
@given(tables(), st.floats(1.3, 3))
def test_a_table_differs_from_itself_only_when_it_is_changed(table: LatencyTable, factor: float) -> None:
    same = diff_tables(table, table)
    assert not same.differs
    assert not same.header
    assert same.median_ratio == 1
    certain = table.model_copy(update={"entries": [e.model_copy(update={"error_ms": 0.0}) for e in table.entries]})
    slower = [e.model_copy(update={"latency_ms": e.latency_ms * factor}) for e in certain.entries]
    there = diff_tables(certain, certain.model_copy(update={"entries": slower}))
    back = diff_tables(certain.model_copy(update={"entries": slower}), certain)
    assert len(there.differing) == len(back.differing) == len(table.entries)
    assert there.median_ratio == pytest.approx(factor)
    assert back.median_ratio == pytest.approx(1 / factor)


# --- merge


def test_tables_of_one_device_become_one(run: Run, tmp_path: Path) -> None:
    whole = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    a = whole.model_copy(update={"entries": whole.entries[:10]})
    b = whole.model_copy(update={"entries": whole.entries[8:]})
    files = save(tmp_path / "a.json", a), save(tmp_path / "b.json", b)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json")
    assert result.exit_code == 0, result.output
    merged = read_table(tmp_path / "c.json")
    assert by_key(merged) == by_key(whole)
    assert merged.version == 1
    assert read_table(files[0]).sha256[:12] in merged.source
    assert run("table", "check", tmp_path / "c.json", *SIZE_OPTIONS).exit_code == 0


UNLIKE: dict[str, Callable[[LatencyTable], LatencyTable]] = {
    "device.fingerprint": lambda t: t.model_copy(update={"device": t.device.model_copy(update={"fingerprint": "f"})}),
    "provenance": lambda t: t.model_copy(update={"provenance": "fitted"}),
    "protocol.version": lambda t: t.model_copy(update={"protocol": t.protocol.model_copy(update={"version": 9})}),
    **{
        f"runtime.{field}": lambda t, field=field, value=value: t.model_copy(  # type: ignore[misc]
            update={"runtime": t.runtime.model_copy(update={field: value})}
        )
        for field, value in {
            "name": "torch",
            "version": "9",
            "provider": "other",
            "precision": "int8",
            "threads": 7,
            "batch": 8,
            "options": {"spinning": True},
        }.items()
    },
}


@pytest.mark.parametrize("field", UNLIKE)
def test_unlike_tables_are_refused_by_the_field(run: Run, tmp_path: Path, field: str) -> None:
    a, b = save(tmp_path / "a.json", V1), save(tmp_path / "b.json", UNLIKE[field](V1))
    result = run("table", "merge", a, b, "--out", tmp_path / "c.json")
    assert_one_clear_line(result, f"a.json and .*b.json.*{field} is '.*' and '.*'")
    assert not (tmp_path / "c.json").exists()


def test_every_unlike_field_is_named(run: Run, tmp_path: Path) -> None:
    b = UNLIKE["runtime.threads"](UNLIKE["runtime.version"](UNLIKE["device.fingerprint"](V1)))
    files = save(tmp_path / "a.json", V1), save(tmp_path / "b.json", b)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json")
    assert_one_clear_line(
        result, "fingerprint is '0123456789abcdef' and 'f'", "version is '1.20.0' and '9'", "threads is '2' and '7'"
    )


def test_of_two_entries_the_surer_one_is_kept_or_the_newer_one(run: Run, tmp_path: Path) -> None:
    old = table_of(entry("relu", ms=1.0, error_ms=0.01), entry("sum", ms=1.0, error_ms=0.2), entry("conv", ms=1.0))
    newer = V1.protocol.model_copy(update={"date": "2026-02-01T00:00:00Z", "rounds": 99})
    new = table_of(
        entry("relu", ms=2.0, error_ms=0.02),
        entry("sum", ms=2.0, error_ms=0.1),
        entry("conv", ms=2.0, error_ms=0.5),
        protocol=newer,
    )

    def kept(*tables: LatencyTable, newest: bool = False) -> dict[str, float]:
        merged = merge_tables({str(n): table for n, table in enumerate(tables)}, newest).table
        assert merged.protocol.rounds == 99  # the protocol tells of the newest entries
        return {e.op: e.latency_ms for e in merged.entries}

    assert kept(old, new) == kept(new, old) == {"relu": 1.0, "sum": 2.0, "conv": 2.0}
    assert kept(old, new, newest=True) == kept(new, old, newest=True) == {"relu": 2.0, "sum": 2.0, "conv": 2.0}
    undated = table_of(entry("relu"), protocol=V1.protocol.model_copy(update={"date": "not known"}))
    files = save(tmp_path / "a.json", old), save(tmp_path / "b.json", undated)
    assert run("table", "merge", *files, "--out", tmp_path / "c.json").exit_code == 0
    refused = run("table", "merge", *files, "--out", tmp_path / "d.json", "--prefer-newer")
    assert_one_clear_line(refused, "b.json does not say when")
    assert not (tmp_path / "d.json").exists()


def report(mape: float) -> Additivity:
    return Additivity(
        networks=1, mape=mape, within_5_percent=1, within_10_percent=1, kendall_tau=None, worst=1, bias=0, floor=None
    )


def test_latencies_are_brought_to_one_state_of_the_machine(run: Run, tmp_path: Path) -> None:
    network = MeasuredNetwork(architecture="x", latency_ms=4.0, error_ms=0.4, fitted=True)
    a = table_of(entry("relu", ms=1.0, error_ms=0.1), quality=Quality(sentinel_ms=0.1, sentinel_drift=0.02))
    b = table_of(
        entry("sum", ms=3.0, error_ms=0.3),
        quality=Quality(
            sentinel_ms=0.2,
            sentinel_drift=0.5,
            unstable=["sum-16-16-8x8-s1"],
            noise=["loud"],
            additivity={"n": report(2)},
        ),
        networks={"n": [network]},
        correction={"n": Correction(offset_ms=0.5, scale=1.5, networks=1)},
    )
    files = save(tmp_path / "a.json", a), save(tmp_path / "b.json", b)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json", "--json")
    assert result.exit_code == 0
    (note,) = json.loads(result.stdout)["notes"]
    assert "b.json: all latencies times 0.5000" in note
    merged = read_table(tmp_path / "c.json")
    kept = {e.op: e for e in merged.entries}
    assert kept["relu"] == a.entries[0]
    assert (kept["sum"].latency_ms, kept["sum"].error_ms, kept["sum"].p10_ms, kept["sum"].p90_ms) == (
        1.5,
        0.15,
        1.5,
        1.5,
    )
    (timed,) = merged.networks["n"]
    assert (timed.latency_ms, timed.error_ms) == (2.0, 0.2)
    assert (merged.correction["n"].offset_ms, merged.correction["n"].scale) == (0.25, 1.5)
    quality = merged.quality
    assert (quality.sentinel_ms, quality.sentinel_drift) == (0.1, 0.5)
    assert quality.worst_relative_error == pytest.approx(0.1)
    assert (quality.unstable, quality.noise) == (["sum-16-16-8x8-s1"], ["loud"])
    assert quality.additivity == {"n": report(2)}
    # The other way round, in the state of b.
    other = merge_tables({"b": b, "a": a}).table
    assert {e.op: e.latency_ms for e in other.entries} == {"relu": 2.0, "sum": 3.0}
    unknown = merge_tables({"a": a, "b": b.model_copy(update={"quality": Quality()})})
    assert {e.op: e.latency_ms for e in unknown.table.entries} == {"relu": 1.0, "sum": 3.0}
    assert "b does not say how fast" in unknown.notes[0]


def test_unstable_is_what_is_kept_and_was_unstable() -> None:
    key = entry("relu").workload.key
    shaky = table_of(entry("relu", error_ms=0.5), quality=Quality(unstable=[key]))
    sure = table_of(entry("relu", error_ms=0.1))
    assert merge_tables({"a": shaky, "b": sure}).table.quality.unstable == []
    assert merge_tables({"a": shaky, "b": table_of(entry("relu"))}).table.quality.unstable == [key]
    assert merge_tables({"a": sure, "b": table_of(entry("sum"))}).table.quality.worst_relative_error is None


def test_networks_are_fitted_only_if_the_kept_correction_saw_them() -> None:
    def with_network(offset: float, *timed: MeasuredNetwork, mape: float) -> LatencyTable:
        correction = {"n": Correction(offset_ms=offset, scale=1, networks=1)}
        return table_of(
            entry("relu"),
            networks={"n": list(timed)},
            correction=correction,
            quality=Quality(additivity={"n": report(mape)}),
        )

    def timed(name: str, ms: float, error_ms: float | None, fitted: bool) -> MeasuredNetwork:
        return MeasuredNetwork(architecture=name, latency_ms=ms, error_ms=error_ms, fitted=fitted)

    a = with_network(1, timed("x", 1.0, 0.1, True), timed("y", 1.0, None, False), mape=1)
    b = with_network(2, timed("y", 2.0, 0.5, True), timed("x", 2.0, 0.05, False), timed("z", 2.0, 0.1, True), mape=2)
    merged = merge_tables({"a": a, "b": b}).table
    assert merged.correction["n"].offset_ms == 1
    assert merged.quality.additivity["n"].mape == 1
    assert {n.architecture: (n.latency_ms, n.fitted) for n in merged.networks["n"]} == {
        "x": (2.0, True),
        "y": (2.0, False),
        "z": (2.0, False),
    }


def test_costs_by_edge_of_one_network_merge_only_when_equal(run: Run, tmp_path: Path) -> None:
    costs = V2.edge_costs[NETWORK]
    other = V2.model_copy(update={"edge_costs": {"darts/16x8/3x32x32/10": costs}})
    merged = merge_tables({"a": V2, "b": other, "c": V2}).table
    assert merged.version == 2
    assert merged.edge_costs == {NETWORK: costs, "darts/16x8/3x32x32/10": costs}
    changed = V2.model_copy(update={"edge_costs": {NETWORK: costs.model_copy(update={"base_ms": 0.75})}})
    files = save(tmp_path / "a.json", V2), save(tmp_path / "b.json", changed)
    result = run("table", "merge", *files, "--out", tmp_path / "c.json")
    assert_one_clear_line(result, "different edge costs of nasbench201")
    assert list(tmp_path.iterdir()) == sorted(files, reverse=True) or not (tmp_path / "c.json").exists()


def test_costs_by_edge_are_scaled_with_their_covariance() -> None:
    fast = V2.model_copy(
        update={"quality": Quality(sentinel_ms=1.0), "edge_costs": {}, "version": 1, "entries": [entry()]}
    )
    slow = V2.model_copy(update={"quality": Quality(sentinel_ms=4.0)})
    costs, scaled = V2.edge_costs[NETWORK], merge_tables({"a": fast, "b": slow}).table.edge_costs[NETWORK]
    assert scaled.base_ms == costs.base_ms / 4
    assert scaled.scatter_ms == costs.scatter_ms / 4
    assert scaled.scatter_share == costs.scatter_share
    assert scaled.covariance[3][3] == costs.covariance[3][3] / 16
    for field in ("live_ms", "always_ms", "error_ms"):
        assert getattr(scaled.cells["cell"], field)[5][3] == getattr(costs.cells["cell"], field)[5][3] / 4


@pytest.mark.parametrize(
    ("licences", "together"),
    [
        (["MIT", "MIT"], "MIT"),
        (["MIT", "CC0-1.0"], "MIT AND CC0-1.0"),
        (["MIT", ""], ""),
        (["A OR B", "C"], "(A OR B) AND C"),
    ],
)
def test_whoever_passes_a_merged_table_on_keeps_to_all_licences(licences: list[str], together: str) -> None:
    given_tables = {str(n): table_of(entry(f"op{n}"), licence=licence) for n, licence in enumerate(licences)}
    merged = merge_tables(given_tables)
    assert merged.table.licence == together
    assert bool(merged.notes) == (len(set(licences)) > 1)


def test_one_table_is_nothing_to_merge(run: Run, tmp_path: Path) -> None:
    file = save(tmp_path / "a.json", V1)
    assert_one_clear_line(run("table", "merge", file, file, "--out", tmp_path / "b.json"), "nothing to merge")
    assert_one_clear_line(run("table", "merge", file, tmp_path / "no.json", "--out", tmp_path / "b.json"), "no.json")


@FEW
@given(entries_lists(st.sampled_from(["a", "b"])), entries_lists(st.sampled_from(["a", "b"])))
def test_a_merge_holds_every_workload_and_none_that_is_less_sure(first: list[Entry], second: list[Entry]) -> None:
    a, b = table_of(*first), table_of(*second)
    merged = merge_tables({"a": a, "b": b}).table
    assert set(by_key(merged)) == {*by_key(a), *by_key(b)}
    for key, kept in by_key(merged).items():
        candidates = [by_key(table)[key] for table in (a, b) if key in by_key(table)]
        assert kept in candidates
        assert (kept.error_ms is None, kept.error_ms) == min(
            ((e.error_ms is None, e.error_ms) for e in candidates), key=lambda pair: (pair[0], pair[1] or 0)
        )
    assert by_key(merge_tables({"a": a, "c": a}).table) == by_key(a)
    assert by_key(merge_tables({"m": merged, "a": a, "b": b}).table) == by_key(merged)


# --- rows


@FEW
@given(tables())
def test_what_is_exported_as_csv_imports_again(tmp_path: Path, table: LatencyTable) -> None:
    export_table(table, tmp_path / "t.csv")
    imported = import_table(tmp_path / "t.csv", None, Stated())
    assert (imported.format, imported.refused, imported.unknown) == ("csv", {}, {})
    back = imported.table
    assert by_key(back) == by_key(table)
    assert (back.device, back.runtime) == (table.device, table.runtime)
    assert (back.licence, back.provenance, back.quality.sentinel_ms) == (
        table.licence,
        table.provenance,
        table.quality.sentinel_ms,
    )
    assert (back.protocol.version, back.protocol.date) == (table.protocol.version, table.protocol.date)
    assert table.sha256[:12] in back.source


@FEW
@given(tables())
def test_parquet_and_csv_hold_the_same(tmp_path: Path, table: LatencyTable) -> None:
    for suffix in (".csv", ".parquet"):
        assert export_table(table, tmp_path / f"t{suffix}") == len(table.entries)
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert [{name: row[name] for name in table_rows(table)[0]} for row in rows] == table_rows(table)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [*written[0]] == [*COLUMNS, *TABLE_COLUMNS] == [*rows[0]]
    for one, other in zip(written, rows, strict=True):
        assert one == {name: "" if value is None else str(value) for name, value in other.items()}


def test_costs_by_edge_are_a_row_an_edge_and_operation(run: Run, tmp_path: Path) -> None:
    result = run("table", "export", FROZEN_TABLES / "v2.json", "--out", tmp_path / "t.parquet", "--json")
    assert json.loads(result.stdout)["rows"] == 30
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    (row,) = [r for r in rows if (r["edge"], r["op"]) == (5, "nor_conv_3x3")]
    assert (row["kind"], row["network"], row["cell"]) == ("edge", NETWORK, "cell")
    assert (row["live_ms"], row["always_ms"], row["latency_ms"]) == (0.40625, 0.0078125, 0.4140625)
    assert (row["in_channels"], row["samples"]) == (None, None)
    assert (row["runtime_threads"], row["device_name"], row["table_sha256"]) == (2, "Example phone", V2.sha256)
    both = V1.model_copy(update={"version": 2, "edge_costs": V2.edge_costs})
    export_table(both, tmp_path / "both.csv")
    back = import_table(tmp_path / "both.csv", "csv", Stated())
    assert by_key(back.table) == by_key(V1)
    assert len(back.refused) == 30
    assert "covariance" in back.refused["row 5"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["v1.json", "--out", "t.xlsx"], ["t.xlsx", ".csv or .parquet"]),
        (["v1.json", "--out", "t"], ["'t'", ".csv or .parquet"]),
        (["no.json", "--out", "t.csv"], ["no.json does not exist"]),
    ],
)
def test_export_refuses_in_one_line(run: Run, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    source, option, out = arguments
    assert_one_clear_line(run("table", "export", FROZEN_TABLES / source, option, tmp_path / out), *words)
    assert list(tmp_path.iterdir()) == []


def test_a_number_too_large_for_parquet_leaves_no_file(run: Run, tmp_path: Path) -> None:
    file = save(tmp_path / "t.json", table_of(entry().model_copy(update={"macs": 2**70})))
    assert_one_clear_line(run("table", "export", file, "--out", tmp_path / "t.parquet"), "does not fit", ".csv")
    assert list(tmp_path.iterdir()) == [file]
    assert run("table", "export", file, "--out", tmp_path / "t.csv").exit_code == 0


def rewritten(file: Path, change: Callable[[list[dict[str, str]]], None]) -> Path:
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    change(rows)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_rows_that_are_no_entries_are_left_out_with_the_reason(tmp_path: Path) -> None:
    export_table(table_of(*(entry(f"op{n}") for n in range(6))), tmp_path / "t.csv")

    def spoil(rows: list[dict[str, str]]) -> None:
        rows[1]["latency_ms"] = "-1"
        rows[2]["latency_ms"] = "nan"
        rows[3]["op"] = "op0"
        rows[4]["height"] = "tall"
        for row in rows:
            row["colour"] = "red"

    imported = import_table(rewritten(tmp_path / "t.csv", spoil), None, Stated())
    assert [e.op for e in imported.table.entries] == ["op0", "op5"]
    assert {line: why.split(":")[0] for line, why in imported.refused.items()} == {
        "row 2": "latency_ms",
        "row 3": "latency_ms",
        "row 4": "a second op0-16-16-8x8-s1",
        "row 5": "height",
    }
    assert imported.unknown == {"colour": 6}


def test_rows_without_a_device_need_it_said_and_rows_with_one_must_not(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(
        "op,in_channels,out_channels,height,width,stride,latency_ms,macs,macs_conv_linear,params\n"
        "relu,16,16,8,8,1,0.5,0,0,0\n"
    )
    out = tmp_path / "t.json"
    assert_one_clear_line(run("table", "import", file, "--out", out), "--device-name, --runtime, --threads, --batch$")
    said = ("--device-name", "board", "--runtime", "x", "--threads", 2, "--batch", 1)
    assert_one_clear_line(run("table", "import", file, *said, "--unit", "us", "--out", out), "--unit", "leave it out")
    assert not out.exists()
    assert run("table", "import", file, *said, "--out", out).exit_code == 0
    table = read_table(out)
    (only,) = table.entries
    assert (only.latency_ms, only.error_ms, only.p10_ms, only.p90_ms, only.samples) == (0.5, None, 0.5, 0.5, 0)
    assert (table.device.name, table.runtime.threads, table.runtime.version) == ("board", 2, "not known")
    export_table(table, file)
    assert_one_clear_line(run("table", "import", file, "--threads", 3, "--out", out), "says itself", "--threads")
    both = rewritten(file, lambda rows: rows.append({**rows[0], "op": "sum", "runtime_threads": "8"}))
    assert_one_clear_line(run("table", "import", both, "--out", out), "several tables: runtime_threads is '2' and '8'")


# --- other projects' tables

SAID = ("--device-name", "Pixel 1", "--runtime", "tflite", "--threads", 1, "--batch", 1)
STATED = Stated(device_name="Pixel 1", runtime="tflite", threads=1, batch=1)
PROXYLESS = """\
Conv-input:224x224x3-output:112x112x32: {count: 10, mean: 4.5, var: 0.1}
expanded_conv-input:7x7x192-output:7x7x320-expand:6-kernel:5-stride:1-idskip:0:
  count: 154
  mean: 5.264772727272727
  var: 0.19495998666150827
expanded_conv-input:56x56x24-output:28x28x32-expand:3-kernel:5-stride:2-idskip:0: {mean: 2}
expanded_conv-input:28x28x32-output:28x28x32-expand:3-kernel:7-stride:1-idskip:1: {mean: 1.5}
Conv_1-input:7x7x320-output:7x7x1280: {mean: 3.0}
Logits-input:7x7x1280-output:1000: {mean: 1.0}
"""


def test_proxyless_tables_are_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lut.yaml").write_text(PROXYLESS)
    result = run("table", "import", tmp_path / "lut.yaml", *SAID, "--out", tmp_path / "t.json", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["format"], told["entries"], told["refused"], told["unknown"]) == ("proxyless", 6, {}, {})
    assert told["unused"] == {"count": 2, "var": 2}
    table = read_table(tmp_path / "t.json")
    assert {(e.op, e.workload.key.split("-", 1)[1], e.latency_ms) for e in table.entries} == {
        ("conv_bn_relu6_3x3", "3-32-224x224-s2", 4.5),
        ("mbconv_5x5_e6", "192-320-7x7-s1", 5.264772727272727),
        ("mbconv_5x5_e3", "24-32-56x56-s2", 2.0),
        ("mbconv_7x7_e3_res", "32-32-28x28-s1", 1.5),
        ("conv_bn_relu6_1x1", "320-1280-7x7-s1", 3.0),
        ("pool_linear", "1280-1000-7x7-s1", 1.0),
    }
    assert all((e.error_ms, e.samples, e.p10_ms) == (None, 0, e.latency_ms) for e in table.entries)
    assert table.provenance == "measured"
    assert table.source == "imported from lut.yaml (proxyless)"
    assert (table.runtime.name, table.runtime.version, table.runtime.precision) == ("tflite", "not known", "not known")
    assert (table.device.kind, table.device.cores, table.protocol.date) == ("unknown", 0, "not known")
    checked = run("table", "check", tmp_path / "t.json")
    assert checked.exit_code == 0
    assert "not timed again: an imported table" in checked.stdout
    seconds = import_table(tmp_path / "lut.yaml", None, Stated("Pixel 1", runtime="x", threads=1, batch=1, unit="s"))
    assert max(e.latency_ms for e in seconds.table.entries) == pytest.approx(5264.772727)
    # Another device, another fingerprint; the same said twice, the same.
    again = import_table(tmp_path / "lut.yaml", "proxyless", STATED).table
    assert again.device.fingerprint == table.device.fingerprint
    other = import_table(tmp_path / "lut.yaml", None, Stated("Pixel 2", runtime="tflite", threads=1, batch=1)).table
    assert other.device.fingerprint != table.device.fingerprint


def test_once_for_all_tables_are_read(tmp_path: Path) -> None:
    content = {
        "AvgPool2D-input:6x6x1152-output:1x1x1152": {"count": 481, "mean": 0.01, "std": 0.001},
        "Conv-input:164x164x3-output:82x82x24": {"mean": 0.5},
        "Conv_1-input:6x6x192-output:6x6x1152": {"mean": 0.6},
        "Conv_2-input:1x1x1152-output:1x1x1536": {"mean": 0.7},
        "Logits-input:1x1x1536-output:1000": {"mean": 0.8},
        "expanded_conv-input:11x11x136-output:6x6x192-expand:408-kernel:3-stride:2-idskip:0-se:1-hs:1": {"mean": 1.5},
        "expanded_conv-input:41x41x32-output:41x41x32-expand:96-kernel:5-stride:1-idskip:1-se:0-hs:0": {"mean": 0.9},
    }
    (tmp_path / "164_lookup_table.json").write_text(json.dumps(content))
    imported = import_table(tmp_path / "164_lookup_table.json", None, STATED)
    assert (imported.format, imported.refused, imported.unused) == ("ofa", {}, {"count": 1, "std": 1})
    assert {(e.op, e.latency_ms) for e in imported.table.entries} == {
        ("global_avg_pool", 0.01),
        ("conv_bn_hswish_3x3", 0.5),
        ("conv_bn_hswish_1x1", 0.6),
        ("conv_hswish_1x1", 0.7),
        ("linear", 0.8),
        ("mbconv_3x3_m408_se_hs", 1.5),
        ("mbconv_5x5_m96_res", 0.9),
    }


HW_NAS_BENCH = {
    "ConvNorm_H224_W224_Cin3_Cout16_kernel3_stride2_group1": 1.0,
    "ConvBlock_H56_W56_Cin24_Cout32_exp3_kernel5_stride2_group1": 2.0,
    "ConvBlock_H56_W56_Cin24_Cout24_exp1_kernel3_stride1_group2": 3.0,
    "Skip_H56_W56_Cin24_Cout24_stride1": 0.0,
    "Skip_H56_W56_Cin24_Cout32_stride2": 0.5,
    "AvgP_H7_W7_Cin1984_Cout1984_kernel7_stride1": 0.25,
    "FC_Cin1984_Cout1000": 0.125,
}


def test_hw_nas_bench_tables_are_read(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "pixel3.json"
    file.write_text(json.dumps(HW_NAS_BENCH | {"Warp_H1": 1.0, "FC_Cin1_Cout1": "many"}))
    assert_one_clear_line(run("table", "import", file, *SAID, "--out", tmp_path / "t.json"), "with --unit$")
    result = run("table", "import", file, *SAID, "--unit", "us", "--out", tmp_path / "t.json")
    assert result.exit_code == 0
    assert "left out: Warp_H1: no operation" in result.stdout
    assert "left out: FC_Cin1_Cout1: 'many' is no latency" in result.stdout
    assert "left out: 2 lines" in result.stdout
    assert {(e.op, round(e.latency_ms * 1e3, 9)) for e in read_table(tmp_path / "t.json").entries} == {
        ("conv_bn_relu_3x3", 1.0),
        ("ir_5x5_e3", 2.0),
        ("ir_3x3_e1_g2_res", 3.0),
        ("identity", 0.0),
        ("conv_bn_relu_1x1", 0.5),
        ("global_avg_pool", 0.25),
        ("linear", 0.125),
    }
    strict = run("table", "import", file, *SAID, "--unit", "us", "--strict", "--out", tmp_path / "s.json")
    assert_one_clear_line(strict, "2 lines and 0 fields are not understood", "Warp_H1")
    assert not (tmp_path / "s.json").exists()
    file.write_text(json.dumps({"pixel3_latency": HW_NAS_BENCH, "fpga_energy": HW_NAS_BENCH}))
    assert_one_clear_line(
        run("table", "import", file, *SAID, "--unit", "ms", "--out", tmp_path / "s.json"), "pixel3_latency, fpga_energy"
    )


NNI = [
    {"op_name": "mb_k3_e2_res", "op_data_shape": (14, 28, 32, 32, 1), "op_dtype": "float", "op_latency": 120.0},
    {"op_name": "sep_k5", "op_data_shape": (14, 14, 32, 64, 2), "op_dtype": "float", "op_latency": 60.0},
    {"op_name": "mb_k5_res_se", "op_data_shape": (7, 7, 64, 64, 1), "op_dtype": "float", "op_latency": 60.0},
]
NNI_FORMS: dict[str, str] = {
    "python": "\n".join(map(repr, NNI)),
    "json lines": "\n".join(map(json.dumps, NNI)),
    "json": json.dumps(NNI),
    "columns": "op_name op_data_shape op_dtype op_latency\n"
    + "\n".join(f"{r['op_name']} {'x'.join(map(str, r['op_data_shape']))} float {r['op_latency']}" for r in NNI),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("form", NNI_FORMS)
def test_nni_tables_are_read(tmp_path: Path, form: str) -> None:
    file = tmp_path / "lut.txt"
    file.write_text(NNI_FORMS[form])
    imported = import_table(file, None, Stated("board", runtime="torch", threads=1, batch=1, unit="us"))
    assert imported.format == "fbnet"
    assert imported.table.runtime.precision == "float32"
    assert [(e.workload, e.latency_ms) for e in imported.table.entries] == [
        (Workload("ir_3x3_e2_res", 32, 32, 28, 14), 0.12),
        (Workload("separable_bn_relu_5x5", 32, 64, 14, 14, 2), 0.06),
    ]
    ((line, why),) = imported.refused.items()
    assert "3" in line or "4" in line
    assert "'mb_k5_res_se' is made of is not known" in why


def test_of_several_data_types_one_must_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "lut.txt"
    file.write_text("\n".join(map(repr, [*NNI[:2], {**NNI[0], "op_dtype": "int8", "op_latency": 30.0}])))
    stated = asdict(Stated("board", runtime="torch", threads=1, batch=1, unit="us"))
    with pytest.raises(HwnasError, match="several data types: float32, int8; choose one with --precision"):
        import_table(file, None, Stated(**stated))
    imported = import_table(file, None, Stated(**{**stated, "precision": "int8"}))
    assert [e.latency_ms for e in imported.table.entries] == [0.03]
    assert imported.table.runtime.precision == "int8"
    assert len(imported.refused) == 2


def test_lines_that_are_no_layers_are_refused_with_the_reason() -> None:
    conv = "expanded_conv-input:56x56x24-output:{}x{}x32-expand:3-kernel:5-stride:2-idskip:{}"
    wrong: list[tuple[Callable[[str], Any], str, str]] = [
        (proxyless_key, "Features_1-input:7x7x1280", "no layer"),
        (proxyless_key, conv.format(27, 28, 0), "output's size"),
        (proxyless_key, conv.format(28, 28, 1), "another size"),
        (proxyless_key, conv.format(28, 28, 0) + "-se:1-hs:1", "once-for-all"),
        (ofa_key, conv.format(28, 28, 0), "ProxylessNAS"),
        (ofa_key, "AvgPool2D-input:6x6x8-output:3x3x8", "not an average"),
        (ofa_key, "Conv_3-input:1x1x8-output:1x1x8", "no layer"),
        (hw_nas_bench_key, "ConvBlock_H56_W56_Cin25_Cout32_exp3_kernel5_stride2_group2", "do not divide"),
        (hw_nas_bench_key, "ConvBlock_H56_W56_Cin24_Cout32_exp3_kernel5_stride2_group0", "0 groups"),
        (hw_nas_bench_key, "AvgP_H7_W7_Cin8_Cout8_kernel3_stride1", "not an average"),
    ]
    for read, key, words in wrong:
        with pytest.raises(ValueError, match=words):
            read(key)
    for changes, words in (
        ({"op_data_shape": (1, 2, 3)}, "not \\(width"),
        ({"op_data_shape": "1x1x1x1"}, "not \\(width"),
        ({"op_name": "warp"}, "not known"),
        ({"op_name": "gh_k3", "op_data_shape": (8, 8, 4, 5, 1)}, "odd"),
        ({"op_data_shape": (8, 8, 4, 8, 1)}, "another size"),
    ):
        with pytest.raises(ValueError, match=words):
            fbnet_operation({**NNI[0], **changes})  # type: ignore[dict-item]


BOMB = "a: &a {mean: 1}\nb: &b {mean: 1, x: *a}\nc: *b\n"
BAD_FILES: dict[str, tuple[str, bytes | None, tuple[str, ...], str]] = {
    "missing": ("lut.yaml", None, (), "does not exist"),
    "pickle": ("lut.bin", pickle.dumps(HW_NAS_BENCH), (), "pickle"),
    "pickle by name": ("lut.pickle", b"(dp0\n.", (), "pickle"),
    "numpy": ("lut.dat", b"\x93NUMPY\x01\x00", (), "pickle"),
    "binary": ("lut.txt", b"\xff\xfe\x00", (), "not a text file"),
    "empty": ("lut.txt", b"", (), "cannot tell the format"),
    "empty fbnet": ("lut.txt", b"", ("--format", "fbnet"), "nothing in"),
    "prose": ("lut.txt", b"Dear reader", (), "cannot tell the format"),
    "two formats": (
        "lut.txt",
        json.dumps({"op_data_shape": 1, "ConvNorm_H2_W2_Cin3_Cout4_kernel1_stride1_group1": 1}).encode(),
        (),
        "cannot tell the format",
    ),
    "unknown format": ("lut.yaml", PROXYLESS.encode(), ("--format", "tvm"), "'tvm'"),
    "unknown unit": ("lut.yaml", PROXYLESS.encode(), ("--unit", "fortnights"), "fortnights"),
    "another format": ("lut.yaml", PROXYLESS.encode(), ("--format", "ofa"), "is of the format proxyless, not ofa"),
    "nothing known": ("lut.yaml", b"a: {mean: 1}", ("--format", "ofa"), "nothing in .*: a: no layer"),
    "aliases": ("lut.yaml", BOMB.encode(), ("--format", "proxyless"), "anchor"),
    "tags": ("lut.yaml", b"a: !!python/object:os.system {mean: 1}", ("--format", "proxyless"), "tag"),
    "deep": ("lut.yaml", b"a: {b: {c: {d: 1}}}", ("--format", "proxyless"), "deeper"),
    "very deep": ("lut.yaml", b"{a: " * 50_000, ("--format", "proxyless"), "not valid JSON|deeper"),
    "twice": ("lut.yaml", b"a: {mean: 1}\na: {mean: 2}", ("--format", "proxyless"), "twice"),
    "a list": ("lut.yaml", b"- 1\n- 2", ("--format", "proxyless"), "not a YAML file of keys"),
    "half": ("lut.yaml", b"a: {mean: 1", ("--format", "proxyless"), "not valid YAML"),
    "a key that is a map": ("lut.yaml", b"? {a: 1}\n: 2", ("--format", "proxyless"), "no text"),
    "by layer number": ("lut.txt", b"ir_k3_e1 skip\n1.5 2.5\n3 4\n", ("--format", "fbnet"), "number of a layer"),
    "a list of lists": ("lut.json", b"[null, [1, 2]]", ("--format", "fbnet"), "number of a layer"),
    "a nested literal": ("lut.txt", b"[" * 9_000, ("--format", "fbnet"), "not valid JSON"),
    "a nested line": ("lut.txt", b"{'a': " * 1_500, ("--format", "fbnet"), "no object"),
    "csv without columns": ("t.csv", b"op,latency_ms\nrelu,1\n", (), "lacks the columns in_channels"),
    "csv without rows": (
        "t.csv",
        b"op,in_channels,out_channels,height,width,stride,latency_ms,macs,macs_conv_linear,params\n",
        (),
        "nothing in",
    ),
    "csv with a huge field": (
        "t.csv",
        b"op,in_channels,out_channels,height,width,stride,latency_ms,macs,macs_conv_linear,params\n" + b"x" * 200_000,
        (),
        "not valid CSV",
    ),
    "a long name": ("lut.yaml", PROXYLESS.encode(), ("--device-name", "x" * 300), "device_name|name"),
    "another kind": ("lut.yaml", PROXYLESS.encode(), ("--device-kind", "fridge"), "kind"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files_are_refused_in_one_line_and_leave_nothing(run: Run, tmp_path: Path, case: str) -> None:
    name, data, options, words = BAD_FILES[case]
    if data is not None:
        (tmp_path / name).write_bytes(data)
    before = sorted(tmp_path.iterdir())
    unit = () if "--unit" in options or name == "t.csv" else ("--unit", "ms")
    result = run("table", "import", tmp_path / name, *SAID, *unit, *options, "--out", tmp_path / "out.json")
    assert_one_clear_line(result, words)
    assert sorted(tmp_path.iterdir()) == before


@FEW
@given(st.text(max_size=200), st.sampled_from(["proxyless", "ofa", "hw-nas-bench", "fbnet", "csv"]))
def test_no_text_makes_a_reader_fall_over(tmp_path: Path, text: str, format_name: str) -> None:
    (tmp_path / "any.txt").write_text(text, encoding="utf-8")
    with pytest.raises(HwnasError):
        import_table(tmp_path / "any.txt", format_name, Stated("a", runtime="b", threads=1, batch=1, unit="ms"))


# --- counts of blocks, against fvcore on real modules


def convolution(i: int, o: int, k: int = 1, s: int = 1, g: int = 1, norm: bool = True, bias: bool = False) -> nn.Module:
    layer = nn.Conv2d(i, o, k, s, k // 2, groups=g, bias=bias)
    return nn.Sequential(layer, nn.BatchNorm2d(o)) if norm else layer


class Gated(nn.Module):
    """Squeeze-and-excitation as once-for-all has it."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.mean(3, keepdim=True).mean(2, keepdim=True)
        return x * torch.sigmoid(self.expand(torch.relu(self.reduce(y))))


class Ghost(nn.Module):
    def __init__(self, i: int, o: int, k: int, s: int) -> None:
        super().__init__()
        self.first, self.second = convolution(i, o // 2, 1, s), convolution(o // 2, o // 2, k, 1, o // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        half = self.first(x)
        return torch.cat([half, self.second(half)], dim=1)


def classifier(channels: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def nni(op: str, *shape: int) -> Any:
    return fbnet_operation({"op_name": op, "op_data_shape": shape})


BLOCKS = {
    "proxyless stem": (proxyless_key("Conv-input:15x14x3-output:8x7x16"), convolution(3, 16, 3, 2)),
    "proxyless wide": (
        proxyless_key("expanded_conv-input:9x9x8-output:5x5x12-expand:3-kernel:5-stride:2-idskip:0"),
        nn.Sequential(convolution(8, 24), convolution(24, 24, 5, 2, 24), convolution(24, 12)),
    ),
    "proxyless not widened": (
        proxyless_key("expanded_conv-input:9x9x8-output:9x9x12-expand:1-kernel:3-stride:1-idskip:0"),
        nn.Sequential(convolution(8, 8, 3, 1, 8), convolution(8, 12)),
    ),
    "proxyless head": (proxyless_key("Logits-input:7x5x12-output:10"), classifier(12, 10)),
    "ofa gated": (
        ofa_key("expanded_conv-input:11x11x8-output:6x6x16-expand:40-kernel:3-stride:2-idskip:0-se:1-hs:1"),
        nn.Sequential(convolution(8, 40), convolution(40, 40, 3, 2, 40), Gated(40, 16), convolution(40, 16)),
    ),
    "ofa mix": (ofa_key("Conv_2-input:1x1x8-output:1x1x16"), convolution(8, 16, norm=False)),
    "ofa head": (ofa_key("Logits-input:1x1x8-output:10"), nn.Sequential(nn.Flatten(), nn.Linear(8, 10))),
    "ofa pool": (ofa_key("AvgPool2D-input:6x6x8-output:1x1x8"), nn.AdaptiveAvgPool2d(1)),
    "hw-nas-bench block": (
        hw_nas_bench_key("ConvBlock_H9_W8_Cin8_Cout12_exp3_kernel5_stride2_group1"),
        nn.Sequential(convolution(8, 24), convolution(24, 24, 5, 2, 24), convolution(24, 12)),
    ),
    "hw-nas-bench groups": (
        hw_nas_bench_key("ConvBlock_H9_W8_Cin8_Cout8_exp1_kernel3_stride1_group2"),
        nn.Sequential(convolution(8, 8, g=2), convolution(8, 8, 3, 1, 8), convolution(8, 8, g=2)),
    ),
    "hw-nas-bench skip": (hw_nas_bench_key("Skip_H9_W8_Cin8_Cout12_stride2"), convolution(8, 12, 1, 2)),
    "hw-nas-bench classifier": (hw_nas_bench_key("FC_Cin8_Cout10"), nn.Sequential(nn.Flatten(), nn.Linear(8, 10))),
    "nni separable": (nni("sep_k5", 8, 9, 8, 12, 2), nn.Sequential(convolution(8, 8, 5, 2, 8), convolution(8, 12))),
    "nni ghost": (nni("gh_k3", 8, 9, 8, 12, 2), Ghost(8, 12, 3, 2)),
    "nni conv1x1": (nni("conv1x1", 8, 9, 8, 12, 1), convolution(8, 12, norm=False, bias=True)),
    "nni depth_conv": (
        nni("depth_conv", 8, 9, 8, 12, 2),
        nn.Sequential(convolution(8, 8, 3, 2, 8, norm=False, bias=True), convolution(8, 12, norm=False, bias=True)),
    ),
    "nni dilated widens twice": (
        nni("mb_k3_res_d3", 8, 9, 8, 8, 1),
        nn.Sequential(
            convolution(8, 16),
            nn.Conv2d(16, 16, 3, 1, 3, 3, 16, bias=False),
            nn.BatchNorm2d(16),
            convolution(16, 8),
        ),
    ),
    "fbnet": (
        nni("ir_k3_e6", 8, 9, 4, 8, 2),
        nn.Sequential(convolution(4, 24), convolution(24, 24, 3, 2, 24), convolution(24, 8)),
    ),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_counts_are_those_of_fvcore(name: str) -> None:
    (block, height, width), module = BLOCKS[name]
    counts = count_layers(block.layers, height, width)
    exact = count(module, torch.zeros(1, block.in_channels, height, width))
    assert (counts.macs, counts.macs_conv_linear, counts.params) == (
        exact.macs_fvcore,
        exact.macs_conv_linear,
        exact.params,
    )


# --- pictures


def test_a_table_is_drawn_as_png_and_svg(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    file = save(tmp_path / "t.json", table)
    for suffix in ("png", "svg"):
        result = run("table", "show", file, "--plot", tmp_path / f"t.{suffix}")
        assert result.exit_code == 0, result.output
        assert f"picture: {tmp_path / f't.{suffix}'}" in result.stdout
    with Image.open(tmp_path / "t.png") as image:
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > len(table.entries)
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    assert root.tag.endswith("svg")
    comments = (tmp_path / "t.svg").read_text()
    for op in {entry.op for entry in table.entries} | {"16→10, 4×4", "latency, µs"}:
        assert f"<!-- {op} -->" in comments
    first = (tmp_path / "t.svg").read_bytes()
    plot_table(table, tmp_path / "t.svg")
    assert (tmp_path / "t.svg").read_bytes() == first


def test_costs_by_edge_are_drawn_and_printed(run: Run, tmp_path: Path) -> None:
    result = run("table", "show", FROZEN_TABLES / "v2.json", "--plot", tmp_path / "t.svg")
    assert result.exit_code == 0
    assert "0.4141 ± 0.0156" in result.stdout  # 2→3, nor_conv_3x3: live 0.40625, always 0.0078125
    assert "2→3" in result.stdout
    assert "latency ms" not in result.stdout  # it has no entries to list
    drawn = (tmp_path / "t.svg").read_text()
    for label in ("2→3", "nor_conv_3x3", "414", f"{NETWORK}, cell: what an edge costs where it is live"):
        assert f"<!-- {label} -->" in drawn


def test_names_of_strangers_are_drawn_as_they_are(tmp_path: Path) -> None:
    strange = table_of(
        entry("$\\frac{1$", ms=0.0),
        entry("$x^2$\n\x1b[2J", ms=1e-9),
        entry("名", ms=1e9),
        device=V1.device.model_copy(update={"name": "A $\\frac{5$ board & <co>"}),
        version=2,
        edge_costs={"$\\frac{n$": V2.edge_costs[NETWORK]},
    )
    plot_table(strange, tmp_path / "t.svg")
    drawn = (tmp_path / "t.svg").read_text()
    ElementTree.fromstring(drawn)
    assert "\x1b" not in drawn


def test_a_picture_of_everything_is_refused(run: Run, tmp_path: Path) -> None:
    ops = [entry(f"op{number}") for number in range(501)]
    file = save(tmp_path / "t.json", table_of(*ops))
    assert_one_clear_line(
        run("table", "show", file, "--plot", tmp_path / "t.png"), "too large for one picture", "export"
    )
    assert_one_clear_line(run("table", "show", file, "--plot", tmp_path / "t.gif"), "t.gif", ".png or .svg")
    empty = save(tmp_path / "e.json", table_of())
    assert_one_clear_line(run("table", "show", empty, "--plot", tmp_path / "t.png"), "holds no entries")
    assert_one_clear_line(run("table", "export", empty, "--out", tmp_path / "t.csv"), "holds no entries")
    assert sorted(tmp_path.iterdir()) == [empty, file]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234"), (1e6, "1e+06"), (1e-5, "1e-05")],
)
def test_numbers_in_pictures_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


def test_many_sizes_go_below_each_other(tmp_path: Path) -> None:
    many = [entry(channels=channels, side=side) for channels in range(1, 12) for side in range(1, 9)]
    plot_table(table_of(*many), tmp_path / "t.svg")
    drawn = (tmp_path / "t.svg").read_text()
    assert all(drawn.count(f"<!-- {e.in_channels}, {e.height}×{e.width} -->") == 1 for e in many)


# --- weight


@pytest.mark.parametrize(
    "arguments",
    [
        ["schema"],
        ["diff", "v1.json", "v1.json"],
        ["check", "v2.json"],
        ["check", "v1.json", "--contents", "--strict"],
        ["show", "v2.json"],
        ["export", "v1.json", "--out", "t.csv"],
        ["import", "t.csv", "--out", "t.json"],
        ["merge", "v1.json", "t.json", "--out", "m.json"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_tables_are_exchanged_without_torch_and_numpy(arguments: list[str], tmp_path: Path) -> None:
    for version in (1, 2):
        (tmp_path / f"v{version}.json").write_bytes((FROZEN_TABLES / f"v{version}.json").read_bytes())
    export_table(V1, tmp_path / "t.csv")
    write_table(tmp_path / "t.json", V1)
    code = (
        "import sys; from hwnas.cli import app; "
        f"sys.argv = ['hwnas', 'table', *{arguments!r}]\n"
        "try: app()\nexcept SystemExit as e: assert e.code in (None, 0, 1), e.code\n"
        "heavy = {'torch', 'numpy', 'scipy', 'onnx', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path)
