"""Check a table: missing workloads, costs by edge, latencies that fall as sizes grow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.spaces import SizedSpace
from hwnas.tables.check import disorders
from hwnas.tables.schema import (
    Correction,
)
from support.command import Run, assert_one_clear_line
from support.paths import FROZEN_TABLES
from support.spaces import NB201, SMALL
from support.table_samples import FEW, NETWORK, SIZE_OPTIONS, V2, entry_of, save, table_of
from support.tables import make_table

KEY = SizedSpace(NB201, SMALL["nasbench201"]).key


def test_a_complete_table_passes_without_timing(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    file = save(tmp_path / "t.json", table)
    result = run("table", "check", file, *SIZE_OPTIONS)
    assert result.exit_code == 0, result.output
    assert f"complete for {KEY}" in result.stdout
    assert "not timed again: the numbers of a fitted table" in result.stdout
    printed = json.loads(run("table", "check", file, *SIZE_OPTIONS, "--json").stdout)
    assert (printed["fine"], printed["describes"], printed["slowdown"], printed["entries"]) == (True, None, None, [])
    assert printed["contents"]["coverage"] == [
        {
            **{"network": KEY, "needed": 16, "missing": [], "note": ""},
            "command": printed["contents"]["coverage"][0]["command"],
        }
    ]


def test_a_table_without_a_network_is_reported(run: Run, tmp_path: Path) -> None:
    result = run("table", "check", save(tmp_path / "t.json", make_table(SizedSpace(NB201, SMALL["nasbench201"]))))
    assert result.exit_code == 0
    assert "give --space to check" in result.stdout


@pytest.mark.parametrize("rewrites", [[], ["share"]])
def test_missing_workloads_are_listed_with_the_command(run: Run, tmp_path: Path, rewrites: list[str]) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    correction = Correction(offset_ms=0, scale=1, rewrites=rewrites, networks=2)
    gone = [e for e in table.entries if e.op == "nor_conv_3x3"]
    rest = [e for e in table.entries if e not in gone]
    file = save(tmp_path / "t.json", table.model_copy(update={"entries": rest, "correction": {KEY: correction}}))
    result = run("table", "check", file)
    assert result.exit_code == 1, result.output
    printed = json.loads(run("table", "check", file, "--json").stdout)
    assert (printed["fine"], printed["describes"]) == (False, None)
    (covered,) = printed["contents"]["coverage"]
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


def test_entries_out_of_order_are_a_warning_and_an_error_with_strict(run: Run, tmp_path: Path) -> None:
    slow, quick = entry_of(channels=16, ms=1.0, error_ms=0.01), entry_of(channels=32, ms=0.8, error_ms=0.01)
    file = save(tmp_path / "t.json", table_of(slow, quick))
    result = run("table", "check", file, "--contents")
    assert result.exit_code == 0
    assert "relu-32-32-8x8-s1 takes 0.8 ms, relu-16-16-8x8-s1 takes 1 ms: more channels in 0.80 times" in result.stdout
    strict = run("table", "check", file, "--contents", "--strict", "--json")
    assert strict.exit_code == 1
    printed = json.loads(strict.stdout)["contents"]
    assert printed["disorders"] == [
        {
            "what": "channels",
            "smaller": "relu-16-16-8x8-s1",
            "smaller_ms": 1.0,
            "larger": "relu-32-32-8x8-s1",
            "larger_ms": 0.8,
        }
    ]
    assert printed["problems"] == ["1 entries are quicker than smaller ones"]


def test_only_pairs_with_one_larger_in_every_size_are_compared() -> None:
    small = entry_of(channels=16, side=8, ms=1.0)
    assert disorders([small, entry_of(channels=16, side=16, ms=0.5)])[0].what == "resolution"
    assert disorders([small, entry_of(channels=32, side=8, ms=0.5)])[0].what == "channels"
    fine = [
        entry_of(channels=16, side=8, ms=0.91),  # itself, within a tenth of the next
        entry_of(channels=32, side=4, ms=0.5),  # more channels of a smaller image
        entry_of(op="sum", channels=32, ms=0.5),  # another operation
        entry_of(channels=32, ms=0.95).model_copy(update={"stride": 2, "latency_ms": 0.1}),
        entry_of(channels=32, ms=0.89, error_ms=0.02),  # within the errors
    ]
    assert not disorders([small.model_copy(update={"channels": 16}), *fine[1:]])
    narrow = small.model_copy(update={"in_channels": 8, "out_channels": 64})
    assert not disorders([narrow, entry_of(channels=32, ms=0.1)])
    assert not disorders([entry_of(ms=1.0, error_ms=0.2), entry_of(channels=32, ms=0.75)])
    assert disorders([entry_of(ms=1.0, error_ms=0.2), entry_of(channels=32, ms=0.65)])


@FEW
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5), st.floats(0, 10), st.floats(0, 1)), max_size=12))
def test_disorders_are_those_of_the_definition(listed: list[tuple[int, int, float, float]]) -> None:
    found = {
        (i, o): entry_of(ms=ms, error_ms=error).model_copy(update={"in_channels": i, "out_channels": o})
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


def test_twenty_thousand_entries_of_one_operation_are_checked_quickly() -> None:
    many = [
        entry_of(ms=1.0).model_copy(update={"in_channels": n % 317 + 1, "out_channels": n // 317 + 1})
        for n in range(20_000)
    ]
    assert not disorders(many)


def test_a_table_whose_contents_fail_is_not_timed(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"])).model_copy(update={"provenance": "measured"})
    file = save(tmp_path / "t.json", table.model_copy(update={"entries": table.entries[1:]}))
    result = run("table", "check", file, *SIZE_OPTIONS)
    assert result.exit_code == 1
    assert "not timed again: the contents have problems" in result.stdout
    # The complete table would be timed, but it has no latency of the sentinel.
    assert_one_clear_line(run("table", "check", save(file, table), *SIZE_OPTIONS), "no latency of the sentinel")
    assert run("table", "check", file, *SIZE_OPTIONS, "--contents").exit_code == 0
