"""CSV files of other projects' keys and their latencies, against the same keys in the projects' own form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hwnas.tables.importers import Stated, import_table
from hwnas.tables.importers.parsed import NOT_KNOWN
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line
from support.published_tables import HW_NAS_BENCH, PROXYLESS, SAID, STATED

MEANS = {key: float(value["mean"]) for key, value in yaml.safe_load(PROXYLESS).items()}
OFA = {
    "AvgPool2D-input:6x6x1152-output:1x1x1152": 0.01,
    "expanded_conv-input:11x11x136-output:6x6x192-expand:408-kernel:3-stride:2-idskip:0-se:1-hs:1": 1.5,
}


def latencies(table: LatencyTable) -> dict[str, float]:
    return {entry.workload.key: entry.latency_ms for entry in table.entries}


def written(heading: str, content: dict[str, float], separator: str = ",", scale: float = 1.0) -> str:
    return "\n".join([heading, *(f"{key}{separator}{ms * scale!r}" for key, ms in content.items())])


def imported(tmp_path: Path, text: str, unit: str | None = None, encoding: str = "utf-8") -> LatencyTable:
    (tmp_path / "lut.csv").write_text(text, encoding=encoding)
    result = import_table(tmp_path / "lut.csv", None, Stated(**{**vars(STATED), "unit": unit}))
    assert result.refused == {}
    return result.table


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (written("block_name,latency(ms)", MEANS), None),
        (written("block_name,latency(us)", MEANS, scale=1e3), None),
        (written("Block ; Latency [s]", MEANS, ";", 1e-3).replace(".", ","), None),
        (written("key\tmean_ms", MEANS, "\t"), None),
        (written("name,latency", MEANS), "ms"),
        (written("name,mean", MEANS, scale=1e3), "µs"),
        ("sep=;\n" + written("block_name;latency_ms", MEANS, ";"), None),
        (",block_name,latency_ms\n" + "\n".join(f"{n},{k},{v}" for n, (k, v) in enumerate(MEANS.items())), None),
        ("\n".join(f"{key}: {ms}" for key, ms in MEANS.items()), "ms"),
        (json.dumps(MEANS), "ms"),
    ],
)
def test_keys_of_proxylessnas_give_the_same_table_as_its_yaml(tmp_path: Path, text: str, unit: str | None) -> None:
    (tmp_path / "lut.yaml").write_text(PROXYLESS)
    expected = import_table(tmp_path / "lut.yaml", None, STATED).table
    table = imported(tmp_path, text, unit, "utf-8-sig")
    assert latencies(table) == pytest.approx(latencies(expected))
    assert [(e.macs, e.params) for e in table.entries] == [(e.macs, e.params) for e in expected.entries]
    assert table.protocol.statistic == ("mean" if "mean_ms" in text or "name,mean" in text else NOT_KNOWN)


def test_keys_of_once_for_all_and_hw_nas_bench(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({key: {"mean": ms} for key, ms in OFA.items()}))
    own = import_table(tmp_path / "own.json", None, STATED).table
    assert latencies(imported(tmp_path, written("block_name,latency(ms)", OFA))) == latencies(own)
    (tmp_path / "own.json").write_text(json.dumps(HW_NAS_BENCH))
    own = import_table(tmp_path / "own.json", None, Stated(**{**vars(STATED), "unit": "ms"})).table
    assert latencies(imported(tmp_path, written("block_name,latency(ms)", HW_NAS_BENCH))) == latencies(own)


def test_other_columns_are_counted_and_bad_rows_listed(run: Run, tmp_path: Path) -> None:
    first, second, third, *_ = MEANS
    rows = [f"{first},1.5,0.1,red", f"{second},2", f"{third},fast,0.1,", "Conv-input:1x1,1,1,1"]
    (tmp_path / "lut.csv").write_text("\n".join(["block_name,latency_ms,std,colour", *rows]))
    result = run("table", "import", tmp_path / "lut.csv", *SAID, "--out", tmp_path / "t.json", "--json")
    printed = json.loads(result.stdout)
    assert (printed["entries"], printed["format"], printed["unused"]) == (1, "proxyless", {"std": 3})
    assert printed["unknown"] == {"colour": 2}
    assert printed["refused"] == {
        "line 3": "it has 2 columns, the heading 4",
        third: "'fast' is not a latency",
        "Conv-input:1x1": "not a known layer of ProxylessNAS",
    }


WITHOUT_UNIT = written("block_name,latency", MEANS)
BAD = {
    "no unit": (WITHOUT_UNIT, (), "give --unit"),
    "another format": (WITHOUT_UNIT, ("--format", "csv"), "is of the format proxyless, not csv; leave out"),
    "the unit twice": (written("block_name,latency(ms)", MEANS), ("--unit", "us"), "already gives --unit; leave"),
    "an unknown unit": (WITHOUT_UNIT, ("--unit", "hours"), "unknown unit 'hours'; use one of us, ms, s"),
    "a key twice": (f"{WITHOUT_UNIT}\n{next(iter(MEANS))},2\n", ("--unit", "ms"), "has the key .* twice"),
    "no key": ("a,latency_ms\n1,2\n", ("--format", "proxyless"), "no column of keys"),
    "unknown keys": ("layer,latency_ms\nconv1,2\n", (), "has the columns layer, latency_ms, and no keys .*write"),
    "whole networks": ("arch,latency_ms\n|none~0|,2\n", (), "whole networks, not of layers; use 'hwnas table fit"),
    "no heading": ("\n".join(f"{k},{v}" for k, v in MEANS.items()), (), "has no heading; write block_name,latency_ms"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_clear_line(run: Run, tmp_path: Path, case: str) -> None:
    text, options, words = BAD[case]
    (tmp_path / "lut.csv").write_text(text)
    result = run("table", "import", tmp_path / "lut.csv", *SAID, *options, "--out", tmp_path / "t.json")
    assert_one_clear_line(result, words)
    assert not (tmp_path / "t.json").exists()
