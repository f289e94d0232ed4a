"""CSV files as spreadsheets and programs write them."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.csv_files import parse_csv, plain_heading, read_csv
from hwnas.errors import HwnasError

CELL = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="\u2028\u2029"), max_size=8)


def rows_of(text: str) -> list[tuple[str, ...]]:
    file = parse_csv(text, "t.csv", "")
    return [tuple(file.record(row).values()) for row in file.rows]


@given(st.lists(st.tuples(CELL, CELL), max_size=5), st.sampled_from([",", ";", "\t"]))
def test_what_the_csv_module_writes_is_read(rows: list[tuple[str, str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([("a", "b"), *((f"x{a}", f"y{b}y") for a, b in rows)])
    assert rows_of(text.getvalue()) == [(f"x{a}".strip(), f"y{b}y") for a, b in rows]


@pytest.mark.parametrize(
    "text",
    [
        "architecture,latency_ms\nx,4.5\ny,6\n",
        "Architecture , Latency (ms)\r\nx, 4.5\r\ny , 6\r\n",
        "architecture;latency [ms]\nx;4,5\ny;6\n",
        "architecture\tlatency_ms\nx\t4,5\ny\t6\n",
        "sep=;\narchitecture;latency_ms\nx;4,5\ny;6\n",
        'architecture,latency_ms\nx,"4,5"\ny,6\n',
        "architecture;latency_ms;;\nx;4,5;;\n;;;\ny;6;;\n",
        '\n"architecture","latency ms"\n\n"x","4.5"\n"y","6"\n\n',
        "architecture,latency_ms\rx,4.5\ry,6\r",
    ],
)
def test_headings_separators_and_decimal_commas_of_spreadsheets(text: str) -> None:
    file = parse_csv(text, "t.csv", "")
    assert file.columns == ("architecture", "latency_ms")
    assert rows_of(text) == [("x", "4.5"), ("y", "6")]


def test_a_comma_that_may_separate_thousands_is_left_as_it_is() -> None:
    assert rows_of('a,b\nx,"1,234"\n') == [("x", "1,234")]
    assert rows_of('a,b\nx,"1,234"\ny,"0,5"\n') == [("x", "1.234"), ("y", "0.5")]
    assert rows_of("a;b\nx;1,234\n") == [("x", "1.234")]
    assert rows_of("a;b\nx;1,234\ny;2.5\n") == [("x", "1,234"), ("y", "2.5")]


def test_rows_know_the_line_on_which_they_begin() -> None:
    file = parse_csv('sep=,\na,b\n"one\ntwo",1\n\nx,2\n', "t.csv", "")
    assert [row.line for row in file.rows] == [3, 6]


def test_rows_of_another_length_name_the_decimal_comma() -> None:
    file = parse_csv("a,b\nx,4,5\n", "t.csv", "")
    with pytest.raises(ValueError, match=r"3 columns, the heading 2; if 4,5 has a decimal comma, write 4\.5"):
        file.record(file.rows[0])


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,A\n1,2\n", "has the column a twice"), ('a,b\n"x', "not valid CSV"), ("a\n" + "x" * 200_000, "not valid CSV")],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        parse_csv(text, "t.csv", "")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_and_gzip(tmp_path: Path, encoding: str) -> None:
    text = "architecture\tlatency(µs)\nx\t4,5\n"
    (tmp_path / "t.txt").write_text(text, encoding=encoding)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(text.encode(encoding)))
    for name in ("t.txt", "t.csv.gz"):
        file = read_csv(tmp_path / name, "")
        assert (file.columns, file.rows[0].cells) == (("architecture", "latency_us"), ("x", "4.5"))


def test_headings_are_compared_in_plain_letters() -> None:
    assert {plain_heading(text) for text in (" Latency(µs) ", "latency [μs]", "LATENCY_US", "latency  us")} == {
        "latency_us"
    }
