"""Ground truth: the accuracy table's reader against published facts, damaged files, searches that never see it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hwnas.cost.model import decode, every_choice
from hwnas.errors import HwnasError
from hwnas.ground.accuracy import NATS, NATS_DATA_SETS, AccuracyTable, read_accuracy
from hwnas.spaces import SPACES

SPACE = SPACES["nasbench201"]
PUBLISHED = SHARED / "nb201_accuracy.csv.gz"
needs_accuracies = pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not there")


@pytest.fixture(scope="module")
def published() -> AccuracyTable:
    return read_accuracy(str(PUBLISHED))


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
        ("cifar100,", "cifar10,", "begin with the columns arch"),
        ("cifar100,", "../cifar100,", "no data set's name"),
        (",85.863,", ",nan,", "'nan' is not a percentage"),
        (",85.863,", ",inf,", "'inf' is not a percentage"),
        (",85.863,", ",-1,", "'-1' is not a percentage"),
        (",85.863,", ",100.001,", "'100.001' is not a percentage"),
        (",85.863,", ",8_5,", "'8_5' is not a percentage"),
        (",85.863,", ",,", "'' is not a percentage"),
        (",85.863,", ",", "3 columns, not 4"),
        ("avg_pool_3x3~0|", "max_pool_3x3~0|", "not a NAS-Bench-201 cell"),
        (",85.863,", ',85"863,', "percentage|not a CSV file"),
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
    refused("nul.csv", lines[0].encode() + b"\n\0,1,2,3", "not a NAS-Bench-201 cell|not a CSV file")
    refused("quote.csv", lines[0].encode() + b'\n"', "not a CSV file")
    with pytest.raises(HwnasError, match="No such file"):
        read_accuracy(str(tmp_path / "nothing.csv"))
    monkeypatch.setattr("hwnas.ground.accuracy.MOST_BYTES", 1 << 20)
    refused("bomb.csv.gz", gzip.compress(bytes(2 << 20)), "more than 1 MiB")


@needs_accuracies
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
def test_a_damaged_gzip_file_is_refused_or_says_the_same(
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


def write_nats(path: Path, values: dict[str, np.ndarray], cells: list[str], epochs: int = 200) -> None:
    """A file of nats_bench's own classes, with two seeds half a point above and below ``values``."""
    api = pytest.importorskip("nats_bench")
    sets = {"cifar10": "ori-test", "cifar100": "x-test", "ImageNet16-120": "x-test"}
    infos = {}
    for index, cell in enumerate(cells):
        results = api.ArchResults(index, cell)
        for name, data_set in NATS_DATA_SETS.items():
            for seed, offset in ((777, 0.5), (888, -0.5)):
                last = epochs - 1
                trial = api.ResultsCount(
                    data_set, None, {last: 100.0}, {last: 0.0}, 1.0, 1.0, {"arch_str": cell}, seed, epochs, None
                )
                trial.update_OLD_eval("x-valid", {last: 1.0}, {last: 0.0})
                # of cifar100 and ImageNet16-120, "ori-test" is validation and test together: another number
                trial.update_OLD_eval("ori-test", {last: 2.0}, {last: 0.0}) if data_set != "cifar10" else None
                trial.update_OLD_eval(sets[data_set], {last: values[name][index] + offset}, {last: 0.0})
                results.update(data_set, seed, trial)
        infos[index] = {str(epochs): results.state_dict()}
    content = {"meta_archs": cells, "arch2infos": infos, "evaluated_indexes": list(infos)}
    api.pickle_save(content, path.with_suffix(""), path.suffix)


@needs_accuracies
def test_nats_bench_says_the_same(published: AccuracyTable, tmp_path: Path) -> None:
    """The published numbers, put into a benchmark of nats_bench and read back through it."""
    cells = [SPACE.format(decode(SPACE, choice)) for choice in every_choice(SPACE)]
    order = np.random.default_rng(0).permutation(len(cells))
    values = {name: numbers[order] for name, numbers in published.values.items()}
    file = tmp_path / "NATS.pickle.pbz2"
    write_nats(file, values, [cells[place] for place in order])
    read = read_accuracy(f"{NATS}{file}")
    assert read.data_sets == published.data_sets
    for name in read.data_sets:
        np.testing.assert_allclose(read.values[name], published.values[name], rtol=0, atol=1e-12)


@needs_accuracies
def test_what_is_no_whole_benchmark_of_nats_bench_is_refused(published: AccuracyTable, tmp_path: Path) -> None:
    cells = [SPACE.format(decode(SPACE, choice)) for choice in every_choice(SPACE)[:3]]
    write_nats(tmp_path / "three.pickle.pbz2", dict(published.values), cells)
    write_nats(tmp_path / "short.pickle.pbz2", dict(published.values), cells, epochs=12)
    (tmp_path / "torn.pickle.pbz2").write_bytes((tmp_path / "three.pickle.pbz2").read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    for name, says in {
        "three.pickle.pbz2": "lacks 15,622 of 15,625 cells",
        "short.pickle.pbz2": "nats_bench cannot read",
        "torn.pickle.pbz2": "nats_bench cannot read",
        "folder": "nats_bench cannot read",
        "nothing": "does not exist",
    }.items():
        with pytest.raises(HwnasError, match=says):
            read_accuracy(f"{NATS}{tmp_path / name}")


def test_a_pickle_without_its_prefix_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    file = tmp_path / "accuracy.csv"
    file.write_bytes(pickle.dumps({"meta_archs": []}))

    def forbidden(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", forbidden)
    monkeypatch.setattr(pickle, "loads", forbidden)
    with pytest.raises(HwnasError, match="not a text file"):
        read_accuracy(str(file))
