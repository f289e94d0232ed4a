"""Sessions on a GPU, rehearsed: limits, failures, what comes back, what a later session resumes."""

from __future__ import annotations

import argparse
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer

from benchmarks.gpu import equality, process, records, returned
from benchmarks.gpu.cells import folder_of, history, remove_others
from benchmarks.gpu.plan import MOST_S, Places, Step, rehearsal, steps
from benchmarks.gpu.process import Ended
from benchmarks.gpu.returned import MOST_BYTES, MOST_FILES, keep, restore
from benchmarks.gpu.run import show
from benchmarks.gpu.session import run_session
from hwnas.cli import app
from hwnas.errors import HwnasError
from support.paths import ROOT

MACHINE = {"python": "3.12.3", "gpu": {"driver": "580.159.03"}}


def places_in(folder: Path) -> Places:
    places = Places(folder / "out", folder / "work")
    places.out.mkdir(parents=True)
    places.work.mkdir(parents=True)
    return places


def step(name: str, program: str, limit_s: float = 30.0, resumable: bool = False) -> Step:
    return Step(name, f"step {name}", limit_s, (sys.executable, "-S", "-c", program), resumable)


def is_running(number: str) -> bool:
    """Return whether a process runs; one that has ended may wait to be collected."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@contextmanager
def over_once_written(file: Path) -> Iterator[None]:
    """Let the limit of the step that writes ``file`` be over once it has, and not before; other steps have no limit."""

    def wait(started: subprocess.Popen[bytes], limit_s: float) -> int | None:
        writes_it = str(file) in str(started.args)
        while started.poll() is None and not (writes_it and file.exists() and file.read_text()):
            time.sleep(0.01)
        return started.poll()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(process, "wait", wait)
        patch.setattr(process, "GRACE_S", 0.1)
        yield


def writes(places: Places, name: str, value: int) -> str:
    return f"open({str(places.result(name))!r}, 'w').write('{{\"value\": {value}}}')"


def test_a_step_that_fails_or_hangs_is_recorded_and_the_others_run(tmp_path: Path) -> None:
    """The one that hangs has started a process that ignores requests to end, and has written a first result."""
    places, pid = places_in(tmp_path), tmp_path / "pid"
    child = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        f"open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    )
    hangs = (
        f"{writes(places, 'hangs', 1)}; import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"
    )
    plan = [
        step("fails", "print('about to fail'); raise ValueError('a reason')"),
        step("hangs", hangs),
        step("works", writes(places, "works", 2)),
        Step("absent", "no such program", 30.0, (str(tmp_path / "no program"),)),
    ]
    with over_once_written(pid):
        run_session(plan, places, 600.0, MACHINE)
    found = {record["step"]: record for record in records.read(places.out)}
    assert {name: record["state"] for name, record in found.items()} == {
        "fails": "failed",
        "hangs": "overran",
        "works": "ok",
        "absent": "failed",
    }
    assert "about to fail" in found["fails"]["tail"]
    assert found["fails"]["tail"].endswith("ValueError: a reason")
    assert "FileNotFoundError" in found["absent"]["tail"]
    assert found["hangs"]["result"] == {"value": 1}
    assert found["works"]["result"] == {"value": 2}
    assert all(record["machine"] == MACHINE for record in found.values())
    while is_running(pid.read_text()):  # it has been killed, and ends as soon as it runs
        time.sleep(0.01)
    assert "a reason" in (places.out / "log.txt").read_text()


def test_an_interrupted_step_resumes_from_what_came_back(tmp_path: Path) -> None:
    """Each session counts on from the file that the one before left; the third finds every step done."""
    earlier: Path | None = None
    for number, expected in enumerate(("interrupted", "ok", None)):
        places = places_in(tmp_path / str(number))
        if earlier:
            restore(earlier, places)
        file = places.run("counts") / "count.txt"
        program = (
            f"import pathlib, time; file = pathlib.Path({str(file)!r}); file.parent.mkdir(exist_ok=True)\n"
            "before = int(file.read_text()) if file.exists() else 0\n"
            "file.write_text(str(before + 1))\n"
            "time.sleep(0 if before else 600)"
        )
        plan = [step("first", "pass"), step("counts", program, resumable=True)]
        before = records.read(places.out)
        with over_once_written(file) if number == 0 else nullcontext():
            run_session(plan, places, 600.0, MACHINE, records.finished(before))
        new = records.read(places.out)[len(before) :]
        assert [record["step"] for record in new] == [["first", "counts"], ["counts"], []][number]
        assert (new[-1]["state"] if new else None) == expected
        if number < 2:
            assert file.read_text() == str(number + 1)
        earlier = places.out


def test_time_is_shared_as_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumable step gets what the limits after it leave; a step without time is left out."""
    now, given = [0.0], {}

    def runs(command: Any, limit_s: float, log: Path, environment: Any) -> Ended:
        given[command[0]] = limit_s
        now[0] += limit_s
        return Ended(0, limit_s, "")

    monkeypatch.setattr("benchmarks.gpu.session.run_for", runs)
    plan = [
        Step(name, name, limit_s, (name,), resumable)
        for name, limit_s, resumable in (("a", 50, False), ("b", 20, True), ("c", 30, True), ("d", 40, False))
    ]
    places = places_in(tmp_path)
    run_session(plan, places, 205.0, {}, clock=lambda: now[0])
    assert given == {"a": 50, "b": 80, "c": 30, "d": 40}
    given.clear()
    now[0] = 0.0
    run_session(plan, places, 205.0, {}, done={"a", "c"}, clock=lambda: now[0])
    assert given == {"b": 160, "d": 40}
    given.clear()
    now[0] = 0.0
    run_session(plan, places, 56.0, {}, clock=lambda: now[0])
    assert given == {"a": 50}
    assert [record["state"] for record in records.read(places.out)[-3:]] == ["left out"] * 3


def test_the_plan_fits_and_the_rehearsal_has_its_steps(tmp_path: Path) -> None:
    places = Places(tmp_path / "out", tmp_path / "work")
    plan, tiny = steps(places), rehearsal(places)
    text = show(plan)
    total = float(text.splitlines()[-1].split()[2])
    assert total <= MOST_S == 11 * 60
    assert all(step.name in text for step in plan)
    assert [(s.name, s.limit_s, s.resumable) for s in plan] == [(s.name, s.limit_s, s.resumable) for s in tiny]
    for s in tiny:
        assert s.name == "tests" or "benchmarks.gpu.pretended" in s.command or "cpu+torch" in s.command


def test_the_searches_of_the_plan_have_options_of_the_command(tmp_path: Path) -> None:
    """Parse their words as ``hwnas search`` does."""
    command = typer.main.get_command(app).commands["search"]  # type: ignore[attr-defined]
    for plan, epochs in ((steps, [50, 100]), (rehearsal, [2, 2])):
        words = [list(s.command) for s in plan(Places(tmp_path / "out", tmp_path / "work")) if "hwnas" in s.command]
        found = [command.make_context("search", w[w.index("search") + 1 :]).params for w in words]
        assert [options["epochs"] for options in found] == epochs
        assert {options["compute"] for options in found} == {"cuda"}
        assert all(options["budget"] == ["mild", "moderate", "aggressive"] for options in found)


def test_what_comes_back_is_small_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is divided; of a finished run only what people read returns; what has no room is named."""
    assert MOST_FILES <= 8
    assert MOST_BYTES <= 16_000_000
    monkeypatch.setattr(returned, "MOST_BYTES", 10_000)
    places = places_in(tmp_path)
    generator = np.random.default_rng(0)
    for name, size in (("snas", 20_000), ("drnas", 1000), ("cells", 50_000)):
        places.run(name).mkdir()
        (places.run(name) / "checkpoint.pt").write_bytes(generator.bytes(size))
        (places.run(name) / "network.onnx").write_bytes(b"large")
    (places.run("drnas") / "summary.json").write_text("{}")
    (places.work / "darts_cuda.json").write_text("{}")
    records.write(places.out, {"step": "drnas", "state": "ok"})
    (places.run("snas") / "summary.json").write_text("{}")  # interrupted right before its end
    finished = {"snas": False, "drnas": True, "cells": False}
    assert [keep(places, name, over) for name, over in finished.items()] == [True, True, False]
    files = list(places.out.iterdir())
    assert len(files) <= MOST_FILES
    assert max(file.stat().st_size for file in files) <= 10_000
    later = places_in(tmp_path / "later")
    restore(places.out, later)
    content = (places.run("snas") / "checkpoint.pt").read_bytes()
    assert (later.run("snas") / "checkpoint.pt").read_bytes() == content
    assert [file.name for file in later.run("drnas").iterdir()] == ["summary.json"]
    assert (later.work / "darts_cuda.json").exists()
    assert records.finished(records.read(later.out)) == {"drnas"}


def test_steps_of_earlier_sessions_come_back_from_every_later_one(tmp_path: Path) -> None:
    """Three sessions, each of one other step; the files of the first return from the third as they were."""
    names = ("snas", "drnas", "cells")
    before: dict[str, bytes] = {}
    for number, name in enumerate(names):
        places = places_in(tmp_path / str(number))
        restore(tmp_path / str(number - 1) / "out", places)
        if number == 0:
            (places.work / "darts_cuda.json").write_text("{}")
        file = places.run(name) / "metrics.jsonl"
        plan = [step(name, f"import os; os.makedirs({str(file.parent)!r}); open({str(file)!r}, 'w').write('{name}')")]
        run_session(plan, places, 60.0, MACHINE)
        found = {file.name: file.read_bytes() for file in places.out.iterdir()}
        assert {f"{name}.tar.gz.00" for name in names[: number + 1]} | {"darts_cuda.json"} <= set(found)
        assert {name: found[name] for name in before} == before
        before = {name: content for name, content in found.items() if name not in (records.FILE, records.LOG)}
        assert [record["step"] for record in records.read(places.out)] == list(names[: number + 1])
    last = places_in(tmp_path / "last")
    restore(places.out, last)
    assert [(last.run(name) / "metrics.jsonl").read_text() for name in names] == list(names)


def test_a_step_without_room_leaves_what_came_back_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that has become smaller leaves no old part."""
    monkeypatch.setattr(returned, "MOST_BYTES", 1000)
    places = places_in(tmp_path)
    places.run("snas").mkdir()
    checkpoint = places.run("snas") / "checkpoint.pt"
    noise = np.random.default_rng(0)
    checkpoint.write_bytes(noise.bytes(2500))
    assert keep(places, "snas", finished=False)
    before = {file.name: file.read_bytes() for file in places.out.iterdir()}
    assert sorted(before) == [f"snas.tar.gz.{number:02}" for number in range(3)]
    checkpoint.write_bytes(noise.bytes(6000))
    assert not keep(places, "snas", finished=False)
    assert {file.name: file.read_bytes() for file in places.out.iterdir()} == before
    checkpoint.write_bytes(noise.bytes(100))
    assert keep(places, "snas", finished=False)
    assert [file.name for file in places.out.iterdir()] == ["snas.tar.gz.00"]


def test_what_a_newer_session_wrote_is_never_replaced(tmp_path: Path) -> None:
    """A second call with the same pack and OUT; one whose work is lost; ones that continue another session."""
    packed, places = places_in(tmp_path / "packed"), places_in(tmp_path)

    def writes_run(of: Places, name: str, state: str) -> None:
        of.run("snas").mkdir(exist_ok=True)
        (of.run("snas") / "checkpoint.pt").write_text(state)
        (of.work / "darts_cuda.json").write_text(state)
        assert keep(of, "snas", finished=False)
        records.write(of.out, {"step": name, "state": "ok", "of": state})

    writes_run(packed, "snas", "old")
    records.write(places.out, {"step": records.SET_UP, "state": "failed"})
    restore(packed.out, places)
    assert [record["state"] for record in records.read(places.out)] == ["ok", "failed"]
    assert (places.run("snas") / "checkpoint.pt").read_text() == "old"
    writes_run(places, "snas", "new")
    (places.run("snas") / "checkpoint.pt").write_text("newest, not yet returned")
    before = {file.name: file.read_bytes() for file in places.out.iterdir()}
    restore(packed.out, places)
    assert {file.name: file.read_bytes() for file in places.out.iterdir()} == before
    assert (places.run("snas") / "checkpoint.pt").read_text() == "newest, not yet returned"
    assert (places.work / "darts_cuda.json").read_text() == "new"
    moved = Places(places.out, tmp_path / "another work")
    moved.work.mkdir()
    restore(packed.out, moved)
    assert (moved.run("snas") / "checkpoint.pt").read_text() == "new"
    assert {file.name: file.read_bytes() for file in places.out.iterdir()} == before
    with pytest.raises(HwnasError, match="lacks records that are in"):
        restore(places.out, packed)
    other = Places(tmp_path / "other", places.work)
    other.out.mkdir()
    with pytest.raises(HwnasError, match="session without records"):
        restore(packed.out, other)
    assert not list(other.out.iterdir())


def test_the_result_of_a_step_is_provisional_until_the_one_that_it_builds_on_has_finished(tmp_path: Path) -> None:
    """The search is interrupted in the first session; each session trains what it has found, the last one nothing."""
    trained = []
    for number in range(3):
        places = places_in(tmp_path / str(number))
        restore(tmp_path / str(number - 1) / "out", places)
        cells = places.run("cells")
        ends = "" if number else "raise SystemExit(1)"
        train = (
            f"import pathlib as p; f = p.Path({str(cells)!r}); f.mkdir(exist_ok=True); (f / 'train.pt').write_text('')"
        )
        plan = [step("snas", ends), replace(step("cells", train, resumable=True), builds_on="snas")]
        before = records.read(places.out)
        run_session(plan, places, 600.0, MACHINE, records.finished(before))
        trained.append([(record["step"], record["state"]) for record in records.read(places.out)[len(before) :]])
        if number == 0:
            later = places_in(tmp_path / "later")
            restore(places.out, later)
            assert (later.run("cells") / "train.pt").exists()  # the checkpoints of cells that stay the same
    assert trained == [[("snas", "failed"), ("cells", "provisional")], [("snas", "ok"), ("cells", "ok")], []]


def test_a_step_whose_folder_is_not_returned_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> bool:
        raise OSError("no space left on device")

    places = places_in(tmp_path)
    for does in (fails, lambda *arguments: False):
        monkeypatch.setattr("benchmarks.gpu.session.keep", does)
        run_session([step("snas", "")], places, 600.0, MACHINE)
    first, second = records.read(places.out)
    assert first["state"] == second["state"] == "ok"
    assert "no space left on device" in first["not_returned"]
    assert second["not_returned"] == "the folder of snas had no room"
    assert records.finished([first, second]) == set()


def test_equality_needs_a_reference_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    arguments, state = argparse.Namespace(), {"weight": torch.ones(2)}
    for devices, fails in (((gpu, gpu), True), ((cpu, cpu), True), ((cpu, gpu), True), ((gpu, cpu), False)):
        given = dict(zip(("cuda", "cpu"), devices, strict=True))
        monkeypatch.setattr(equality, "steps", lambda arguments, compute, dtype, given=given: (given[compute], state))
        with pytest.raises(HwnasError, match="no reference") if fails else nullcontext():
            row = equality.compare(arguments, "darts", torch.float64)
    assert (row["device"], row["reference"], row["difference"]) == ("cuda:0", "cpu", 0.0)
    equality.require_equal([row, {**row, "dtype": "torch.float32", "difference": 1e-3}])
    for difference in (1e-3, math.nan):
        with pytest.raises(HwnasError, match=r"darts differs by .* in float64, in weight"):
            equality.require_equal([{**row, "difference": difference}])


def test_a_training_belongs_to_its_architecture(tmp_path: Path) -> None:
    """Rows of all sessions are read; checkpoints of other architectures of the budget are removed, rows are not."""
    old, new = (folder_of(tmp_path, "mild", written) for written in ("one cell", "another cell"))
    assert old != new
    assert old == folder_of(tmp_path, "mild", "one cell")
    assert history(new) == []
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "train.pt").write_bytes(b"weights")
        (folder / "training.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
    remove_others(tmp_path, [new])
    assert [(folder / "train.pt").exists() for folder in (old, new)] == [False, True]
    assert history(old) == history(new) == [{"epoch": 1}, {"epoch": 2}]


def support_of(file: Path) -> set[str]:
    """Return the modules of tests/support that a file imports, and those that these import."""
    found: set[str] = set()
    left = [file]
    while left:
        names = set(re.findall(r"^\s*from support\.(\w+) import", left.pop().read_text(), re.MULTILINE)) - found
        found |= names
        left += [ROOT / f"tests/support/{name}.py" for name in names]
    return found


def test_the_tests_of_a_session_do_not_register_the_simulated_device(tmp_path: Path) -> None:
    """Torch would pin memory for it instead of for the GPU."""
    (command,) = (step.command for step in steps(Places(tmp_path, tmp_path)) if step.name == "tests")
    files = [ROOT / word for word in command if word.startswith("tests/")]
    assert len(files) == 3
    for file in (*files, ROOT / "tests/conftest.py"):
        assert not {"accelerator", "simulated"} & support_of(file)
    assert "accelerator" in support_of(ROOT / "tests/training/test_train_command.py")


@pytest.fixture
def rehearse(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """Rehearse steps by the script itself, as on a machine with a GPU; return their records."""

    def run(*names: str, seconds: int = 600) -> list[dict[str, Any]]:
        command = ["bash", "benchmarks/gpu/run.sh", str(tmp_path / "out"), str(seconds), "--rehearse", "--only", *names]
        environment = {
            **os.environ,
            "PYTHON": sys.executable,
            "GPU_PACK": str(tmp_path / "pack"),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return records.read(tmp_path / "out")

    return run


@pytest.mark.alone
@pytest.mark.end_to_end
def test_every_step_of_the_plan_is_rehearsed(rehearse: Callable[..., list[dict[str, Any]]], tmp_path: Path) -> None:
    """In the time that the plan gives, as a session on a GPU has it."""
    names = [step.name for step in steps(Places(tmp_path, tmp_path))]
    found = {record["step"]: record for record in rehearse(*names, seconds=MOST_S)}
    assert {name: record["state"] for name, record in found.items()} == dict.fromkeys(names, "ok"), [
        record["tail"] for record in found.values() if record["state"] != "ok"
    ]
    rows = found["equality"]["result"]["rows"]
    assert [(row["space"], row["dtype"]) for row in rows] == [
        (space, f"torch.float{bits}") for space in ("nasbench201", "darts") for bits in (32, 64)
    ]
    assert {(row["device"], row["reference"]) for row in rows} == {("pretended:0", "cpu")}
    assert max(row["difference"] for row in rows) < 1e-4
    assert any(row["difference"] for row in rows)  # edges are fused in another way
    for record in found.values():
        assert record["machine"]["packages"]["torch"]
        assert record["seconds"] < record["limit_s"]
    networks = found["cells"]["result"]["networks"]
    assert {"DARTS_V2", "mild", "moderate", "aggressive"} == set(networks)
    assert all(len(network["epochs"]) == 1 for network in networks.values())
