"""Import tables from CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from hypothesis import given

from hwnas.tables.export import export_table
from hwnas.tables.importers import Stated, import_table
from hwnas.tables.io import read_table
from hwnas.tables.schema import (
    LatencyTable,
)
from support.command import Run, assert_one_clear_line
from support.table_samples import FEW, by_key, entry_of, table_of, tables


@FEW
@given(tables())
def test_an_exported_csv_file_can_be_imported(tmp_path: Path, table: LatencyTable) -> None:
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


def rewritten(file: Path, change: Callable[[list[dict[str, str]]], None]) -> Path:
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    change(rows)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.DictWriter(opened, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def test_invalid_rows_are_refused_with_the_reason(tmp_path: Path) -> None:
    export_table(table_of(*(entry_of(f"op{n}") for n in range(6))), tmp_path / "t.csv")

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
        "line 3": "latency_ms",
        "line 4": "latency_ms",
        "line 5": "a second op0-16-16-8x8-s1",
        "line 6": "height",
    }
    assert imported.unknown == {"colour": 6}


def test_two_latencies_of_one_workload_are_refused_with_both_rows(run: Run, tmp_path: Path) -> None:
    export_table(table_of(*(entry_of(f"op{n}", ms=1.0 + n) for n in range(4))), tmp_path / "t.csv")
    file = rewritten(tmp_path / "t.csv", lambda rows: rows[3].update(op="op0"))
    result = run("table", "import", file, "--out", tmp_path / "t.json")
    assert_one_clear_line(result, "two latencies of op0-16-16-8x8-s1 that are 4 times apart, in line 2 and line 5")
    assert not (tmp_path / "t.json").exists()


def test_options_give_what_rows_lack_and_nothing_else(run: Run, tmp_path: Path) -> None:
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
    assert_one_clear_line(run("table", "import", file, "--threads", 3, "--out", out), "already gives --threads")
    both = rewritten(file, lambda rows: rows.append({**rows[0], "op": "sum", "runtime_threads": "8"}))
    assert_one_clear_line(run("table", "import", both, "--out", out), "several tables: runtime_threads is '2' and '8'")
