"""Baselines without a search, against every possible draw and against numbers computed row by row from the files."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwnas.benchmark.baselines import best_of, expected, most, uniform
from hwnas.benchmark.latency import read_latencies
from hwnas.benchmark.schema import TargetsSummary
from hwnas.benchmark.summary import target_table
from hwnas.cost.build import build_metrics
from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import SPACES, Architecture, Setting, SizedSpace
from hwnas.spaces.encoding import decode, every_choice
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line
from support.paths import SHARED
from support.tables import make_table

SPACE = SPACES["nasbench201"]
CELLS = [decode(SPACE, choice) for choice in every_choice(SPACE)]
NAMES = [SPACE.format(cell) for cell in CELLS]
SMALL = SizedSpace(SPACE, Setting(channels=4, depth=1, height=32, width=32))
ACCURACY, LATENCY = SHARED / "nb201_accuracy.csv.gz", SHARED / "nb201_latency_ms.csv.gz"
needs_files = pytest.mark.skipif(not LATENCY.exists() or not ACCURACY.exists(), reason=f"{LATENCY} is not there")
BUDGETS = ("--budget", "mild", "--budget", "moderate", "--budget", "aggressive")


@st.composite
def values_within(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Some values, often equal, and a mask that selects at least one."""
    values = draw(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=9))
    within = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)).filter(any))
    return np.array(values), np.array(within)


@given(values_within(), st.integers(1, 4))
def test_the_best_of_some_draws_has_the_mean_and_spread_of_every_possible_draw(
    case: tuple[np.ndarray, np.ndarray], draws: int
) -> None:
    values, within = case
    cells = np.flatnonzero(within)
    best = [values[list(drawn)].max() for drawn in itertools.combinations(cells, min(draws, len(cells)))]
    weights = best_of(draws, values, within)
    assert weights.sum() == pytest.approx(1)
    assert not weights[~within].any()
    assert weights @ values == pytest.approx(np.mean(best))
    assert weights @ values**2 == pytest.approx(np.mean(np.square(best)))


@given(values_within())
def test_random_and_greatest_cells_are_averages_of_those_that_may_be_chosen(
    case: tuple[np.ndarray, np.ndarray],
) -> None:
    values, within = case
    inside = [value for value, kept in zip(values.tolist(), within, strict=True) if kept]
    other = np.arange(len(values), dtype=float)
    spread = expected(other, uniform(within))
    assert spread.mean == pytest.approx(statistics.fmean(other[within]))
    assert spread.std == (pytest.approx(statistics.stdev(other[within])) if len(inside) > 1 else None)
    greatest = [n for n in range(len(values)) if within[n] and values[n] == max(inside)]
    assert expected(other, most(values, within)).mean == pytest.approx(statistics.fmean(greatest))


def test_the_best_of_ten_of_many_cells_is_exact() -> None:
    """Against exact integers: C(i-1, 9) / C(n, 10)."""
    n = 15_625
    values = np.random.default_rng(0).permutation(n).astype(float)
    weights = best_of(10, values, np.ones(n, dtype=bool))
    mean = sum(rank * math.comb(rank, 9) for rank in range(n)) / math.comb(n, 10)
    assert weights @ values == pytest.approx(mean, rel=1e-12)


def read_rows(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    return list(csv.DictReader(io.StringIO(text)))


def by_hand(
    accuracy: Mapping[str, float], used: Mapping[str, float | None], counts: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """Return the figures of one target from cost over limit of every cell, None for one that was not measured."""
    within = [cell for cell, share in used.items() if share is not None and share <= 1]
    best = max(accuracy[cell] for cell in within)
    ranked = sorted(accuracy[cell] for cell in within)
    drawn = min(10, len(ranked))
    ten = sum(value * math.comb(below, drawn - 1) for below, value in enumerate(ranked)) / math.comb(len(ranked), drawn)
    figures = {
        "cells": len(within),
        "the best cell": best,
        "a random cell": best - statistics.fmean(ranked),
        "the best of ten random cells": best - ten,
    }
    for number, name in enumerate(("the cell of most MACs", "the cell of most parameters")):
        largest = max(counts[cell][number] for cell in within)
        figures[name] = best - statistics.fmean(accuracy[c] for c in within if counts[c][number] == largest)
    return figures


def assert_same(target: Mapping[str, Any], hand: Mapping[str, Any], data_set: str) -> None:
    assert target["cells_within_budget"] == hand["cells"]
    rows = {row["name"]: row for row in target["references"]}
    assert rows["the best cell"]["accuracy"][data_set]["mean"] == pytest.approx(hand["the best cell"])
    for name, row in rows.items():
        if name != "the best cell":
            assert row["regret"][data_set]["mean"] == pytest.approx(hand[name], abs=1e-9), name
            assert row["accuracy"][data_set]["mean"] == pytest.approx(hand["the best cell"] - hand[name], abs=1e-9)


def counts_of(table: Mapping[str, Any], network: str) -> dict[str, tuple[float, float]]:
    """Return MACs and parameters of every cell from the counts of each edge in a published table."""
    cell = table["edge_costs"][network]["cells"]["cell"]
    base = table["edge_costs"][network]
    macs, params = (np.array(cell[name]) for name in ("macs", "params"))
    edges = np.arange(6)
    return {
        name: (base["base_macs"] + macs[edges, choice].sum(), base["base_params"] + params[edges, choice].sum())
        for name, choice in zip(NAMES, every_choice(SPACE), strict=True)
    }


@pytest.mark.slow
@needs_files
def test_baselines_on_published_devices_are_those_of_the_files(run: Run) -> None:
    """With the broken readings of pixel3, and whole ms of samsung_a50."""
    devices = {"pixel3": "published-pixel3", "samsung_a50": "published-samsung-a50", "1080ti_1": "published-1080ti-1"}
    files = {column: shipped("latency_tables") / f"{table}.json" for column, table in devices.items()}
    options = [option for file in files.values() for option in ("--table", file)]
    done = run("benchmark", "baselines", *options, *BUDGETS, "--accuracy", ACCURACY, "--latency", LATENCY, "--json")
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    accuracies, latencies = read_rows(ACCURACY), {row["arch"]: row for row in read_rows(LATENCY)}
    assert [(row["device"], row["budget"]["text"]) for row in summary["targets"]] == [
        (table, budget) for table in devices.values() for budget in BUDGETS[1::2]
    ]
    assert summary["latency"]["columns"] == {table: column for column, table in devices.items()}
    columns = {table: column for column, table in devices.items()}
    for target in summary["targets"]:
        column = columns[target["device"]]
        counts = counts_of(json.loads(files[column].read_text()), "nasbench201/16x5/3x32x32/10")
        readings = {cell: float(row[column]) for cell, row in latencies.items()}
        median, (limit,) = statistics.median(readings.values()), target["budget"]["limits"].values()
        used = {cell: ms / limit if ms > 0.05 * median else None for cell, ms in readings.items()}
        assert target["cells_measured"] == sum(share is not None for share in used.values())
        for data_set in ("cifar10", "imagenet16_120"):
            accuracy = {row["arch"]: float(row[data_set]) for row in accuracies}
            assert_same(target, by_hand(accuracy, used, counts), data_set)
    broken = [row["cells_measured"] for row in summary["targets"] if row["device"] == "published-pixel3"]
    assert set(broken) != {15_625}
    ours = summary["overall"][0]["regret"]["cifar10"]
    each = [row["references"][0]["regret"]["cifar10"]["mean"] for row in summary["targets"]]
    assert ours == pytest.approx(statistics.fmean(each))
    _, rows = target_table(TargetsSummary.model_validate(summary), "cifar10")
    random = summary["targets"][0]["references"][0]
    assert rows[0][5] == f"{random['regret']['cifar10']['mean']:.2f} ({random['share']['cifar10']['mean']:.0%})"
    assert (rows[-1][0], rows[-1][5]) == ("mean", f"{ours:.2f}")


@pytest.mark.slow
@needs_files
def test_one_network_for_several_devices_keeps_every_limit_as_measured(run: Run) -> None:
    tables = [shipped("latency_tables") / f"published-{name}.json" for name in ("gold-6240", "titanx-1")]
    done = run(
        "benchmark", "baselines", "--table", tables[0], "--table", tables[1], "--accuracy", ACCURACY, "--latency",
        LATENCY, "--json", "--budget", "9ms@published-gold-6240,10ms@published-titanx-1",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (target,) = json.loads(done.stdout)["targets"]
    assert target["device"] == "published-gold-6240, published-titanx-1"
    shares = {r["arch"]: max(float(r["gold_6240"]) / 9, float(r["titanx_1"]) / 10) for r in read_rows(LATENCY)}
    accuracy = {row["arch"]: float(row["cifar10"]) for row in read_rows(ACCURACY)}
    counts = counts_of(json.loads(tables[0].read_text()), "nasbench201/16x5/3x32x32/10")
    assert_same(target, by_hand(accuracy, shares, counts), "cifar10")


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["arch", *columns], *([name, *row] for name, row in zip(NAMES, rows, strict=True))])
    return path


def counts_of_networks(sized: SizedSpace) -> dict[str, tuple[float, float]]:
    """Return MACs and parameters of every cell: those of real networks with one operation on one edge add up."""

    def count(op: str) -> np.ndarray:
        counted = count_network(ChildNetwork(sized, Architecture(SPACE.name, ((op, *["none"] * 5),))))
        return np.array([counted.macs_conv_linear, counted.params])

    empty = count("none")
    more = {op: count(op) - empty for op in SPACE.operations}
    return {name: tuple(empty + sum(more[op] for op in cell.cells[0])) for name, cell in zip(NAMES, CELLS, strict=True)}


@pytest.fixture(scope="module")
def toy() -> tuple[LatencyTable, np.ndarray, dict[str, tuple[float, float]]]:
    """A made-up table, the latencies that it predicts for every cell, and the cells' MACs and parameters."""
    table = make_table(SMALL)
    predicted = build_metrics(table, SMALL)["latency_ms"].predict_many(every_choice(SPACE))
    return table, predicted, counts_of_networks(SMALL)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.integers(1, 200),
    missing=st.sampled_from([0.0, 0.3, 0.999]),
    budget=st.sampled_from(["mild", "aggressive", "80%,60%-params", "60%-macs"]),
)
def test_baselines_of_any_file_are_those_of_its_rows(
    run: Run,
    tmp_path: Path,
    toy: tuple[LatencyTable, np.ndarray, dict[str, tuple[float, float]]],
    seed: int,
    levels: int,
    missing: float,
    budget: str,
) -> None:
    """With ties, cells that were not measured, and limits on counts."""
    table, predicted, counts = toy
    generator = np.random.default_rng(seed)
    percent = generator.integers(1, levels + 1, len(NAMES)) / 2
    ms = (predicted * generator.uniform(0.7, 1.3, len(NAMES))).round(2)
    ms[generator.random(len(NAMES)) < missing] = np.nan
    accuracy = write_rows(tmp_path / "accuracy.csv", ["toy"], [[value] for value in percent.tolist()])
    rows = [["" if math.isnan(value) else value] for value in ms.tolist()]
    latency = write_rows(tmp_path / "latency.csv", ["the_board"], rows)
    write_table(tmp_path / "board.json", table)
    done = run(
        "benchmark", "baselines", "--table", tmp_path / "board.json", "--channels", 4, "--cells", 1, "--budget", budget,
        "--accuracy", accuracy, "--latency", latency, "--latency-column", "board=the_board", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (target,) = json.loads(done.stdout)["targets"]
    costs = {"latency_ms": ms, "macs": [counts[n][0] for n in NAMES], "params": [counts[n][1] for n in NAMES]}
    shares = np.max([np.array(costs[name]) / bound for name, bound in target["budget"]["limits"].items()], axis=0)
    used = {name: None if math.isnan(share) else share for name, share in zip(NAMES, shares.tolist(), strict=True)}
    assert_same(target, by_hand(dict(zip(NAMES, percent.tolist(), strict=True)), used, counts), "toy")


def test_without_budgets_the_baselines_are_of_all_cells(run: Run, tmp_path: Path) -> None:
    """The cell of most MACs is then the one of 3x3 convolutions alone."""
    values = np.arange(len(NAMES)) % 89
    accuracy = write_rows(tmp_path / "accuracy.csv", ["toy"], [[value] for value in values.tolist()])
    done = run("benchmark", "baselines", "--accuracy", accuracy, "--out", tmp_path / "all.json")
    assert done.exit_code == 0, done.output
    (target,) = json.loads((tmp_path / "all.json").read_text())["targets"]
    rows = {row["name"]: row["accuracy"]["toy"] for row in target["references"]}
    assert rows["a random cell"]["mean"] == pytest.approx(np.mean(values))
    largest = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    for name in ("the cell of most MACs", "the cell of most parameters"):
        assert rows[name] == {"mean": values[NAMES.index(largest)], "std": None}
    assert "15,625" in done.stdout


@pytest.mark.slow
def test_files_that_do_not_fit_give_one_clear_error(run: Run, tmp_path: Path) -> None:
    accuracy = write_rows(tmp_path / "accuracy.csv", ["toy"], [[50]] * len(NAMES))
    write_table(tmp_path / "board.json", make_table(SMALL))
    budget = ("--table", tmp_path / "board.json", "--channels", 4, "--cells", 1, "--budget", "aggressive")

    def refused(
        rows: Sequence[Sequence[object]], *words: str, column: str = "board", options: Sequence[object] = budget
    ) -> None:
        latency = write_rows(tmp_path / "latency.csv", [column], rows)
        asked = ("benchmark", "baselines", "--accuracy", accuracy, "--latency", latency, *options)
        assert_one_clear_line(run(*asked), *words)

    good = [[1.0]] * len(NAMES)
    unnamed = ("no column of .*latency.csv has the name of table board", "phone", "--latency-column board=COLUMN")
    refused(good, *unnamed, column="phone")
    refused(good, "has no column tablet", options=(*budget, "--latency-column", "board=tablet"))
    refused(good, "of an unknown table, tablet", options=(*budget, "--latency-column", "tablet=board"))
    refused(good, "cannot read --latency-column 'board'", options=(*budget, "--latency-column", "board"))
    refused(good, "--latency decides which cells keep a budget", options=())
    refused([[1e9]] * len(NAMES), "no measured cell keeps budget aggressive on board")
    refused([[""]] * len(NAMES), "no latency in column board")
    for text in ("-1", "nan", "inf", "1e999", "fast"):
        latency = write_rows(tmp_path / "latency.csv", ["board"], [[text], *good[1:]])
        with pytest.raises(HwnasError, match=f"line 2: '{text}' is not a latency in ms"):
            read_latencies(latency)
    done = run("benchmark", "baselines", "--accuracy", accuracy, *budget, "--latency-column", "board=board")
    assert_one_clear_line(done, "--latency-column names a column of --latency, which is not given")
    assert_one_clear_line(run("benchmark", "baselines", "--accuracy", accuracy, *budget[:2]), "belong together")


def test_a_table_has_the_longest_column_that_its_name_ends_with(tmp_path: Path) -> None:
    rows = [[1.0, 2.0, 3.0]] * len(NAMES)
    latencies = read_latencies(write_rows(tmp_path / "latency.csv", ["1", "titanx_1", "xp_titanx_1"], rows))
    named = latencies.columns_of(["published-titanx-1", "Titanx_1", "a-1"], {})
    assert named == {"published-titanx-1": "titanx_1", "Titanx_1": "titanx_1", "a-1": "1"}
    assert latencies.columns_of(["a-1"], {"a-1": "xp_titanx_1"}) == {"a-1": "xp_titanx_1"}
