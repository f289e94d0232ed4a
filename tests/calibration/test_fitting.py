"""Tables from whole networks' latencies: costs that are known come back, error bars hold, other devices help."""

from __future__ import annotations

import csv
import gzip
import json
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from hwnas.budgets.derive import cheapest, derive
from hwnas.calibration.design_matrix import (
    connected,
    connected_choices,
    design_matrix,
    flat,
    grids,
    not_negative,
    num_features,
)
from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.fit import MeasurementOrigin, fit_table
from hwnas.calibration.intervals import half_intervals
from hwnas.calibration.prior import generic_prior, pool_prior
from hwnas.calibration.regression import Prior, fit_posterior
from hwnas.cost.model import build_cost_models
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode, every_choice
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import LatencyTable
from support.command import Run, assert_one_clear_line
from support.fitting import CIFAR, fitted, made_up_device, predictions, timed
from support.paths import SHARED

NB201, DARTS = get_space("nasbench201"), get_space("darts")
SMALL_DARTS = Setting(channels=4, depth=3, height=16, width=16)
LATENCIES = SHARED / "nb201_latency_ms.csv.gz"


@cache
def pool() -> dict[str, LatencyTable]:
    """Eight made-up devices, fitted from 400 networks each."""
    choices = connected_choices(NB201, 400, seed=3)
    return {f"d{n}": fitted(choices, timed(made_up_device(n), choices, 0.02, n), name=f"d{n}") for n in range(8)}


# --- the design matrix and the cost model say the same ----------------------------------------------------------------


@given(st.integers(0, 10_000))
def test_costs_by_edge_predict_what_the_design_matrix_says(seed: int) -> None:
    generator = np.random.default_rng(seed)
    for space in (NB201, DARTS):
        choices = generator.integers(len(space.operations), size=(5, space.num_edges))
        values = generator.normal(size=num_features(space))
        base, cells = grids(space, values)
        assert np.array_equal(flat(space, base, cells), values)
        design = design_matrix(space, choices)
        for row, choice in zip(design, choices, strict=True):
            expected, start = base, 0
            for kind, cell in space.cells.items():
                ops = [space.operations[o] for o in choice[start : start + len(cell.edges)]]
                for e, (op, lives) in enumerate(zip(ops, cell.live_edges(tuple(ops)), strict=True)):
                    o = space.operations.index(op)
                    expected += (cells[kind][0][e, o] + cells[kind][1][e, o] * lives) * (op != "none")
                start += len(cell.edges)
            assert row @ values == pytest.approx(expected)


@pytest.mark.slow
def test_a_fitted_table_counts_macs_and_parameters_as_the_network_has_them(tmp_path: Path) -> None:
    choices = connected_choices(NB201, 40)
    write_table(tmp_path / "t.json", fitted(choices, timed(made_up_device(1), choices, 0.02)))
    table = read_table(tmp_path / "t.json")
    models = build_cost_models(table, SizedSpace(NB201, CIFAR))
    for choice in choices[:5]:
        child = ChildNetwork(SizedSpace(NB201, CIFAR), decode(NB201, choice))
        counts = count_network(child)
        assert models["macs"].predict_many(choice[None])[0] == counts.macs_conv_linear
        assert models["params"].predict_many(choice[None])[0] == counts.params
    # NAS-Bench-201 lists this cell with 220.11969 M "FLOPs" and 1.531546 M parameters.
    whole = encode(
        NB201,
        [
            NB201.parse(
                "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"
            )
        ],
    )
    assert models["macs"].predict_many(whole)[0] == 220_119_690
    assert models["params"].predict_many(whole)[0] == 1_531_546


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dead_edges_are_free", [False, True])
def test_known_costs_come_back_in_spite_of_broken_readings(dead_edges_are_free: bool) -> None:
    costs, choices = made_up_device(5, dead_edges_are_free), connected_choices(NB201, 600, seed=1)
    latency_ms = timed(costs, choices, 0.02)
    latency_ms[::20] = 0.003  # one in twenty is broken
    table, everyone = fitted(choices, latency_ms, report=True), every_choice(NB201)
    (report,) = table.quality.additivity.values()
    assert report.networks == 570  # a reading is broken by what it says, not by how badly it is predicted
    exact = design_matrix(NB201, everyone) @ costs
    predicted = predictions(table, everyone)
    assert np.mean(np.abs(predicted / exact - 1)) < 0.01
    assert spearmanr(predicted, exact).statistic > 0.998
    found = table.edge_costs["nasbench201/16x5/3x32x32/10"].cells["cell"]
    always, live = np.sum(found.always_ms), np.sum(found.live_ms)
    assert (live > 3 * abs(always)) if dead_edges_are_free else (always > 3 * live)


@pytest.mark.slow
def test_error_bars_hold_nine_in_ten_and_each_entry_has_one() -> None:
    choices, everyone = connected_choices(NB201, 200, seed=2), connected_choices(NB201, 5_000, seed=7)
    held = []
    for seed in range(6):
        costs = made_up_device(seed)
        table = fitted(choices, timed(costs, choices, 0.03, seed))
        half = half_intervals(table, SizedSpace(NB201, CIFAR), everyone)
        assert half is not None
        held.append(np.mean(np.abs(predictions(table, everyone) - timed(costs, everyone, 0.03, 99)) <= half))
        found = table.edge_costs["nasbench201/16x5/3x32x32/10"].cells["cell"]
        together = np.add(found.always_ms, found.live_ms)
        _, exact = grids(NB201, costs)
        off = np.abs(together - np.add(*exact["cell"]))
        assert np.mean(off <= np.maximum(found.error_ms, 1e-9)) > 0.8
    assert 0.85 <= np.mean(held) <= 0.97, held


def test_whole_milliseconds_are_taken_for_rounded() -> None:
    costs, choices = made_up_device(3), connected_choices(NB201, 300)
    exact = design_matrix(NB201, choices) @ costs
    costs *= 8 / np.median(exact)
    rounded = np.round(design_matrix(NB201, choices) @ costs)
    table = fitted(choices, rounded)
    assert table.edge_costs["nasbench201/16x5/3x32x32/10"].scatter_ms == pytest.approx(0.288675)
    assert np.mean(np.abs(predictions(table, choices) / (design_matrix(NB201, choices) @ costs) - 1)) < 0.015


def test_the_report_is_of_networks_left_out() -> None:
    """Noise alone cannot be predicted: a report on networks that the fit has seen would say otherwise."""
    choices = connected_choices(NB201, 60)
    noise = np.random.default_rng(0).lognormal(0, 0.5, size=60)
    noise[7] *= 100  # no prediction comes near
    (report,) = fitted(choices, noise, report=True).quality.additivity.values()
    assert report.networks == 60
    assert abs(report.worst) > 90
    assert report.kendall_tau is not None
    assert abs(report.kendall_tau) < 0.25


def test_costs_that_no_reading_tells_of_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer readings than costs, and more, are two ways to compute the same; and so is a part of it at once."""
    generator = np.random.default_rng(0)
    design, costs = generator.integers(0, 3, (12, 5)).astype(float), generator.uniform(0.5, 1.5, 5)
    latency_ms = design @ costs * generator.lognormal(0, 0.05, 12)
    latency_ms[3] *= 10
    mean, spread = np.full(5, 0.2), np.diag(generator.uniform(0.01, 0.04, 5))
    posterior = fit_posterior(design, latency_ms, Prior(mean, spread), np.zeros(5, dtype=bool))
    more = Prior(np.append(mean, np.zeros(15)), np.diag(np.append(np.diag(spread), np.full(15, 0.09))))
    wider = np.hstack([design, np.zeros((12, 15))])
    for at_once in (2**23, 1):
        monkeypatch.setattr("hwnas.calibration.regression.AT_ONCE", at_once)
        found = fit_posterior(wider, latency_ms, more, np.zeros(20, dtype=bool))
        np.testing.assert_allclose(found.mean[:5], posterior.mean, rtol=1e-9)
        np.testing.assert_allclose(found.covariance[:5, :5], posterior.covariance, rtol=1e-7, atol=1e-12)
        assert found.scatter_share == pytest.approx(posterior.scatter_share)
        np.testing.assert_allclose(found.covariance[:5, 5:], 0, atol=1e-12)
        assert np.diag(found.covariance)[5:] == pytest.approx(np.diag(found.covariance)[5])


# --- other devices ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ten_measurements_and_other_devices_are_enough() -> None:
    prior = pool_prior(pool(), SizedSpace(NB201, CIFAR))
    assert prior.pool == tuple(sorted(pool()))
    chosen, everyone = choose_architectures(NB201, prior, 10), every_choice(NB201)
    with_pool, without = [], []
    for seed in range(100, 106):
        costs = made_up_device(seed)
        exact = design_matrix(NB201, everyone) @ costs
        latency_ms = timed(costs, chosen, 0.02, seed)
        with_pool.append(spearmanr(predictions(fitted(chosen, latency_ms, prior), everyone), exact).statistic)
        without.append(spearmanr(predictions(fitted(chosen, latency_ms), everyone), exact).statistic)
    assert np.mean(with_pool) > 0.98
    assert np.mean(with_pool) > np.mean(without)


@pytest.mark.slow
def test_more_measurements_do_not_make_it_worse_on_average() -> None:
    prior = pool_prior(pool(), SizedSpace(NB201, CIFAR))
    order, everyone = choose_architectures(NB201, prior, 200), connected_choices(NB201, 4_000, seed=5)
    means = []
    for number in (3, 10, 40, 200):
        errors = []
        for seed in range(200, 206):
            costs = made_up_device(seed)
            posterior = fit_posterior(
                design_matrix(NB201, order[:number]),
                timed(costs, order[:number], 0.02, seed),
                prior,
                not_negative(NB201),
            )
            errors.append(
                np.mean(
                    np.abs(
                        design_matrix(NB201, everyone) @ posterior.mean / (design_matrix(NB201, everyone) @ costs) - 1
                    )
                )
            )
        means.append(np.mean(errors))
    assert all(later <= 1.05 * earlier for earlier, later in pairwise(means)), means
    assert means[-1] < means[0] / 2


@pytest.mark.slow
def test_a_device_unlike_all_of_the_pool_has_wide_error_bars_that_hold() -> None:
    prior = pool_prior(pool(), SizedSpace(NB201, CIFAR))
    chosen, everyone = choose_architectures(NB201, prior, 8), connected_choices(NB201, 3_000, seed=5)
    widths, held = {}, {}
    for name, usual in {"alike": (2, 5, 15, 3), "unlike": (9, 2, 1, 20)}.items():
        widths[name], held[name] = [], []
        for seed in range(300, 305):
            costs = made_up_device(seed, usual=usual)  # type: ignore[arg-type]
            table = fitted(chosen, timed(costs, chosen, 0.02, seed), prior)
            half, predicted = half_intervals(table, SizedSpace(NB201, CIFAR), everyone), predictions(table, everyone)
            widths[name].append(np.median(half / predicted))
            held[name].append(np.mean(np.abs(predicted - timed(costs, everyone, 0.02, 9)) <= half))
    assert np.mean(widths["unlike"]) > 2 * np.mean(widths["alike"])
    assert np.mean(held["unlike"]) > 0.8


@pytest.mark.slow
def test_the_design_tells_more_than_random_networks_and_holds_no_broken_one() -> None:
    prior = pool_prior(pool(), SizedSpace(NB201, CIFAR))
    chosen, everyone = choose_architectures(NB201, prior, 12), every_choice(NB201)
    assert len({tuple(row) for row in chosen.tolist()}) == 12
    assert connected(NB201, chosen).all()
    assert np.array_equal(chosen, choose_architectures(NB201, prior, 12))
    designed, random = [], []
    for seed in range(400, 408):
        costs = made_up_device(seed)
        exact = design_matrix(NB201, everyone) @ costs
        other = connected_choices(NB201, 12, seed=seed)
        for choices, scores in ((chosen, designed), (other, random)):
            posterior = fit_posterior(
                design_matrix(NB201, choices), timed(costs, choices, 0.03, seed), prior, not_negative(NB201)
            )
            scores.append(spearmanr(design_matrix(NB201, everyone) @ posterior.mean, exact).statistic)
    assert np.mean(designed) > np.mean(random)


def test_a_measured_table_can_be_in_the_pool_and_a_pool_of_one_works() -> None:
    from hwnas.files import shipped

    file = next(shipped("latency_tables").glob("*-onnxruntime.json"))
    prior = pool_prior({"here": read_table(file)}, SizedSpace(NB201, CIFAR))
    chosen = choose_architectures(NB201, prior, 10)
    assert connected(NB201, chosen).all()
    table = fitted(chosen, timed(made_up_device(1, True), chosen, 0.02), prior)
    assert table.provenance == "transferred"
    assert np.isfinite(predictions(table, every_choice(NB201))).all()


@pytest.mark.slow
@pytest.mark.skipif(not LATENCIES.exists(), reason=f"{LATENCIES} is not there")
def test_a_real_device_from_ten_measurements() -> None:
    """A Xeon from ten measured networks, with five other real devices as the pool: rank correlation over all 15,625."""
    with gzip.open(LATENCIES, "rt") as file:
        rows = list(csv.DictReader(file))
    everyone = encode(NB201, [NB201.parse(row["arch"]) for row in rows])
    column = {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "arch"}
    some = np.random.default_rng(0).choice(len(rows), 900, replace=False)
    tables = {
        name: fitted(everyone[some], column[name][some], name=name)
        for name in ("1080ti_1", "1080ti_256", "silver_4114", "samsung_a50", "samsung_s7")
    }
    prior = pool_prior(tables, SizedSpace(NB201, CIFAR))
    index = {tuple(row): number for number, row in enumerate(everyone.tolist())}
    ten = [index[tuple(row)] for row in choose_architectures(NB201, prior, 10).tolist()]
    table = fitted(everyone[ten], column["silver_4210r"][ten], prior)
    assert spearmanr(predictions(table, everyone), column["silver_4210r"]).statistic > 0.97


# --- a fitted table is a table ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_budgets_are_kept_exactly_on_a_fitted_table_of_a_large_space() -> None:
    """With costs of edges that run dead (torch) and of edges that run only when live."""
    choices = connected_choices(DARTS, 60)
    generator = np.random.default_rng(0)
    costs = np.abs(generator.normal(size=num_features(DARTS)))
    latency_ms = design_matrix(DARTS, choices) @ costs
    table = fit_table(
        SizedSpace(DARTS, SMALL_DARTS),
        choices,
        latency_ms,
        generic_prior(SizedSpace(DARTS, SMALL_DARTS)),
        MeasurementOrigin("x"),
        lambda *_: None,
    ).table
    model = build_cost_models(table, SizedSpace(DARTS, SMALL_DARTS))["latency_ms"]
    least = model.predict(cheapest(model))
    assert least <= model.predict_many(connected_choices(DARTS, 2_000, seed=1)).min() + 1e-9
    logits = {k: generator.normal(size=(len(c.edges), len(DARTS.operations))) for k, c in DARTS.cells.items()}
    budget = 0.5 * (least + float(np.median(latency_ms)))
    best = derive(DARTS, logits, {"latency_ms": (model, budget)})
    assert model.predict(best) <= budget


CELLS = [
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "|avg_pool_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|nor_conv_3x3~2|",
]


def write_pool(folder: Path) -> Path:
    for name, table in pool().items():
        write_table(folder / f"{name}.json", table)
    return folder


@pytest.mark.slow
def test_from_a_design_to_a_prediction_with_error_bars(run: Run, tmp_path: Path) -> None:
    shelf, form, out = write_pool(tmp_path / "pool"), tmp_path / "form.csv", tmp_path / "new.json"
    named = run("table", "design", "--space", "nasbench201", "--shelf", shelf, "-n", "10", "--out", form)
    assert named.exit_code == 0, named.output
    assert named.stdout.splitlines()[0].startswith("|")
    assert_one_clear_line(run("table", "design", "--shelf", shelf, "--out", form), "exists", "--out")
    architectures = [line.split(",")[0] for line in form.read_text().splitlines()[1:]]
    assert (
        json.loads(run("table", "design", "--shelf", shelf, "-n", 10, "--json").stdout)["architectures"]
        == architectures
    )
    costs = made_up_device(500)
    latency_ms = timed(costs, encode(NB201, [NB201.parse(a) for a in architectures]), 0.02)
    lines = [f"{a},{ms}" for a, ms in zip(architectures, latency_ms, strict=True)]
    form.write_text("architecture,latency_ms\n" + "\n".join(lines) + "\n")
    fit = ("table", "fit", "--space", "nasbench201", "--measurements", form, "--prior", shelf, "--out", out)
    result = run(*fit, "--licence", "CC0-1.0", "--json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["measurements"] == 10
    assert said["pool"] == sorted(pool())
    table = read_table(out)
    assert (table.provenance, table.licence, table.version) == ("transferred", "CC0-1.0", 2)
    (tmp_path / "cells.txt").write_text("\n".join(CELLS))
    predict = run("table", "predict", out, "--architectures", tmp_path / "cells.txt", "--json")
    rows = json.loads(predict.stdout)
    exact = design_matrix(NB201, encode(NB201, [NB201.parse(a) for a in CELLS])) @ costs
    for row, ms in zip(rows, exact, strict=True):
        assert abs(row["latency_ms"] - ms) < 2 * row["interval_ms"]
        assert row["interval_level"] == 0.9
    shown = run("table", "predict", out, "--architectures", tmp_path / "cells.txt")
    assert "+- (90%)" in shown.stdout
    assert run("space", "preview", "--table", out, "--budget", "moderate").exit_code == 0
    assert run(*fit).exit_code == 0  # for people


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("architecture,latency_ms\n", "0 measurements"),
        ("architecture,ms\na,1\n", "lacks the columns"),
        ("", "lacks the columns"),
        ("architecture,latency_ms\nwarp~0,1\n", "line 2: .*warp"),
        (f"architecture,latency_ms\n{CELLS[0]},nan\n", "line 2: .*nan"),
        (f"architecture,latency_ms\n{CELLS[0]},-1\n", "line 2: .*-1"),
        (f"architecture,latency_ms\n{CELLS[0]},1\n{CELLS[1]}\n", "line 3: "),
        (f"architecture,latency_ms\n{CELLS[0]},1\n{CELLS[1]},2\n", "2 measurements, fewer than 3"),
        (b"\xff\xfe\x00", "not a text file"),
        (None, "does not exist"),
    ],
)
def test_bad_measurements_are_refused_in_one_line(
    run: Run, tmp_path: Path, text: str | bytes | None, words: str
) -> None:
    file, out = tmp_path / "measured.csv", tmp_path / "t.json"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_one_clear_line(run("table", "fit", "--measurements", file, "--out", out), "measured.csv", words)
    assert not out.exists()


@pytest.mark.slow
def test_a_pool_that_does_not_know_the_network_is_refused(run: Run, tmp_path: Path) -> None:
    shelf = write_pool(tmp_path / "pool")
    result = run("table", "design", "--space", "darts", "--shelf", shelf)
    assert_one_clear_line(result, "no table of the pool is for network darts")
    assert_one_clear_line(run("table", "design", "--shelf", tmp_path / "nowhere"), "nowhere")
    assert_one_clear_line(
        run("table", "fit", "--measurements", tmp_path / "m.csv", "--out", "t.json", "--device-kind", "toaster"),
        "toaster",
    )
