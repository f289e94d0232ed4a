"""Readings that cannot be right: named with a guess, never made into a table in silence."""

from __future__ import annotations

import csv
import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hwnas.calibration.design_matrix import connected_choices, design_matrix
from hwnas.calibration.prior import generic_prior
from hwnas.calibration.suspects import Suspects, find_suspects
from hwnas.cost.model import Array, CostModel, build_cost_models
from hwnas.spaces import SizedSpace
from hwnas.spaces.encoding import decode, encode
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Additivity, Quality
from support.command import Run
from support.fitting import CIFAR, made_up_device, timed
from support.paths import SHARED
from support.spaces import NB201
from support.table_samples import NETWORK, V2
from support.tables import make_table

LATENCIES = SHARED / "nb201_latency_ms.csv.gz"
SIXTY = connected_choices(NB201, 60)


@cache
def count_macs() -> CostModel:
    sized = SizedSpace(NB201, CIFAR)
    return build_cost_models(make_table(sized), sized)["macs"]


def suspects(latency_ms: Array, choices: np.ndarray = SIXTY) -> Suspects:
    macs = count_macs().predict_many(choices)
    return find_suspects(NB201, design_matrix(NB201, choices), macs, latency_ms, generic_prior(SizedSpace.named(NB201)))


def reasons(latency_ms: Array, choices: np.ndarray = SIXTY) -> list[str]:
    return suspects(latency_ms, choices).reasons


def readings(seed: int = 0) -> Array:
    return timed(made_up_device(seed), SIXTY, 0.05, seed)


@pytest.mark.parametrize(
    ("factor", "number", "sentence"),
    [
        (1e3, 11, "11 readings look 1000 times too large for the other 49: another unit?"),
        (1e-3, 11, "11 readings look 1000 times too small for the other 49: another unit?"),
        (1e3, 1, "1 reading looks 1000 times too large for the other 59: another unit?"),
        (1e6, 4, "4 readings look 1000000 times too large for the other 56: another unit?"),
        (60, 20, "20 readings look 60 times too large for the other 40: another unit?"),
        (1 / 3600, 7, "7 readings look 3600 times too small for the other 53: another unit?"),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_readings_of_another_unit_are_counted_and_their_unit_is_guessed(
    factor: float, number: int, sentence: str, seed: int
) -> None:
    latency_ms = readings(seed)
    latency_ms[np.random.default_rng(seed).permutation(60)[:number]] *= factor
    assert reasons(latency_ms) == [sentence]


def test_three_units_are_three_groups() -> None:
    latency_ms = readings()
    latency_ms[:5] *= 1e3
    latency_ms[5:12] /= 1e3
    assert reasons(latency_ms) == [
        "7 readings look 1000 times too small for the other 48: another unit?",
        "5 readings look 1000 times too large for the other 48: another unit?",
    ]


def test_failed_measurements_do_not_hide_another_unit() -> None:
    """Two failed measurements among those of the other unit fill the gap between both units."""
    latency_ms = readings()
    latency_ms[:11] *= 1e3
    latency_ms[11:13] = np.median(latency_ms) * np.array([6.0, 40.0])
    assert "11 readings look 1000 times too large for the other 48: another unit?" in reasons(latency_ms)


def test_a_group_at_another_ratio_is_no_unit() -> None:
    latency_ms = readings()
    latency_ms[:9] *= 300
    (reason,) = reasons(latency_ms)
    assert reason.startswith("9 readings look about ")
    assert 280 < float(reason.split()[4]) < 320
    assert "another batch size" in reason


def test_the_others_predict_a_network_whose_reading_is_of_another_unit() -> None:
    exact = design_matrix(NB201, SIXTY) @ made_up_device(2)
    latency_ms = exact.copy()
    latency_ms[:11] *= 1e3
    found = suspects(latency_ms)
    assert found.predicted_ms is not None
    assert np.abs(found.predicted_ms[:11] / exact[:11] - 1).max() < 0.15


@pytest.mark.parametrize("seed", range(3))
def test_images_per_second_are_no_latencies(seed: int) -> None:
    (reason,) = reasons(1000 / readings(seed))
    assert "are these images per second?" in reason


def test_one_architecture_with_two_unlike_readings_is_named() -> None:
    latency_ms = readings()
    choices = np.concatenate([SIXTY, SIXTY[:3]])
    again = np.concatenate([latency_ms, latency_ms[:3] * [1.1, 3.0, 2.5]])
    assert reasons(again, choices) == [
        "2 architectures listed more than once with readings more than 2 times apart, "
        f"such as {latency_ms[1]:.4g} and {3 * latency_ms[1]:.4g} ms"
    ]
    assert reasons(np.concatenate([latency_ms, latency_ms[:3] * 1.3]), choices) == []


@pytest.mark.parametrize("number", [3, 10, 60])
def test_honest_and_a_few_failed_readings_are_no_suspects(number: int) -> None:
    for seed in range(10):
        latency_ms = timed(made_up_device(seed), SIXTY[:number], 0.1, seed)
        assert reasons(latency_ms, SIXTY[:number]) == []
    latency_ms[: number // 12] = 0.003
    assert reasons(latency_ms, SIXTY[:number]) == []


@cache
def published() -> dict[str, Array]:
    with gzip.open(LATENCIES, "rt") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "arch"}


@cache
def published_choices() -> np.ndarray:
    with gzip.open(LATENCIES, "rt") as file:
        return encode(NB201, [NB201.parse(row["arch"]) for row in csv.DictReader(file)])


@pytest.mark.slow
@pytest.mark.skipif(not LATENCIES.exists(), reason=f"{LATENCIES} is not there")
def test_no_published_device_is_suspect() -> None:
    """Thirteen devices, timed by others: none of their readings is refused, in samples of several sizes."""
    for device, latency_ms in published().items():
        for seed, number in enumerate((10, 40, 100, 300)):
            some = np.random.default_rng(seed).choice(len(latency_ms), number, replace=False)
            assert reasons(latency_ms[some], published_choices()[some]) == [], (device, number)
        if device != "pixel3":  # the reciprocal of its few failed readings comes first
            assert "images per second" in reasons(1000 / latency_ms[some], published_choices()[some])[0], device


def report(mape: float, tau: float | None, networks: int = 40) -> Additivity:
    shares = {"within_5_percent": 0.0, "within_10_percent": 0.0}
    return Additivity(networks=networks, mape=mape, kendall_tau=tau, worst=mape, bias=0, floor=None, **shares)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (report(11.1, 0.84), ""),  # the worst of the shipped tables
        (report(1.7, 0.1), ""),  # networks that take equally long
        (report(34, 0.6, 10), ""),  # ten measurements without other devices
        (report(24, -0.02, 10), ""),  # ten networks have no ranking to speak of
        (report(1076, -0.25), "a mean error of 1076 %"),
        (report(51, 0.9), "a mean error of 51 %"),
        (report(15, 0.1), r"hardly better than by chance (Kendall tau 0.10)"),
    ],
)
def test_a_report_is_poor_from_these_figures_on(found: Additivity, words: str) -> None:
    table = V2.model_copy(update={"quality": Quality(additivity={NETWORK: found})})
    assert bool(table.warnings) == bool(words)
    assert all(f"do not rely on its latencies of {NETWORK}: " in line and words in line for line in table.warnings)


# --- the command line -------------------------------------------------------------------------------------------------


def write_readings(file: Path, latency_ms: Array) -> None:
    lines = [f"{NB201.format(decode(NB201, c), True)},{ms}" for c, ms in zip(SIXTY, latency_ms, strict=True)]
    file.write_text("\n".join(["architecture,latency_ms", *lines]) + "\n")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Sixty readings, eleven of them in microseconds."""
    latency_ms = readings()
    latency_ms[:11] *= 1e3
    write_readings(tmp_path / "mixed.csv", latency_ms)
    return tmp_path / "mixed.csv"


GUESS = "11 readings look 1000 times too large for the other 49: another unit?"


@pytest.mark.slow
def test_poor_readings_make_no_table_unless_accepted(run: Run, mixed: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    fit = ("table", "fit", "--measurements", mixed, "--out", out)
    refused = run(*fit)
    assert refused.exit_code == 1, refused.output
    assert not out.exists()
    assert GUESS in refused.stdout
    assert "--accept" in refused.stdout.splitlines()[-1]
    assert "hwnas search" not in refused.stdout
    said = json.loads(run(*fit, "--json").stdout)
    assert said["table"] is None
    assert not out.exists()
    for row in said["worst"]:  # all five of another unit, beside what the others predict
        assert 700 < row["latency_ms"] / row["predicted_ms"] < 1400
    accepted = run(*fit, "--accept")
    assert accepted.exit_code == 0, accepted.output
    assert GUESS in accepted.stdout
    table = read_table(out)
    assert table.quality.suspect_readings == {NETWORK: [GUESS]}
    for words in (
        ("table", "show", out),
        ("table", "check", out, "--contents"),
        ("space", "preview", "--table", out, "--budget", "moderate"),
        ("search", "--table", out, "--budget", "0.000001ms", "--out", tmp_path / "run"),
        ("table", "push", out, tmp_path / "shelf"),
        ("table", "pull", "t", tmp_path / "shelf", "--out", tmp_path / "again.json"),
    ):
        assert f"warning: do not rely on its latencies of {NETWORK}: {GUESS}" in run(*words).stderr, words
    checked = json.loads(run("table", "check", out, "--contents", "--json").stdout)
    assert GUESS in checked["warnings"][0]


def test_an_older_table_with_a_useless_report_warns_as_well(run: Run, tmp_path: Path) -> None:
    old = V2.model_copy(update={"quality": Quality(additivity={NETWORK: report(1076, -0.25)})})
    write_table(tmp_path / "old.json", old)
    assert "suspect_readings" not in (tmp_path / "old.json").read_text()
    warned = run("table", "check", tmp_path / "old.json", "--contents")
    assert warned.exit_code == 0
    assert "mean error of 1076 %" in warned.stderr


def test_good_readings_are_accepted_without_a_word(run: Run, tmp_path: Path) -> None:
    write_readings(tmp_path / "good.csv", readings())
    result = run("table", "fit", "--measurements", tmp_path / "good.csv", "--out", tmp_path / "t.json")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.output
    assert read_table(tmp_path / "t.json").warnings == []
