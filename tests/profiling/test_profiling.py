"""Profiling: arithmetic on made-up readings, device specs, real profiles of this machine, kill and resume."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.calibration.correction import fit_correction
from hwnas.calibration.residual import fit_residual
from hwnas.cost.fusion import pieces
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.operations import build_operation, randomise
from hwnas.profiling import protocol
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.forecast import open_shares
from hwnas.profiling.models import Repeated, Whole, is_chainable, repetitions, torch_model
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.noise import noise_of
from hwnas.profiling.plan import ProfilePlan
from hwnas.profiling.protocol import Job, JobValues, make_job
from hwnas.profiling.session import read_journal, run_job
from hwnas.profiling.statistics import WAITED, Estimate, estimate, half_interval, read, report
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SPACES, Architecture, SizedSpace, Workload
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Correction, Entry, LatencyTable, MeasuredNetwork, Quality
from support.command import Run, assert_one_clear_line, hwnas_process, profile
from support.noise import assert_timing
from support.spaces import SMALL, architectures
from support.tables import make_table

SMALL_PROFILE = ("--space", "nasbench201", "--channels", 16, "--cells", 1, "--input", "3x32x32")
QUICK = ("--rounds", 6, "--fit-networks", 3, "--report-networks", 3)


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
    assert open_shares([], 3, most) == open_shares([math.inf], 3, most) == [1.0] * most


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_workload_can_be_repeated(name: str) -> None:
    space = SPACES[name]
    for setting in space.settings.values():
        network = SizedSpace(space, setting).network
        for workload in (*network.workloads(), *pieces(network)):
            few, many = repetitions(workload)
            assert 1 <= few < many
    small = space.setting(space.search_setting, channels=4, depth=1 if name == "nasbench201" else 3)
    for workload in SizedSpace(space, small).network.workloads():
        module, inputs = torch_model(Repeated(workload, 2), batch=3)
        result = module.eval()(*inputs)
        shapes = [r.shape for r in (result if isinstance(result, tuple) else (result,))]
        assert len(shapes) == (1 if is_chainable(workload) else 2)
        assert all(shape[:2] == (3, workload.out_channels) for shape in shapes)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.sampled_from(sorted(SPACES)).flatmap(architectures), st.sampled_from([1, 3]))
def test_an_assembled_network_computes_the_same_as_torch(architecture: Architecture, batch: int) -> None:
    """All copies of an operation have the same weights in both."""
    space = SPACES[architecture.space]
    setting = SMALL[architecture.space]

    def seeded(workload: Workload | None) -> torch.nn.Module:
        torch.manual_seed(0)
        return randomise(build_operation(workload))

    module = ChildNetwork(SizedSpace(space, setting), architecture, prune=True, build=seeded).eval()
    images = torch.randn(batch, setting.image_channels, setting.height, setting.width)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "assembled.onnx"
        assemble_onnx(
            Whole(SizedSpace(space, setting), architecture), path, Path(name) / "pieces", batch, own_weights=False
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        computed = session.run(None, {given.name: images.numpy()})[0]
    with torch.no_grad():
        expected = module(images).numpy()
    assert np.abs(computed - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("text", "hardware", "runtime", "threads"),
    [
        ("cpu", "cpu", "onnxruntime", 1),
        ("cpu+torch", "cpu", "torch", 1),
        ("cuda:1+torch", "cuda:1", "torch", 1),
        ("cuda:0", "cuda:0", "torch", 1),
        ("cpu+onnxruntime?threads=2&batch=8", "cpu", "onnxruntime", 2),
        ("cpu-2-threads", "cpu", "onnxruntime", 2),
    ],
)
def test_device_specs_are_read(text: str, hardware: str, runtime: str, threads: int) -> None:
    spec = parse_device(text)
    assert (spec.hardware, spec.runtime.name, spec.threads) == (hardware, runtime, threads)
    assert parse_device(spec.text) == spec


@pytest.mark.parametrize(
    "text", ["", "tpu", "cpu+abacus", "cpu?threads=0", "cpu?speed=9", "cuda:0+onnxruntime", "no.yaml"]
)
def test_invalid_device_specs_are_refused(run: Run, tmp_path: Path, text: str) -> None:
    assert_one_clear_line(run("profile", *SMALL_PROFILE, "--out", tmp_path / "t.json", "--device", text))


def test_device_yaml_without_a_device_is_refused(run: Run, tmp_path: Path) -> None:
    for content in (b"", b"device: 3", b"device: [", b"name: x", b"device: \xff"):
        (tmp_path / "d.yaml").write_bytes(content)
        result = run("profile", *SMALL_PROFILE, "--out", tmp_path / "t.json", "--device", tmp_path / "d.yaml")
        assert_one_clear_line(result, "d.yaml")


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_missing_cuda_device_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("profile", *SMALL_PROFILE, "--out", tmp_path / "t.json", "--device", "cuda:0+torch")
    assert_one_clear_line(result, "no CUDA device")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_profile_of_a_cuda_device(run: Run, tmp_path: Path) -> None:
    table = profile(run, *SMALL_PROFILE, *QUICK, "--device", "cuda:0+torch", "--out", tmp_path / "t.json")
    assert table.device.kind == "gpu"


@pytest.mark.end_to_end
@pytest.mark.parametrize("device", ["cpu", "cpu+torch"])
def test_profile_of_this_machine(run: Run, tmp_path: Path, device: str) -> None:
    out = tmp_path / "t.json"
    networks = ("--fit-networks", 2, "--report-networks", 3)
    table = profile(run, *SMALL_PROFILE, *QUICK, *networks, "--device", device, "--out", out)
    assert len(table.entries) == 19  # with a ReLU of each of three sizes
    assert all(entry.latency_ms > 0 for entry in table.entries)
    by_op = {(e.op, e.out_channels): e.latency_ms for e in table.entries}
    assert by_op["nor_conv_3x3", 16] > by_op["sum", 16]
    assert next(iter(table.quality.additivity.values())).networks == 3
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.end_to_end
def test_profile_keeps_what_a_table_already_holds(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    first = {e.workload: e for e in profile(run, *SMALL_PROFILE, *QUICK, "--out", out).entries}
    second = {e.workload: e for e in profile(run, *SMALL_PROFILE, *QUICK, "--classes", 7, "--out", out).entries}
    new = set(second) - set(first)
    assert [workload.op for workload in new] == ["norm_relu_pool_linear"]
    assert all(second[workload] == entry for workload, entry in first.items())
    whole = out.read_bytes()
    again = run("profile", *SMALL_PROFILE, *QUICK, "--out", out)
    assert "nothing was lacking" in again.stdout
    assert out.read_bytes() == whole
    other = run("profile", *SMALL_PROFILE, *QUICK, "--device", "cpu?threads=2", "--out", out)
    assert_one_clear_line(other, "another device or runtime", "--out")


def runs_in(folder: Path) -> int:
    journals = sorted(folder.glob("t.json.partial/*/pass*.jsonl"))
    return sum(journal.read_text().count('"event": "visit"') for journal in journals)


@pytest.mark.alone
@pytest.mark.end_to_end
def test_a_profile_killed_again_and_again_gives_the_same_table(run: Run, tmp_path: Path) -> None:
    """kill -9 at random moments, while models are written or timed: no run is lost or repeated."""
    out = tmp_path / "t.json"
    networks = ("--fit-networks", 6, "--report-networks", 6)
    arguments = ("profile", "--accept-noise", *SMALL_PROFILE, "--rounds", 24, *networks, "--out", out)
    moments = np.random.default_rng(0)
    kept = 0
    for _ in range(5):
        process = hwnas_process(*arguments)
        # Either a moment of the start and the writing, or one of the timing: so many more runs.
        if moments.random() < 0.3:
            time.sleep(float(moments.uniform(0.5, 3.0)))
        else:
            goal = kept + int(moments.integers(1, 60))
            while process.poll() is None and runs_in(tmp_path) < goal:
                time.sleep(0.02)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists()
        assert runs_in(tmp_path) >= kept
        kept = runs_in(tmp_path)
    assert kept > 30
    final = hwnas_process(*arguments)
    output = final.communicate()[0]
    assert final.returncode == 0, output
    assert list(tmp_path.iterdir()) == [out]
    resumed = read_table(out)
    uninterrupted = profile(run, *arguments[2:-1], tmp_path / "whole.json")
    assert {e.workload for e in resumed.entries} == {e.workload for e in uninterrupted.entries}
    assert len(resumed.entries) == 19
    assert resumed.quality.sentinel_ms
    assert uninterrupted.quality.sentinel_ms
    speed = uninterrupted.quality.sentinel_ms / resumed.quality.sentinel_ms  # the machine's own, apart
    # A process that lives for a moment is timed like one that lives for long: no entry is off by more than its error.
    close = [
        abs(a.latency_ms * speed - b.latency_ms) <= 0.2 * b.latency_ms + (a.error_ms or 0.0) + (b.error_ms or 0.0)
        for a, b in zip(by_key(resumed), by_key(uninterrupted), strict=True)
    ]
    assert_timing(bool(np.mean(close) > 0.8), resumed, uninterrupted)


def by_key(table: LatencyTable) -> list[Entry]:
    return sorted(table.entries, key=lambda entry: entry.workload)


@pytest.mark.end_to_end
def test_ctrl_c_prints_how_to_resume(tmp_path: Path) -> None:
    process = hwnas_process("profile", *SMALL_PROFILE, "--rounds", 30, "--out", tmp_path / "t.json")
    while process.poll() is None and not list(tmp_path.glob("t.json.partial/*/pass0.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "hwnas: interrupted; run the same command again to resume"
    assert "Traceback" not in output


def load_both_cores() -> list[subprocess.Popen]:
    """Start a program on each processor that only computes."""
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]


@pytest.mark.end_to_end
def test_a_busy_machine_is_refused_and_nothing_is_lost(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    burners = load_both_cores()
    try:
        result = run("profile", *SMALL_PROFILE, *QUICK, "--out", out)
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
    assert_one_clear_line(result, "too noisy", "stop other programs")
    assert not out.exists()
    assert profile(run, *SMALL_PROFILE, *QUICK, "--out", out).quality.additivity


@pytest.mark.end_to_end
def test_the_plan_is_printed_without_profiling(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    result = run("profile", *SMALL_PROFILE, *QUICK, "--out", out, "--plan", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["workloads"], told["known"], told["networks"], told["models"]) == (19, 0, 6, 45)
    assert told["seconds"] == pytest.approx(told["writing_s"] + told["timing_s"])
    assert 0 < told["seconds"] < 600
    assert list(tmp_path.iterdir()) == []


@pytest.mark.end_to_end
def test_a_table_is_checked_against_its_device(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.profiling.check.check_quiet", lambda *_: None)  # how noisy this machine is, is no matter
    out = tmp_path / "t.json"
    table = profile(run, *SMALL_PROFILE, "--rounds", 10, *QUICK[2:], "--out", out)
    result = run("table", "check", out, "--json")
    told = json.loads(result.stdout)
    assert len(told["entries"]) == 19
    assert result.exit_code == (0 if told["describes"] else 1)
    # The same table, as if every entry had been ten times as fast.
    faster = [e.model_copy(update={"latency_ms": e.latency_ms / 10, "error_ms": 0.0}) for e in table.entries]
    write_table(out, table.model_copy(update={"entries": faster}))
    result = run("table", "check", out)
    assert result.exit_code == 1, result.output
    assert "entries differ beyond their errors" in result.output
    assert "hwnas profile" in result.output.splitlines()[-1]
    # Another machine's table.
    device = table.device.model_copy(update={"name": "another", "fingerprint": "0"})
    write_table(out, table.model_copy(update={"device": device}))
    result = run("table", "check", out, "--entries", 2, "--json")
    assert result.exit_code == 1
    assert any("the device was another" in problem for problem in json.loads(result.stdout)["problems"])
    made_up = make_table(SizedSpace(SPACES["nasbench201"], SPACES["nasbench201"].setting("cifar")))
    write_table(out, made_up.model_copy(update={"provenance": "measured"}))
    assert_one_clear_line(run("table", "check", out), "hwnas profile")


@pytest.mark.end_to_end
def test_unstable_entries_are_measured_again(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    table = profile(run, *SMALL_PROFILE, *QUICK, "--out", out)
    chosen = table.entries[0].workload.key
    quality = table.quality.model_copy(update={"unstable": [chosen]})
    write_table(out, table.model_copy(update={"quality": quality}))
    again = profile(run, *SMALL_PROFILE, *QUICK, "--remeasure", "--out", out)
    changed = {a.workload.key for a, b in zip(by_key(table), by_key(again), strict=True) if a != b}
    assert changed == {chosen}
    # Of another network's entries nothing is touched.
    other = Entry(**{**table.entries[0].model_dump(), "op": "sep_conv_5x5"})
    quality = again.quality.model_copy(update={"unstable": [other.workload.key]})
    write_table(out, again.model_copy(update={"entries": [*again.entries, other], "quality": quality}))
    result = run("profile", *SMALL_PROFILE, *QUICK, "--remeasure", "--out", out)
    assert "nothing was lacking" in result.stdout
    assert other in read_table(out).entries


def test_a_profiler_that_fails_is_one_clear_error(tmp_path: Path) -> None:
    spec = parse_device("cpu")
    (tmp_path / "bad.onnx").write_bytes(b"this is no model")
    job = make_job(spec, {SENTINEL_NAME: "bad.onnx"}, 1, 0, {})
    with connect(spec, tmp_path) as connection, pytest.raises(HwnasError, match=r"onnxruntime_cpu.py failed") as caught:
        run_job(connection, job, tmp_path, "pass0")
    assert "\n" not in str(caught.value)


def test_a_torn_or_foreign_journal_is_ignored(tmp_path: Path) -> None:
    journal = tmp_path / "pass0.jsonl"
    job = Job("cpu", 1, 1, {"m": "m.onnx"}, ["m", "m"])
    visit = {"event": "visit", "visit": 0, "model": "m", "blocks": 3, "min_ms": 1.0, "median_ms": 1.0, "wall_ms": 9.0}
    journal.write_text('{"event": "job", "sha256": "mine"}\n' + json.dumps(visit) + '\n{"event": "vis')
    assert len(read_journal(journal, "mine", job).runs) == 1
    assert len(read_journal(journal, "other", job).runs) == 0
    for change in ({"visit": 1}, {"model": "n"}, {"min_ms": float("nan")}, {"min_ms": -1.0}, {"median_ms": 0.5}):
        journal.write_text('{"event": "job", "sha256": "mine"}\n' + json.dumps({**visit, **change}) + "\n")
        assert len(read_journal(journal, "mine", job).runs) == 0
    journal.write_text("garbage\n")
    assert len(read_journal(journal, "mine", job).runs) == 0


def test_jobs_interleave_everything_with_the_sentinel() -> None:
    models = {SENTINEL_NAME: "s.onnx", **{f"m{i}": f"{i}.onnx" for i in range(12)}}
    job = make_job(parse_device("cpu"), models, 6, 0, {"m3": 2})
    assert all(job.visits.count(f"m{i}") == (2 if i == 3 else 6) for i in range(12))
    assert job.visits[0] == job.visits[-1] == SENTINEL_NAME
    gaps = np.diff([i for i, name in enumerate(job.visits) if name == SENTINEL_NAME])
    assert gaps.max() <= 6
    assert job == make_job(parse_device("cpu"), models, 6, 0, {"m3": 2})
    assert job != make_job(parse_device("cpu"), models, 6, 1, {"m3": 2})
