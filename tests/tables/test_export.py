"""Write tables as CSV and Parquet."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given
from pyarrow import parquet

from hwnas.tables.export import COLUMNS, TABLE_COLUMNS, export_table, table_rows
from hwnas.tables.importers import Stated, import_table
from hwnas.tables.schema import (
    LatencyTable,
)
from support.command import Run, assert_one_clear_line
from support.paths import FROZEN_TABLES
from support.table_samples import FEW, NETWORK, V1, V2, by_key, entry_of, save, table_of, tables


@pytest.mark.slow
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


def test_edge_costs_have_one_row_for_each_edge_and_operation(run: Run, tmp_path: Path) -> None:
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
    assert "covariance" in back.refused["line 6"]


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
    file = save(tmp_path / "t.json", table_of(entry_of().model_copy(update={"macs": 2**70})))
    assert_one_clear_line(run("table", "export", file, "--out", tmp_path / "t.parquet"), "does not fit", ".csv")
    assert list(tmp_path.iterdir()) == [file]
    assert run("table", "export", file, "--out", tmp_path / "t.csv").exit_code == 0
