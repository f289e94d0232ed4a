"""The reader of accuracy tables, against published facts and damaged files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hwnas.benchmark.accuracy import AccuracyTable, read_accuracy
from hwnas.errors import HwnasError
from hwnas.spaces import SPACES
from hwnas.spaces.encoding import decode, every_choice
from support.benchmarks import PUBLISHED, needs_accuracies

SPACE = SPACES["nasbench201"]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return gzip.decompress(PUBLISHED.read_bytes()).decode().splitlines()


@needs_accuracies
def test_the_published_table_is_read_as_published(published: AccuracyTable) -> None:
    """The optimum of all cells, as Dong & Yang (ICLR 2020) print it."""
    assert published.data_sets == ["cifar10", "cifar100", "imagenet16_120"]
    assert [len(values) for values in published.values.values()] == [15625] * 3
    assert [round(published.best(name), 2) for name in published.data_sets] == [94.37, 73.51, 47.31]


@needs_accuracies
def test_every_row_is_looked_up_by_its_own_name(published: AccuracyTable, lines: list[str]) -> None:
    header, *rows = (line.split(",") for line in lines)
    for text, *numbers in rows:
        cell = SPACE.parse(text)
        assert [published.accuracy(name, cell) for name in header[1:]] == [float(number) for number in numbers]


@needs_accuracies
def test_regret_is_against_the_best_within(published: AccuracyTable) -> None:
    choices = every_choice(SPACE)
    values = published.values["cifar100"]
    place = int(values.argmax())
    best = decode(SPACE, choices[place])
    assert published.regret("cifar100", best) == 0
    without = np.arange(len(values)) != place
    second = decode(SPACE, choices[int(np.argsort(values)[-2])])
    assert published.regret("cifar100", second) > 0
    assert published.regret("cifar100", second, without) == 0


@needs_accuracies
def test_plain_text_and_gzip_are_one_table(published: AccuracyTable, lines: list[str], tmp_path: Path) -> None:
    """Whatever the order of the rows and the ends of the lines; another number is another table."""
    plain = tmp_path / "accuracy.csv"
    plain.write_text("\r\n".join([lines[0], *reversed(lines[1:])]), newline="")
    assert read_accuracy(str(plain)).sha256 == published.sha256
    plain.write_text("\n".join([*lines[:-1], lines[-1].rsplit(",", 1)[0] + ",50"]))
    assert read_accuracy(str(plain)).sha256 != published.sha256


@needs_accuracies
@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("arch,", "cell,", "begin with the columns arch"),
        ("cifar100,", "cifar10,", "has the column cifar10 twice"),
        ("cifar100,", "../cifar100,", "not a valid data set name"),
        (",85.863,", ",nan,", "'nan' is not a percentage"),
        (",85.863,", ",inf,", "'inf' is not a percentage"),
        (",85.863,", ",-1,", "'-1' is not a percentage"),
        (",85.863,", ",100.001,", "'100.001' is not a percentage"),
        (",85.863,", ",8_5,", "'8_5' is not a percentage"),
        (",85.863,", ",,", "'' is not a percentage"),
        (",85.863,", ",", "3 columns, not 4"),
        ("avg_pool_3x3~0|", "max_pool_3x3~0|", "not a NAS-Bench-201 cell"),
        (",85.863,", ',85"863,', "percentage|not valid CSV"),
    ],
)
def test_a_wrong_table_is_refused(lines: list[str], tmp_path: Path, old: str, new: str, says: str) -> None:
    file = tmp_path / "accuracy.csv"
    text = "\n".join(lines)
    assert old in text
    file.write_text(text.replace(old, new, 1))
    with pytest.raises(HwnasError, match=says):
        read_accuracy(str(file))


@needs_accuracies
def test_other_files_are_refused(lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(name: str, content: bytes, says: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HwnasError, match=says):
            read_accuracy(str(tmp_path / name))

    refused("empty.csv", b"", "begin with the columns arch")
    refused("header.csv", lines[0].encode(), "lacks 15,625 of 15,625 cells, such as .none~0")
    refused("plain.csv.gz", "\n".join(lines).encode(), "not a gzip file")
    refused("packed.csv", PUBLISHED.read_bytes(), "not a text file")
    refused("nul.csv", lines[0].encode() + b"\n\0,1,2,3", "not a NAS-Bench-201 cell")
    refused("quote.csv", lines[0].encode() + b'\n"', "not valid CSV")
    with pytest.raises(HwnasError, match="does not exist"):
        read_accuracy(str(tmp_path / "nothing.csv"))
    monkeypatch.setattr("hwnas.csv_files.MAX_BYTES", 1 << 20)
    refused("bomb.csv.gz", gzip.compress(bytes(2 << 20)), "more than 1 MiB")


@pytest.mark.slow
@needs_accuracies
@settings(max_examples=16, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_table_that_lost_or_gained_rows_is_refused(lines: list[str], tmp_path: Path, data: st.DataObject) -> None:
    row = data.draw(st.integers(1, len(lines) - 1))
    other = data.draw(st.integers(1, len(lines) - 1).filter(lambda n: n != row))
    damaged = list(lines)
    kind = data.draw(st.sampled_from(["lost", "twice", "instead", "cut"]))
    if kind == "lost":
        del damaged[row]
    elif kind == "twice":
        damaged.insert(other, lines[row])
    elif kind == "instead":
        damaged[other] = lines[row]
    else:
        damaged[row:] = [lines[row][: data.draw(st.integers(0, len(lines[row]) - 1))]]
        if row == len(lines) - 1:  # the last row's last digits can be lost unseen
            damaged[row] = damaged[row].rsplit(",", 1)[0]
    file = tmp_path / "accuracy.csv"
    file.write_text("\n".join(damaged))
    with pytest.raises(HwnasError) as error:
        read_accuracy(str(file))
    assert str(file) in str(error.value)


@needs_accuracies
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.integers(min_value=0), value=st.integers(1, 255), truncate=st.booleans())
@example(where=0, value=1, truncate=True)
def test_a_damaged_gzip_file_is_refused_or_read_the_same(
    published: AccuracyTable, tmp_path: Path, where: int, value: int, truncate: bool
) -> None:
    """A flipped byte of the header, such as the time, may change nothing; no byte may change a number."""
    content = bytearray(PUBLISHED.read_bytes())
    where %= len(content)
    if truncate:
        del content[where:]
    else:
        content[where] ^= value
    file = tmp_path / "accuracy.csv.gz"
    file.write_bytes(content)
    try:
        read = read_accuracy(str(file))
    except HwnasError:
        return
    assert not truncate
    assert read.sha256 == published.sha256
