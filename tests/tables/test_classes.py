"""The command line where networks and tables differ in the number of classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import SizedSpace
from hwnas.tables.io import read_table
from hwnas.tables.network_key import choose_network, common_network
from hwnas.tables.schema import Correction, LatencyTable
from support.command import Run, assert_one_clear_line
from support.spaces import ALL_CONV, NB201, SMALL
from support.table_samples import SIZE_OPTIONS, save
from support.tables import make_table

SHIPPED = shipped("latency_tables")
NOTE = "made for 10 classes, not 100: the head is carried over by its size"
PLAIN = Correction(offset_ms=0, scale=1, networks=2)


def made_for(*networks: SizedSpace) -> LatencyTable:
    """Return a table of the first network that names all of them."""
    return make_table(networks[0]).model_copy(update={"correction": {n.key: PLAIN for n in networks}})


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    (tmp_path / "cells.txt").write_text(ALL_CONV)
    return tmp_path / "cells.txt"


@pytest.mark.slow
def test_space_count_takes_classes_and_input(run: Run) -> None:
    options = ("--classes", 100, "--input", "3x16x16", "--architecture", ALL_CONV)
    printed = json.loads(run("space", "count", *options, "--json").stdout)
    sized = SizedSpace(NB201, NB201.setting("cifar", classes=100, height=16, width=16))
    counted = count_network(ChildNetwork(sized, NB201.parse(ALL_CONV)))
    assert (printed["params"], printed["macs"]) == (counted.params, counted.macs_conv_linear)
    assert (printed["classes"], printed["input"]) == (100, [3, 16, 16])
    ten = json.loads(run("space", "count", "--architecture", ALL_CONV, "--json").stdout)
    assert printed["params"] - ten["params"] == 65 * 90
    assert "3x16x16 input, 100 classes" in run("space", "count", *options).stdout
    assert_one_clear_line(run("space", "count", "--architecture", ALL_CONV, "--input", "16"), "input shape")
    assert_one_clear_line(run("space", "count", "--architecture", ALL_CONV, "--classes", 0), "classes must be at least")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amd-epyc-zen5-vm-onnxruntime", "published-pixel3"])
def test_predict_preview_and_check_use_the_table_with_a_note(run: Run, cells: Path, name: str) -> None:
    table, space = SHIPPED / f"{name}.json", ("--space", "nasbench201", "--classes", 100)
    predicted = run("table", "predict", table, "--architectures", cells, *space, "--json")
    assert predicted.exit_code == 0, predicted.output
    assert predicted.stderr.count(NOTE) == 1
    ten = run("table", "predict", table, "--architectures", cells, "--space", "nasbench201", "--json")
    assert NOTE not in ten.output
    (row,), (before,) = (json.loads(result.stdout) for result in (predicted, ten))
    assert row["params"] - before["params"] == 65 * 90
    assert 0 < row["latency_ms"] - before["latency_ms"] < 0.01 * before["latency_ms"]
    assert row["interval_ms"] > before["interval_ms"]
    assert row.keys() == before.keys()

    shown = run("space", "preview", "--table", table, *space, "--budget", "moderate")
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count(f"note: {name}: {NOTE}") == 1
    (note,) = json.loads(run("space", "preview", "--table", table, *space, "--json").stdout)["notes"]
    assert NOTE in note

    checked = run("table", "check", table, *space, "--contents")
    assert checked.exit_code == 0, checked.output
    assert f"complete for nasbench201/16x5/3x32x32/100; {NOTE}" in checked.stdout
    (covered,) = json.loads(run("table", "check", table, *space, "--contents", "--json").stdout)["contents"]["coverage"]
    assert covered["missing"] == []
    assert NOTE in covered["note"]


def test_check_says_which_size_differs(run: Run, table_file: Path) -> None:
    sizes = ("--channels", 8, "--cells", 1, "--input", "3x16x16", "--classes", 7)
    checked = run("table", "check", table_file, *sizes)
    assert checked.exit_code == 1
    assert "/7: the table is for 4 channels, not 8, and for 10 classes, not 7: 16 of 16 are missing:" in checked.stdout


@pytest.mark.slow
def test_ten_networks_of_another_number_of_classes_make_a_table(run: Run, tmp_path: Path, cells: Path) -> None:
    """The shelf's tables are for 10 classes; the phone's networks have 100."""
    pool = tmp_path / "pool"
    for name in ("published-pixel3", "published-gold-6240", "published-1080ti-1"):
        save(pool / f"{name}.json", read_table(SHIPPED / f"{name}.json"))
    form, out = tmp_path / "phone.csv", tmp_path / "phone.json"
    designed = run("table", "design", "--shelf", pool, "--classes", 100, "--out", form)
    assert designed.exit_code == 0, designed.output
    assert "3 of 3 tables of the pool are for other numbers of classes than 100" in designed.stderr
    (following,) = (line for line in designed.stdout.splitlines() if line.startswith("next: "))
    assert "--space nasbench201 --classes 100 " in following
    rows = [row["architecture"] for row in csv.DictReader(form.open())]
    (tmp_path / "rows.txt").write_text("\n".join(rows))
    device = SHIPPED / "published-samsung-a50.json"
    read = json.loads(run("table", "predict", device, "--architectures", tmp_path / "rows.txt", "--json").stdout)
    form.write_text("architecture,latency_ms\n" + "".join(f"{r['architecture']},{r['latency_ms']}\n" for r in read))
    fit = ("table", "fit", "--measurements", form, "--prior", pool, "--classes", 100, "--out", out)
    fitted = run(*fit)
    assert fitted.exit_code == 0, fitted.output
    assert "3 of 3 tables of the pool are for other numbers of classes than 100" in fitted.stderr
    (key, costs), *none = read_table(out).edge_costs.items()
    assert (key, none) == ("nasbench201/16x5/3x32x32/100", [])
    assert costs.pool == [f"published-{n} (for 10 classes)" for n in ("1080ti-1", "gold-6240", "pixel3")]
    assert "prior: 3 other devices: published-1080ti-1 (for 10 classes)" in run("table", "show", out).stdout
    (row,) = json.loads(run("table", "predict", out, "--architectures", cells, "--json").stdout)
    (truth,) = json.loads(run("table", "predict", device, "--architectures", cells, "--json").stdout)
    assert abs(row["latency_ms"] - truth["latency_ms"]) < 2 * row["interval_ms"]
    assert row["params"] == truth["params"] + 65 * 90
    refused = run("table", "design", "--shelf", pool, "--input", "3x64x64", "--classes", 100)
    nearest = "the nearest one is for 3x32x32 input, not 3x64x64, and for 10 classes, not 100"
    assert_one_clear_line(refused, "no table of the pool is for network nasbench201/16x5/3x64x64/100", nearest)


def test_options_leave_the_other_sizes_to_the_table_when_it_has_another_number_of_classes(
    run: Run, tmp_path: Path, cells: Path
) -> None:
    """A table of other sizes than those of searches: only the classes are given."""
    small = SizedSpace(NB201, SMALL["nasbench201"])
    table = made_for(small)
    assert choose_network(table, None, None, classes=7) == small.resized(classes=7)
    assert choose_network(table, "nasbench201", None, channels=4, classes=7) == small.resized(classes=7)
    assert choose_network(table, None, None) == small
    assert choose_network(table, None, None, channels=8, classes=7).setting.height == 32
    file = save(tmp_path / "small.json", table)
    predicted = run("table", "predict", file, "--architectures", cells, "--classes", 7)
    assert predicted.exit_code == 0, predicted.output
    assert "made for 10 classes, not 7" in predicted.stderr
    same = run("table", "predict", file, "--architectures", cells, "--classes", 7, *SIZE_OPTIONS)
    assert same.stdout == predicted.stdout


def test_tables_of_several_numbers_of_classes_ask_which() -> None:
    ten = SizedSpace(NB201, SMALL["nasbench201"])
    seven, wide = ten.resized(classes=7), ten.resized(channels=8)
    both = made_for(ten, seven)
    with pytest.raises(HwnasError, match=r"several networks .*say which with --classes$"):
        choose_network(both, None, None)
    assert choose_network(both, None, None, classes=7) == seven
    with pytest.raises(HwnasError, match=r"several networks .*say which with --channels$"):
        choose_network(made_for(ten, wide), None, None)
    tables = {"phone": made_for(ten), "server": made_for(seven)}
    with pytest.raises(HwnasError, match=r"phone is for 10 classes, not 7 as server is; say which with --classes$"):
        common_network(tables, None, None)
    assert common_network(tables, None, None, classes=7) == seven
    with pytest.raises(HwnasError, match=r"phone is for 4 channels, not 8 as server is; say which with --channels$"):
        common_network({**tables, "server": made_for(wide)}, None, None)
