"""Compare two tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.tables.diff import diff_tables
from hwnas.tables.io import read_table
from hwnas.tables.schema import (
    LatencyTable,
)
from support.command import Run
from support.paths import FROZEN_TABLES
from support.table_samples import FEW, NETWORK, V1, V2, by_key, entry_of, save, table_of, tables


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
            entry_of("relu", ms=1.0, error_ms=0.05),
            entry_of("sum", ms=1.0, error_ms=0.05),
            entry_of("conv", ms=2.0),
            entry_of("pool", ms=1.0, error_ms=0.01),
            entry_of("gone", ms=1.0),
        ),
    )
    runtime = V1.runtime.model_copy(update={"threads": 4, "version": "1.30.0"})
    b = save(
        tmp_path / "b.json",
        table_of(
            entry_of("relu", ms=1.09, error_ms=0.05),  # within both errors
            entry_of("sum", ms=1.2, error_ms=0.05),  # twice both errors
            entry_of("conv", ms=2.5),  # its errors count as 10 %: 0.2 + 0.25
            entry_of("pool", ms=1.5, error_ms=0.01),  # 25 times
            entry_of("new", ms=1.0),
            runtime=runtime,
            licence="MIT",
        ),
    )
    result = run("table", "diff", a, b, "--json")
    assert result.exit_code == 1
    printed = json.loads(result.stdout)
    assert printed["header"] == {
        "runtime.threads": [2, 4],
        "runtime.version": ["1.20.0", "1.30.0"],
        "licence": ["CC0-1.0", "MIT"],
    }
    assert (printed["only_a"], printed["only_b"]) == (["gone-16-16-8x8-s1"], ["new-16-16-8x8-s1"])
    assert [d["name"].split("-")[0] for d in printed["differing"]] == ["pool", "sum", "conv"]
    assert printed["differing"][0]["ratio"] == pytest.approx(1.5)
    assert printed["differing"][0]["excess"] == pytest.approx(25)
    assert [d["errors_known"] for d in printed["differing"]] == [True, True, False]
    assert printed["common"] == 4
    assert printed["errors_unknown"] == 1
    assert printed["median_ratio"] == pytest.approx((1.2 + 1.25) / 2)
    shown = run("table", "diff", a, b)
    assert shown.exit_code == 1
    assert "runtime.threads" in shown.stdout
    assert "3 differ by more than their errors" in shown.stdout
    assert "1 only in A: gone-16-16-8x8-s1" in shown.stdout
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
    printed = json.loads(result.stdout)
    assert [d["name"] for d in printed["differing"]] == [
        f"{NETWORK} cell edge 4 nor_conv_3x3",
        f"{NETWORK} base",
    ]
    assert printed["common"] == 1 + 6 * 4
    assert printed["differing"][0]["b_ms"] - printed["differing"][0]["a_ms"] == pytest.approx(0.1)
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
