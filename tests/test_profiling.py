"""Profiling: arithmetic on made-up readings, device specs, real profiles of this machine, kill and resume."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Run, assert_one_clear_line, hwnas_process
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.export.verify import half_interval
from hwnas.profiling.device import parse_device
from hwnas.profiling.models import is_chainable, repetitions, timed_module
from hwnas.profiling.session import SENTINEL_NAME, Visit, make_job, run_job
from hwnas.profiling.statistics import correct_drift, fit_correction, report_additivity, slope
from hwnas.spaces import SPACES
from hwnas.tables.io import read_table

SMALL_PROFILE = ("--space", "nasbench201", "--channels", 4, "--cells", 1, "--input", "3x16x16")
QUICK = ("--rounds", 3, "--fit-networks", 3, "--report-networks", 3)


def test_drift_is_divided_out() -> None:
    """A machine that slows down by half in the middle, a model that takes 3 ms and a sentinel that takes 1 ms."""
    visits = []
    for number in range(300):
        speed = 1.0 if number < 150 else 1.5
        name, true_ms = (SENTINEL_NAME, 1.0) if number % 3 == 0 else ("model", 3.0)
        visits.append(Visit(name, true_ms * speed, true_ms * speed))
    timings = correct_drift(visits, reference_ms=1.0)
    assert np.median(timings.rounds_ms["model"]) == pytest.approx(3.0, rel=1e-6)
    assert np.percentile(np.abs(timings.rounds_ms["model"] - 3.0), 95) < 0.2
    assert timings.drift == pytest.approx(0.5, abs=0.01)


@given(st.floats(0.001, 10), st.floats(0, 5), st.integers(1, 20))
def test_slope_finds_the_latency_of_one_copy(copy_ms: float, overhead_ms: float, more: int) -> None:
    few = np.full(9, overhead_ms + 4 * copy_ms)
    many = np.full(9, overhead_ms + (4 + more) * copy_ms)
    assert slope(few, many, more).median_ms == pytest.approx(copy_ms, rel=1e-6, abs=1e-9)


def test_correction_is_recovered_and_reported() -> None:
    sums = np.linspace(1, 5, 12)
    correction = fit_correction(sums, 0.3 + 1.2 * sums)
    assert (correction.offset_ms, correction.scale) == pytest.approx((0.3, 1.2))
    exact = report_additivity(sums, [np.array([s, s, s, s]) for s in sums])
    assert (exact.mape, exact.within_5_percent, exact.kendall_tau, exact.floor) == pytest.approx((0, 1, 1, 0), abs=1e-9)
    alike = report_additivity(np.ones(3), [np.array([s, s]) for s in (1.0, 2.0, 3.0)])
    assert alike.kendall_tau is None  # no order was predicted, so there is none to judge
    assert "undefined" in alike.describe()
    wrong = report_additivity(sums * 1.07, [np.array([s, s]) for s in sums])
    assert (wrong.mape, wrong.within_5_percent, wrong.within_10_percent) == pytest.approx((7, 0, 1))


def test_half_interval_is_student_t() -> None:
    # Mean 10, standard deviation 1, five readings: t(0.975, 4) = 2.7764 (any table of t).
    values = 10 + np.array([-1, -1, 0, 1, 1]) * np.sqrt(4 / 4)
    assert half_interval(values) == pytest.approx(2.7764 / np.sqrt(5), rel=1e-4)


@pytest.mark.parametrize("name", sorted(SPACES))
def test_every_workload_can_be_repeated(name: str) -> None:
    space = SPACES[name]
    for setting in space.settings.values():
        for workload in space.network(setting).workloads():
            few, many = repetitions(workload)
            assert 1 <= few < many
    small = space.setting(space.search_setting, channels=4, depth=1 if name == "nasbench201" else 3)
    for workload in space.network(small).workloads():
        module, inputs = timed_module(workload, 2, batch=3)
        result = module.eval()(*inputs)
        shapes = [r.shape for r in (result if isinstance(result, tuple) else (result,))]
        assert len(shapes) == (1 if is_chainable(workload) else 2)
        assert all(shape[:2] == (3, workload.out_channels) for shape in shapes)


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
    assert (spec.hardware, spec.runtime, spec.threads) == (hardware, runtime, threads)
    assert parse_device(spec.text) == spec


@pytest.mark.parametrize(
    "text", ["", "tpu", "cpu+abacus", "cpu?threads=0", "cpu?speed=9", "cuda:0+onnxruntime", "no.yaml"]
)
def test_device_specs_that_mean_nothing_are_refused(run: Run, tmp_path: Path, text: str) -> None:
    assert_one_clear_line(run("profile", *SMALL_PROFILE, "--out", tmp_path / "t.json", "--device", text))


def test_device_yaml_without_a_device_is_refused(run: Run, tmp_path: Path) -> None:
    for content in ("", "device: 3", "device: [", "name: x"):
        (tmp_path / "d.yaml").write_text(content)
        result = run("profile", *SMALL_PROFILE, "--out", tmp_path / "t.json", "--device", tmp_path / "d.yaml")
        assert_one_clear_line(result, "d.yaml")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_cuda_device_that_is_not_there_is_refused(run: Run, tmp_path: Path) -> None:
    result = run("profile", *SMALL_PROFILE, "--out", tmp_path / "t.json", "--device", "cuda:0+torch")
    assert_one_clear_line(result, "no CUDA device", "--device cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_profile_of_a_cuda_device(run: Run, tmp_path: Path) -> None:
    result = run("profile", *SMALL_PROFILE, *QUICK, "--out", tmp_path / "t.json", "--device", "cuda:0+torch")
    assert result.exit_code == 0, result.output
    assert read_table(tmp_path / "t.json").device.kind == "gpu"


@pytest.mark.end_to_end
@pytest.mark.parametrize("device", ["cpu", "cpu+torch"])
def test_profile_of_this_machine(run: Run, tmp_path: Path, device: str) -> None:
    out = tmp_path / "t.json"
    result = run("profile", *SMALL_PROFILE, *QUICK, "--out", out, "--device", device)
    assert result.exit_code == 0, result.output
    table = read_table(out)
    assert len(table.entries) == 16
    assert all(entry.latency_ms > 0 for entry in table.entries)
    by_op = {(e.op, e.out_channels): e.latency_ms for e in table.entries}
    assert by_op["nor_conv_3x3", 4] > by_op["sum", 4]
    assert next(iter(table.quality.additivity.values())).networks == 3
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.end_to_end
def test_profile_keeps_what_a_table_already_holds(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    assert run("profile", *SMALL_PROFILE, *QUICK, "--out", out).exit_code == 0
    first = {e.workload: e for e in read_table(out).entries}
    assert run("profile", *SMALL_PROFILE, *QUICK, "--classes", 7, "--out", out).exit_code == 0
    second = {e.workload: e for e in read_table(out).entries}
    new = set(second) - set(first)
    assert [workload.op for workload in new] == ["norm_relu_pool_linear"]
    assert all(second[workload] == entry for workload, entry in first.items())
    whole = out.read_bytes()
    assert run("profile", *SMALL_PROFILE, *QUICK, "--out", out).exit_code == 0
    assert out.read_bytes() == whole  # nothing was lacking
    other = run("profile", *SMALL_PROFILE, *QUICK, "--device", "cpu?threads=2", "--out", out)
    assert_one_clear_line(other, "another device or runtime", "--out")


@pytest.mark.end_to_end
def test_profile_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "t.json"
    arguments = ("profile", *SMALL_PROFILE, "--rounds", 12, "--fit-networks", 3, "--report-networks", 3, "--out", out)
    process = hwnas_process(*arguments)
    visits = 0
    while process.poll() is None and visits < 100:
        journals = list(tmp_path.glob("t.json.partial/*/journal.jsonl"))
        visits = journals[0].read_text().count('"event": "visit"') if journals else 0
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = next(tmp_path.glob("t.json.partial/*/journal.jsonl")).read_text()
    kept = kept[: kept.rfind("\n") + 1]  # a torn last line is dropped
    assert not out.exists()
    again = hwnas_process(*arguments)
    seen = ""
    while again.poll() is None:
        journals = list(tmp_path.glob("t.json.partial/*/journal.jsonl"))
        if journals:
            try:
                seen = journals[0].read_text()
            except FileNotFoundError:
                break
        time.sleep(0.01)
    assert again.wait() == 0, again.communicate()[0]
    assert seen.startswith(kept)
    assert seen.count('"event": "visit"') > kept.count('"event": "visit"') >= 100
    assert len(read_table(out).entries) == 16
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.end_to_end
def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    process = hwnas_process("profile", *SMALL_PROFILE, "--rounds", 30, "--out", tmp_path / "t.json")
    while process.poll() is None and not list(tmp_path.glob("t.json.partial/*/journal.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "hwnas: interrupted; the same command goes on from here"
    assert "Traceback" not in output


def test_a_profiler_that_fails_is_one_clear_error(tmp_path: Path) -> None:
    spec = parse_device("cpu")
    (tmp_path / "bad.onnx").write_bytes(b"this is no model")
    job = make_job(spec, {SENTINEL_NAME: "bad.onnx"}, rounds=1)
    with pytest.raises(HwnasError, match=r"onnxruntime_cpu.py failed") as caught:
        run_job(spec, job, tmp_path, lambda done: None)
    assert "\n" not in str(caught.value)


def test_a_torn_or_foreign_journal_is_not_believed(tmp_path: Path) -> None:
    from hwnas.profiling.session import _read_journal

    journal = tmp_path / "journal.jsonl"
    visit = '{"event": "visit", "visit": 0, "model": "m", "runs": 3, "min_ms": 1.0, "median_ms": 1.0}'
    journal.write_text('{"event": "job", "sha256": "mine"}\n' + visit + '\n{"event": "vis')
    assert len(_read_journal(journal, "mine").visits) == 1
    assert len(_read_journal(journal, "other").visits) == 0
    journal.write_text("garbage\n")
    assert len(_read_journal(journal, "mine").visits) == 0


def test_jobs_interleave_everything_with_the_sentinel() -> None:
    models = {SENTINEL_NAME: "s.onnx", **{f"m{i}": f"{i}.onnx" for i in range(12)}}
    job = make_job(parse_device("cpu"), models, rounds=6)
    assert all(job.visits.count(f"m{i}") == 6 for i in range(12))
    assert job.visits[0] == job.visits[-1] == SENTINEL_NAME
    gaps = np.diff([i for i, name in enumerate(job.visits) if name == SENTINEL_NAME])
    assert gaps.max() <= 6
    assert job.bounds[0] == 0
    assert job.bounds[-1] == len(job.visits)
    assert json.dumps(job.visits) == json.dumps(make_job(parse_device("cpu"), models, rounds=6).visits)
