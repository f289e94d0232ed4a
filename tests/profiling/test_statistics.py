"""Arithmetic on made-up readings: drift, noise, corrections, residuals, forecasts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.calibration.correction import fit_correction
from hwnas.calibration.residual import fit_residual
from hwnas.cost.fusion import pieces
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.profiling import protocol
from hwnas.profiling.forecast import open_shares
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.noise import noise_of
from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.protocol import Job, JobValues
from hwnas.profiling.statistics import WAITED, Estimate, estimate, half_interval, read, report
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SPACES, SizedSpace, Workload
from hwnas.tables.io import write_table
from hwnas.tables.schema import Correction, Entry, MeasuredNetwork, Quality
from support.command import Run
from support.tables import make_table


def values_of(times: list[tuple[str, float]], waited: float = 0.0) -> JobValues:
    """Return the values of a process with these models and milliseconds."""
    job = Job("cpu", 1, 1, {}, [name for name, _ in times])
    return JobValues(job, runs=[protocol.Run(name, ms, ms, waited) for name, ms in times])


def test_drift_is_divided_out() -> None:
    """The machine slows down by half in the middle; a model takes 3 ms, the sentinel 1 ms."""
    times = []
    for number in range(300):
        speed = 1.0 if number < 150 else 1.5
        times.append((SENTINEL_NAME, 1.0 * speed) if number % 3 == 0 else ("model", 3.0 * speed))
    readings = read([values_of(times)], reference_ms=1.0)
    assert readings.process_times["model"] == pytest.approx([3.0], rel=0.01)
    assert np.percentile(np.abs(readings.run_times["model"] - 3.0), 95) < 0.2
    assert readings.drift == pytest.approx(0.5, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.7, 1.5), min_size=2, max_size=8), st.floats(0.5, 2.0))
def test_the_speed_of_a_process_is_divided_out(factors: list[float], reference_ms: float) -> None:
    """Every process has a factor of its own; the sentinel alone is off by 5 % in the first."""
    others = "abcdefghij"
    true_ms = {SENTINEL_NAME: 1.0, "a": 3.0, "b": 0.2, **dict.fromkeys(others[2:], 7.0)}
    processes = []
    for number, factor in enumerate(factors):
        own = {SENTINEL_NAME: 1.05 if number == 0 else 1.0}
        order = [SENTINEL_NAME, *others] * 3 + [SENTINEL_NAME]
        processes.append(values_of([(name, true_ms[name] * factor * own.get(name, 1.0)) for name in order]))
    readings = read(processes, reference_ms)
    sentinel = float(np.median(readings.process_times[SENTINEL_NAME]))
    assert sentinel == pytest.approx(reference_ms, rel=1e-6)
    for name in others:
        assert readings.process_times[name] / readings.process_times["a"] == pytest.approx(
            true_ms[name] / 3.0, rel=1e-6
        )
        assert estimate(readings.process_times[name]).error_ms == pytest.approx(0.0, abs=1e-6)


def test_with_few_models_the_sentinel_alone_gives_the_speed_of_a_process() -> None:
    """The variation of a model is not hidden by dividing by its own times."""
    processes = [
        values_of([(SENTINEL_NAME, speed), ("model", 2.0 * own * speed), (SENTINEL_NAME, speed)])
        for speed, own in ((1.0, 1.0), (1.2, 1.1), (1.0, 0.9))
    ]
    assert read(processes, reference_ms=1.0).process_times["model"] == pytest.approx([2.0, 2.2, 1.8])


def test_a_common_factor_of_networks_in_a_process_is_divided_out() -> None:
    """Whole networks are slower by up to a tenth in some processes; repeated workloads are not."""
    generator = np.random.default_rng(0)
    true_ms = {f"network{n}": ms for n, ms in enumerate(generator.uniform(1, 5, 20))}
    processes = []
    for factor in (1.0, 1.1, 1.0, 1.05, 0.95):
        order = [SENTINEL_NAME, *"abcdefghij", *true_ms, SENTINEL_NAME]
        processes.append(values_of([(name, true_ms[name] * factor if name in true_ms else 1.0) for name in order]))
    readings = read(processes)
    for name, ms in true_ms.items():
        assert readings.process_times[name] == pytest.approx(np.full(5, ms), rel=1e-6)
    assert readings.process_times["a"] == pytest.approx(np.ones(5))


def test_a_latency_that_is_not_positive_is_refused_unless_it_is_precisely_zero() -> None:
    plan = ProfilePlan(parse_device("cpu"), SizedSpace(SPACES["nasbench201"], SPACES["nasbench201"].setting("cifar")))
    quiet = [values_of([(SENTINEL_NAME, 1.0), ("network0", 3.0), (SENTINEL_NAME, 1.0)])] * 3
    readings, workload = read(quiet), Workload("sum", 16, 16, 32, 32)
    for found in (Estimate(0.1, 0.01), Estimate(-1e-5, 1e-4), Estimate(0.0, 0.0)):
        noise_of(plan, readings, quiet, {workload: found}, ["network0"])
    for found in (Estimate(-1e-5, 0.1), Estimate(0.0, math.inf), Estimate(math.nan, math.inf)):
        with pytest.raises(HwnasError, match="no positive latency"):
            noise_of(plan, readings, quiet, {workload: found}, ["network0"])


def test_noise_is_refused_or_marked(run: Run, tmp_path: Path) -> None:
    space, setting = SPACES["nasbench201"], SPACES["nasbench201"].setting("cifar", channels=4, depth=1)
    plan = ProfilePlan(parse_device("cpu"), SizedSpace(space, setting))
    times = [(SENTINEL_NAME, 1.0 + number % 4) for number in range(20)]
    unquiet = [values_of([*times, ("network0", 3.0), (SENTINEL_NAME, 1.0)])] * 3
    with pytest.raises(HwnasError, match=r"too noisy.*its speed moved by .*--accept-noise"):
        noise_of(plan, read(unquiet), unquiet, {}, ["network0"])
    (noise,) = noise_of(replace(plan, accept_noise=True), read(unquiet), unquiet, {}, ["network0"])
    assert noise.startswith("its speed moved by ")
    table = make_table(SizedSpace(space, setting))
    write_table(tmp_path / "t.json", table.model_copy(update={"quality": Quality(noise=[noise])}))
    sizes = ("--channels", 4, "--cells", 1)
    for words in (("table", "show"), ("space", "preview", "--space", "nasbench201", *sizes, "--table")):
        result = run(*words, tmp_path / "t.json")
        assert result.exit_code == 0, result.output
        assert f"warning: made on a noisy machine ({noise})" in result.stderr
    # A number that is missing is not made up, whatever is accepted.
    lost = [values_of([(SENTINEL_NAME, 1.0), ("network0", 3.0), (SENTINEL_NAME, 1.0)], waited=2 * WAITED)]
    with pytest.raises(HwnasError, match="never timed undisturbed"):
        noise_of(replace(plan, accept_noise=True), read(lost), lost, {}, ["network0"])


def test_runs_that_waited_are_not_used() -> None:
    good = values_of([(SENTINEL_NAME, 1.0), ("model", 3.0), (SENTINEL_NAME, 1.0)])
    bad = values_of([(SENTINEL_NAME, 1.0), ("model", 9.0), (SENTINEL_NAME, 1.0)], waited=2 * WAITED)
    readings = read([good, bad, good])
    assert np.isnan(readings.process_times["model"][1])
    assert estimate(readings.process_times["model"]).latency_ms == pytest.approx(3.0)
    assert readings.waited == pytest.approx(1 / 3)
    assert np.isnan(estimate(read([bad]).process_times["model"]).latency_ms)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([[], ["share"], ["share", "fuse"]]))
def test_a_known_correction_is_recovered(seed: int, rewrites: list) -> None:
    space, setting = SPACES["nasbench201"], SPACES["nasbench201"].setting("cifar", channels=4, depth=1)
    plain = make_table(SizedSpace(space, setting), seed)
    relus = [
        Entry(**{**plain.entries[0].model_dump(), **vars(w), "latency_ms": 0.03})
        for w in pieces(SizedSpace(space, setting).network)
    ]
    plain = plain.model_copy(update={"entries": [*plain.entries, *relus]})
    factors = {"conv": 1.1, "pool": 1.3, "relu": 1.2, "sum": 1.2, "fused_sum": 0.6 if "fuse" in rewrites else 1.2}
    true = Correction(offset_ms=0.1, scale=1.05, factors=factors, rewrites=rewrites, networks=1)
    key = SizedSpace(space, setting).key
    model = build_cost_models(plain.model_copy(update={"correction": {key: true}}), SizedSpace(space, setting))[
        "latency_ms"
    ]
    generator = np.random.default_rng(seed)
    choices = generator.integers(5, size=(60, 6))
    measured = model.predict_many(choices)
    found = fit_correction(plain, SizedSpace(space, setting), choices[:20], measured[:20])
    assert found.networks == 20
    fitted = build_cost_models(plain.model_copy(update={"correction": {key: found}}), SizedSpace(space, setting))[
        "latency_ms"
    ]
    error = np.abs(fitted.predict_many(choices[20:]) / measured[20:] - 1)
    assert error.mean() < 0.01


def test_the_residual_predictor_learns_the_error_of_sums_from_its_networks_only() -> None:
    space, setting = SPACES["nasbench201"], SPACES["nasbench201"].setting("cifar", channels=4, depth=1)
    table = make_table(SizedSpace(space, setting))
    key = SizedSpace(space, setting).key
    model = build_cost_models(table, SizedSpace(space, setting))["latency_ms"]
    choices = np.random.default_rng(0).integers(5, size=(200, 6))
    # A latency that no sum of entries gives: every further 3x3 convolution makes all others dearer.
    measured = model.predict_many(choices) * (1 + 0.05 * (choices == 3).sum(axis=1))
    networks = [
        MeasuredNetwork(
            architecture=space.format(space.architecture((tuple(space.operations[o] for o in row),))),
            latency_ms=ms if number < 100 else 1000.0,
            error_ms=0.0,
            fitted=number < 100,
        )
        for number, (row, ms) in enumerate(zip(choices, measured, strict=True))
    ]
    with pytest.raises(HwnasError, match="no measured networks"):
        fit_residual(table, SizedSpace(space, setting))
    predictor = fit_residual(table.model_copy(update={"networks": {key: networks}}), SizedSpace(space, setting))
    before = np.abs(model.predict_many(choices[100:]) / measured[100:] - 1).mean()
    after = np.abs(predictor.predict_many(choices[100:]) / measured[100:] - 1).mean()
    assert after < 0.5 * before


def test_the_report_gives_the_error_of_predictions() -> None:
    sums = np.linspace(1, 5, 12)
    exact = report(sums, [np.array([s, s, s, s]) for s in sums])
    assert (exact.mape, exact.within_5_percent, exact.kendall_tau, exact.floor) == pytest.approx((0, 1, 1, 0), abs=1e-9)
    alike = report(np.ones(3), [np.array([s, s]) for s in (1.0, 2.0, 3.0)])
    assert alike.kendall_tau is None  # no order was predicted, so there is none to judge
    assert "undefined" in alike.describe()
    wrong = report(sums * 1.07, [np.array([s, s]) for s in sums])
    assert (wrong.mape, wrong.within_5_percent, wrong.within_10_percent) == pytest.approx((7, 0, 1))


def test_half_interval_is_student_t() -> None:
    # Mean 10, standard deviation 1, five readings: t(0.975, 4) = 2.7764 (any table of t).
    values = 10 + np.array([-1, -1, 0, 1, 1]) * np.sqrt(4 / 4)
    assert half_interval(values) == pytest.approx(2.7764 / np.sqrt(5), rel=1e-4)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(st.floats(0.05, 5.0), st.integers(3, 6))
def test_the_share_of_unsettled_models_is_forecast_from_the_first_processes(deviation: float, most: int) -> None:
    """Compare with the rule itself, applied to random values of the same deviation."""
    readings = np.random.default_rng(1).normal(0, deviation, size=(4000, most))
    intervals = np.array([[half_interval(row[:n]) for n in range(3, most)] for row in readings])
    really_open = np.cumprod(intervals > 1, axis=1).mean(axis=0)
    seen = [half_interval(row[:3]) for row in readings[:400]]
    assert open_shares(seen, 3, most) == pytest.approx([1, 1, 1, *really_open], abs=0.12)
    unknown = [math.inf] * len(seen)  # of models that were always disturbed
    assert open_shares([*seen, *unknown], 3, most) == open_shares(seen, 3, most)
    assert open_shares([], 3, most) == open_shares([math.inf], 3, most) == [1.0] * most
