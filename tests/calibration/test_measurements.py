"""Measurements in CSV files as spreadsheets and programs write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.calibration.measurements import read_measurements
from hwnas.errors import HwnasError
from hwnas.spaces.encoding import encode
from support.command import Run, assert_one_clear_line
from support.spaces import ALL_CONV, DARTS, NB201

CELLS = [ALL_CONV, ALL_CONV.replace("nor_conv_3x3~2", "none~2"), ALL_CONV.replace("nor_conv_3x3~2", "skip_connect~2")]
LATENCIES = [4.5, 0.25, 1234.5]


def table(separator: str, heading: str, scale: float = 1.0, comma: bool = False) -> str:
    numbers = [str(latency * scale) for latency in LATENCIES]
    shown = [number.replace(".", ",") if comma else number for number in numbers]
    return "\r\n".join([heading, *(f"{a}{separator}{ms}" for a, ms in zip(CELLS, shown, strict=True))]) + "\r\n"


FILES = {
    "plain": table(",", "architecture,latency_ms").encode(),
    "byte-order mark": table(",", "architecture,latency_ms").encode("utf-8-sig"),
    "spaces": table(", ", " Architecture , Latency_ms ").encode(),
    "in brackets": table(",", "arch,Latency (ms)").encode(),
    "microseconds": table(",", "arch,latency(µs)", 1e3).encode(),
    "seconds": table(",", "arch,latency_s", 1e-3).encode(),
    "semicolons": table(";", "architecture;latency_ms", comma=True).encode("utf-8-sig"),
    "Excel": ("sep=;\r\n" + table(";", "architecture;latency_ms", comma=True)).encode("utf-8-sig"),
    "tabs": table("\t", "architecture\tlatency [ms]", comma=True).encode("utf-16"),
    "other columns": table(",", "architecture,latency_ms")
    .replace("\r\n", ",7\r\n")
    .replace("ms,7", "ms,rank")
    .encode(),
}


@pytest.mark.parametrize("case", FILES)
def test_measurements_are_read(tmp_path: Path, case: str) -> None:
    (tmp_path / "phone.csv").write_bytes(FILES[case])
    choices, latency_ms = read_measurements(tmp_path / "phone.csv", NB201)
    assert np.array_equal(choices, encode(NB201, [NB201.parse(cell) for cell in CELLS]))
    assert latency_ms == pytest.approx(LATENCIES)


def test_genotypes_over_several_lines_are_read(tmp_path: Path) -> None:
    genotype = DARTS.published["DARTS_V1"]
    rows = [f'"{genotype}",1', '"' + genotype.replace(", (", ",\n(") + '",2', "DARTS_V2,oops"]
    (tmp_path / "phone.csv").write_text("\n".join(["architecture,latency_ms", *rows]))
    with pytest.raises(HwnasError, match=r"phone\.csv, line 18: 'oops' is not a latency"):
        read_measurements(tmp_path / "phone.csv", DARTS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"architecture,latency\n{ALL_CONV},1\n", "does not give the unit of its column 'latency'; name it latency_us"),
        (f"architecture,mean_ms,median_ms\n{ALL_CONV},1,1\n", "several columns of latencies: mean_ms, median_ms; name"),
        ("architecture latency_ms\n", "it has one column, 'architecture latency_ms': separate columns with commas"),
        ("block_name,latency_ms\nConv,1\n", "lacks the columns architecture .*'hwnas table import'"),
        (f"architecture,latency_ms\n{ALL_CONV},4,5\n", "line 2: it has 3 columns, the heading 2; if 4,5 has a decimal"),
        (f'architecture,latency_ms\n{ALL_CONV},"1,234"\n', "line 2: '1,234' has a comma; write a point"),
        (f"architecture,latency_ms\n{ALL_CONV},n/a\n", "line 2: 'n/a' is not a latency; leave out networks"),
    ],
)
def test_errors_name_file_and_line(run: Run, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "phone.csv").write_text(text)
    result = run("table", "fit", "--measurements", tmp_path / "phone.csv", "--out", tmp_path / "t.json")
    assert_one_clear_line(result, "phone.csv", words)
