"""Accuracies in files of NATS-Bench, written with nats_bench's own classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.benchmark import cell_table
from hwnas.benchmark.accuracy import NATS, NATS_DATA_SETS, AccuracyTable, read_accuracy
from hwnas.errors import HwnasError
from hwnas.spaces import SPACES
from hwnas.spaces.encoding import decode, encode, every_choice
from support.benchmarks import needs_accuracies

SPACE = SPACES["nasbench201"]


def write_nats(path: Path, values: dict[str, np.ndarray], cells: list[str], epochs: int = 200) -> None:
    """Write a file with nats_bench's own classes. Every eighth cell has two seeds, half a point above and below
    ``values``, the others have one.
    """
    api = pytest.importorskip("nats_bench")
    sets = {"cifar10": "ori-test", "cifar100": "x-test", "ImageNet16-120": "x-test"}
    infos = {}
    for index, cell in enumerate(cells):
        results = api.ArchResults(index, cell)
        for name, data_set in NATS_DATA_SETS.items():
            for seed, offset in ((777, 0.5), (888, -0.5)) if index % 8 == 0 else ((777, 0.0),):
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


def test_cells_are_found_by_their_text() -> None:
    """All 15,625 texts, which the test below replaces by a few."""
    choices, indices = every_choice(SPACE), cell_table._indices()
    cells = [SPACE.parse(text) for text in indices]
    assert list(indices.values()) == list(range(15_625))
    assert np.array_equal(encode(SPACE, cells), choices)
    assert [cell_table.index_of_cell(cell) for cell in cells] == list(indices.values())


@needs_accuracies
def test_nats_bench_gives_the_same_accuracies(
    published: AccuracyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published numbers of every 25th cell, put into a benchmark of nats_bench and read back through it."""
    some = np.arange(0, 15_625, 25)
    cells = [SPACE.format(decode(SPACE, choice)) for choice in every_choice(SPACE)[some]]
    monkeypatch.setattr(cell_table, "_indices", lambda: {cell: place for place, cell in enumerate(cells)})
    order = np.random.default_rng(0).permutation(len(cells))
    values = {name: numbers[some][order] for name, numbers in published.values.items()}
    file = tmp_path / "NATS.pickle.pbz2"
    write_nats(file, values, [cells[place] for place in order])
    read = read_accuracy(f"{NATS}{file}")
    assert read.data_sets == published.data_sets
    for name in read.data_sets:
        np.testing.assert_allclose(read.values[name], published.values[name][some], rtol=0, atol=1e-12)


@needs_accuracies
def test_incomplete_files_of_nats_bench_are_refused(published: AccuracyTable, tmp_path: Path) -> None:
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
