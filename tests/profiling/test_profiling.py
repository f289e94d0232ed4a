"""Profiling: device specs, real profiles of this machine, kill and resume, jobs and their journals."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hwnas.errors import HwnasError
from hwnas.profiling.connections.connect import connect
from hwnas.profiling.names import SENTINEL_NAME
from hwnas.profiling.protocol import Job, JobValues, make_job
from hwnas.profiling.session import read_journal, run_job
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import SPACES, SizedSpace
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Entry, LatencyTable
from support.command import Run, assert_one_clear_line, hwnas_process, invoke, profile, timed
from support.noise import assert_timing
from support.short_timings import shorten_timings
from support.tables import make_table

SMALL_PROFILE = ("--space", "nasbench201", "--channels", 16, "--cells", 1, "--input", "3x32x32")
QUICK = ("--rounds", 4, "--fit-networks", 3, "--report-networks", 3)


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory, pieces: Path) -> Path:
    """A table of this machine, which no test changes."""
    out = tmp_path_factory.mktemp("profiled") / "t.json"
    with pytest.MonkeyPatch.context() as patch:
        shorten_timings(patch, pieces)
        profile(invoke, *SMALL_PROFILE, *QUICK, "--out", out)
    return out


@pytest.fixture
def out(profiled: Path, tmp_path: Path) -> Path:
    """A copy of the table that a test may change."""
    return Path(shutil.copy(profiled, tmp_path))


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


@pytest.mark.alone
@pytest.mark.end_to_end
def test_profile_of_this_machine(profiled: Path) -> None:
    assert_complete(profiled)


@pytest.mark.alone
@pytest.mark.end_to_end
def test_profile_of_torch_on_this_machine(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use few rounds and no further processes, because each imports torch."""
    monkeypatch.setattr("hwnas.profiling.plan.MOST_PROCESSES", 1)
    out = tmp_path / "t.json"
    short = ("--rounds", 3, "--fit-networks", 2, "--report-networks", 3)
    profile(run, *SMALL_PROFILE, *short, "--device", "cpu+torch", "--out", out)
    assert_complete(out)


def assert_complete(out: Path) -> None:
    table = read_table(out)
    assert len(table.entries) == 19  # with a ReLU of each of three sizes
    assert next(iter(table.quality.additivity.values())).networks == 3
    assert list(out.parent.iterdir()) == [out]
    by_op = {(e.op, e.out_channels): e.latency_ms for e in table.entries}
    assert_timing(all(entry.latency_ms > 0 for entry in table.entries), table)
    assert_timing(by_op["nor_conv_3x3", 16] > by_op["sum", 16], table)


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.usefixtures("short_timings")
def test_profile_keeps_what_a_table_already_holds(run: Run, out: Path) -> None:
    first = {e.workload: e for e in read_table(out).entries}
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
    arguments = ("profile", "--accept-noise", *SMALL_PROFILE, "--rounds", 8, *QUICK[2:], "--out", out)
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


@pytest.mark.alone
@pytest.mark.end_to_end
def test_ctrl_c_prints_how_to_resume(tmp_path: Path) -> None:
    process = hwnas_process(
        "profile", "--accept-noise", *SMALL_PROFILE, "--rounds", 30, *QUICK[2:], "--out", tmp_path / "t.json"
    )
    while process.poll() is None and not list(tmp_path.glob("t.json.partial/*/pass0.jsonl")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output = process.communicate()[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "hwnas: interrupted; run the same command again to resume"
    assert "Traceback" not in output


def on_a_busy_machine(*arguments: Any) -> JobValues:
    """Run the job, and say of each run that other programs held the processor."""
    values = run_job(*arguments)
    return replace(values, runs=[replace(run, waited=0.9) for run in values.runs])


@pytest.mark.alone
@pytest.mark.end_to_end
def test_a_busy_machine_is_refused_and_nothing_is_lost(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is said to be busy, for burning it does not disturb every scheduler. The second command finishes."""
    monkeypatch.setattr("hwnas.profiling.noise.PAUSE_S", 0.1)
    out, short = tmp_path / "t.json", (*SMALL_PROFILE, "--rounds", 3, *QUICK[2:])
    with monkeypatch.context() as patch:
        patch.setattr("hwnas.profiling.noise.run_job", on_a_busy_machine)
        result = run("profile", *short, "--out", out)
    assert_one_clear_line(result, "too noisy", "held the processor in 100% of the runs", "stop other programs")
    assert not out.exists()
    assert profile(run, *short, "--out", out).quality.additivity


@pytest.mark.alone
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


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.usefixtures("short_timings")
def test_a_table_is_checked_against_its_device(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.profiling.check.check_quiet", lambda *_: None)  # how noisy this machine is, is no matter
    monkeypatch.setattr("hwnas.profiling.check.ROUNDS", 3)
    table = read_table(out)
    result = timed(run, "table", "check", out, "--json")
    told = json.loads(result.stdout)
    assert len(told["entries"]) == 19
    assert result.exit_code == (0 if told["describes"] else 1)
    # The same table, as if every entry had been ten times as fast.
    faster = [e.model_copy(update={"latency_ms": e.latency_ms / 10, "error_ms": 0.0}) for e in table.entries]
    write_table(out, table.model_copy(update={"entries": faster}))
    result = timed(run, "table", "check", out, "--entries", 4)
    assert result.exit_code == 1, result.output
    assert "entries differ beyond their errors" in result.output
    assert "hwnas profile" in result.output.splitlines()[-1]
    # Another machine's table.
    device = table.device.model_copy(update={"name": "another", "fingerprint": "0"})
    write_table(out, table.model_copy(update={"device": device}))
    result = timed(run, "table", "check", out, "--entries", 2, "--json")
    assert result.exit_code == 1
    assert any("the device was another" in problem for problem in json.loads(result.stdout)["problems"])
    made_up = make_table(SizedSpace(SPACES["nasbench201"], SPACES["nasbench201"].setting("cifar")))
    write_table(out, made_up.model_copy(update={"provenance": "measured"}))
    assert_one_clear_line(run("table", "check", out), "hwnas profile")


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.usefixtures("short_timings")
def test_unstable_entries_are_measured_again(run: Run, out: Path) -> None:
    table = read_table(out)
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
