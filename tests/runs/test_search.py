"""Whole searches by the command line: files, resumption, several devices, what is refused."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from safetensors.torch import load_file

from hwnas.cost.build import build_metrics
from hwnas.cost.model import build_cost_models
from hwnas.spaces import SPACES, SizedSpace
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Correction
from support.command import Run, assert_one_clear_line, hwnas_process, timed
from support.noise import assert_timing
from support.searches import FEW_SEARCH, RUN, SMALL_SEARCH, fingerprint
from support.spaces import SMALL
from support.tables import make_table


@pytest.mark.end_to_end
def test_search_killed_again_and_again_ends_bit_identical(tmp_path: Path, table_file: Path) -> None:
    def arguments(out: Path) -> tuple[object, ...]:
        return ("search", "--table", table_file, *SMALL_SEARCH, *RUN, "--out", out)

    whole = hwnas_process(*arguments(tmp_path / "whole"))
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    killed, out = 0, tmp_path / "killed"
    moments = [("checkpoint.pt", 0.05), ("checkpoint.pt", 0.6), ("mild/train.pt", 0.1)]
    for file, delay in moments:
        process = hwnas_process(*arguments(out))
        while process.poll() is None and not (out / file).exists():
            time.sleep(0.005)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 2
    last = hwnas_process(*arguments(out))
    output = last.communicate()[0]
    assert last.returncode == 0, output
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    summary = json.loads((out / "summary.json").read_text())["targets"]
    assert [row["budget"] for row in summary] == ["mild", "aggressive,80%-params"]


@pytest.mark.alone
@pytest.mark.end_to_end
def test_a_finished_search_can_be_verified_trained_and_evaluated(run: Run, tmp_path: Path, measured: Path) -> None:
    table, out = measured, tmp_path / "run"
    arguments = ("search", "--table", table, *SMALL_SEARCH, "--epochs", 2, "--child-epochs", 3, "--budget", "90%")
    result = run(*arguments, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    assert row["predicted_ms"] <= row["budget_ms"]
    assert row["parity"]["same_class"] == 1.0
    place = out / "90pct"
    assert sorted(f.name for f in place.iterdir() if f.is_file()) == [
        "architecture.json", "derivations.json", "network.onnx", "train.pt", "training.jsonl", "weights.safetensors",
    ]  # fmt: skip
    content = json.loads((place / "architecture.json").read_text())
    assert content["table_sha256"] == read_table(table).sha256
    assert content["costs"]["latency_ms"] <= content["budget"]["limits"]["latency_ms"]

    verified = timed(run, "verify", out, "--json")
    (measured,) = json.loads(verified.stdout)["targets"]
    assert verified.exit_code == (0 if measured["kept"] else 1)
    assert_timing(0.3 < measured["measured_ms"] / row["predicted_ms"] < 3, read_table(table))

    before = json.loads(run("evaluate", place, "--json").stdout)["targets"][0]
    assert before["onnx_accuracy"] == pytest.approx(before["torch_accuracy"], abs=0.003)
    trained = run("train", out, "--epochs", 6, "--json")
    assert trained.exit_code == 0, trained.output
    after = json.loads(run("evaluate", out, "--json").stdout)["targets"][0]
    assert after["onnx_accuracy"] > max(before["onnx_accuracy"], 0.3)

    # A budget that the network cannot keep, written into the finished run, is found broken.
    content["budget"]["limits"]["latency_ms"] = measured["measured_ms"] / 10
    (place / "architecture.json").write_text(json.dumps(content))
    broken = timed(run, "verify", place)
    assert broken.exit_code == 1
    assert "NO" in broken.stdout


@pytest.mark.end_to_end
def test_one_search_serves_several_devices(run: Run, tmp_path: Path) -> None:
    """Two tables and two budgets give four networks from one supernet, each within its budget by its own table."""
    space, sizes = SPACES["nasbench201"], SMALL["nasbench201"]
    tables = {name: make_table(SizedSpace(space, sizes), seed) for seed, name in enumerate(("phone", "server"))}
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.json", table)
    out, base = tmp_path / "run", ("search", "--table", tmp_path / "phone.json", *FEW_SEARCH, "--child-epochs", 0)
    both = (*base, "--table", tmp_path / "server.json", "--epochs", 2, "--budget", "moderate", "--budget", "60%")
    result = run(*both, "--out", out)
    assert result.exit_code == 0, result.output
    assert "server 60%" in result.stdout
    rows = json.loads((out / "summary.json").read_text())["targets"]
    goals = [("phone", "moderate"), ("phone", "60%"), ("server", "moderate"), ("server", "60%")]
    assert [(row["device"], row["budget"]) for row in rows] == goals
    for row in rows:
        model = build_cost_models(tables[row["device"]], SizedSpace(space, sizes))["latency_ms"]
        assert row["predicted_ms"] == pytest.approx(model.predict(space.parse(row["architecture"])))
        assert row["predicted_ms"] <= row["budget_ms"]
    assert read_table(out / "tables" / "server.json") == read_table(tmp_path / "server.json")
    assert (out / "server_60pct" / "network.onnx").exists()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["device"], line["budget"]) for line in lines] == goals * 2
    evaluated = json.loads(run("evaluate", out, "--json").stdout)["targets"]
    assert [(row["device"], row["budget"]) for row in evaluated] == goals
    assert json.loads(run("evaluate", out / "phone_moderate", "--json").stdout)["targets"] == evaluated[:1]
    assert_one_clear_line(run("verify", out, "--device", "cpu"), "several devices", "phone, server")
    assert_one_clear_line(run("derive", out), "several devices", "folder of one network")
    derived = json.loads(run("derive", out / "server_60pct", "--json").stdout)["targets"]
    assert [t["architectures"][0]["architecture"] for t in derived] == [rows[3]["architecture"]]
    assert_one_clear_line(run("verify", out), "which is not this machine")
    twice = (*base, "--table", tmp_path / "phone.json", "--out", tmp_path / "other")
    assert_one_clear_line(run(*twice), "same file name")
    write_table(tmp_path / "darts.json", make_table(SizedSpace(SPACES["darts"], SMALL["darts"])))
    apart = (*base, "--table", tmp_path / "darts.json", "--space", "nasbench201", "--out", tmp_path / "other")
    assert_one_clear_line(run(*apart), "lacks")
    assert not (tmp_path / "other").exists()


@pytest.mark.end_to_end
def test_a_table_of_another_number_of_classes_serves_a_search_with_a_note(run: Run, tmp_path: Path) -> None:
    """Tables of seven and of five classes, images of ten."""
    ten = SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"])
    tables = {}
    for name, classes in (("phone", 7), ("server", 5)):
        known = ten.resized(classes=classes)
        correction = {known.key: Correction(offset_ms=0.1, scale=1.5, networks=2)}
        tables[name] = make_table(known, classes).model_copy(update={"correction": correction})
        write_table(tmp_path / f"{name}.json", tables[name])
    out, both = tmp_path / "run", [part for name in tables for part in ("--table", tmp_path / f"{name}.json")]
    once = ("--epochs", 1, "--child-epochs", 0, "--budget", "90%")
    searched = run("search", *both, *FEW_SEARCH, *once, "--classes", 10, "--out", out)
    assert searched.exit_code == 0, searched.output
    for name, classes in (("phone", 7), ("server", 5)):
        note = f"{name}: made for {classes} classes, not 10: the head is carried over by its size"
        assert searched.stderr.count(note) == 1
        assert run("derive", out / f"{name}_90pct").stderr.count(note.removeprefix(f"{name}: ")) == 1
        assert (out / "tables" / f"{name}.json").read_text() == (tmp_path / f"{name}.json").read_text()
    rows = json.loads((out / "summary.json").read_text())["targets"]
    for row in rows:
        model = build_metrics(tables[row["device"]], ten)["latency_ms"]
        assert row["predicted_ms"] == pytest.approx(model.predict(ten.space.parse(row["architecture"])))
    assert run("report", out, "--out", tmp_path / "page.html").exit_code == 0
    assert "made for 7 classes, not 10" in (tmp_path / "page.html").read_text()


@pytest.mark.end_to_end
def test_a_darts_search_writes_both_cells_and_counts_their_parameters(run: Run, tmp_path: Path) -> None:
    setting = replace(SMALL["darts"], height=8, width=8)
    write_table(tmp_path / "darts.json", make_table(SizedSpace(SPACES["darts"], setting)))
    arguments = ("--space", "darts", "--data", "digits?size=8", "--channels", 4, "--layers", 3)
    small = ("--recipe", "snas-short", "--epochs", 1, "--child-epochs", 1, "--batch-size", 256, "--budget", "90%")
    result = run("search", "--table", tmp_path / "darts.json", *arguments, *small, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    place = tmp_path / "run" / "90pct"
    assert sorted(f.name for f in (place / "cells").iterdir()) == ["normal.onnx", "reduce.onnx"]
    content = json.loads((place / "architecture.json").read_text())
    assert content["architecture"].count("(") - 3 == 28  # all edges, none among them
    sizes = ("--space", "darts", "--setting", "search", "--channels", 4, "--layers", 3)
    counted = run("space", "count", *sizes, "--architecture", content["architecture"], "--json")
    assert json.loads(counted.stdout)["params"] == content["costs"]["params"]
    shipped = load_file(place / "weights.safetensors")
    learnt = sum(t.numel() for n, t in shipped.items() if "running" not in n and "num_batches" not in n)
    assert learnt <= content["costs"]["params"]


@pytest.mark.end_to_end
def test_a_network_for_the_browser_is_written_for_its_runtime(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"]))
    web = table.runtime.model_copy(update={"name": "onnxruntime-web"})
    write_table(tmp_path / "web.json", table.model_copy(update={"runtime": web}))
    base = ("search", "--table", tmp_path / "web.json", *FEW_SEARCH, "--epochs", 1, "--child-epochs", 0)
    result = run(*base, "--budget", "90%", "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    assert row["parity"]["same_class"] == 1.0
    operations = [node.op_type for node in onnx.load(row["onnx"]).graph.node]
    assert "Max" in operations


@pytest.mark.slow
def test_search_refuses_inputs_that_do_not_fit(run: Run, tmp_path: Path, table_file: Path) -> None:
    base = ("search", "--table", table_file, *SMALL_SEARCH, "--out", tmp_path / "run")
    assert_one_clear_line(run(*base, "--space", "darts"), "lacks", "hwnas profile --space darts")
    assert_one_clear_line(run(*base, "--budget", "0.00001ms"), "cannot be met", "between")
    assert_one_clear_line(run(*base, "--budget", "mild", "--budget", "mild"), "same")
    assert_one_clear_line(run(*base, "--method", "luck"), "luck")
    assert_one_clear_line(run(*base, "--recipe", "cake"), "cake", "snas-short")
    assert_one_clear_line(run("search", "--table", tmp_path / "no.json", "--out", tmp_path / "run"), "no.json")
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    assert_one_clear_line(run(*base[:-1], tmp_path / "file" / "run"), "cannot write", "--out")
    profile = ("profile", "--channels", 4, "--cells", 1, "--out", tmp_path / "file" / "t.json")
    assert_one_clear_line(run(*profile), "cannot write|file", "--out")


@pytest.mark.slow
def test_folders_of_other_runs_and_damaged_checkpoints_are_refused(run: Run, tmp_path: Path, table_file: Path) -> None:
    out = tmp_path / "run"
    base = ("search", "--table", table_file, *FEW_SEARCH, "--epochs", 1, "--child-epochs", 0, "--out", out)
    assert run(*base).exit_code == 0
    assert_one_clear_line(run(*base, "--seed", 3), "other settings", "--out")
    checkpoint = out / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PK nonsense"):
        checkpoint.write_bytes(damaged)
        assert_one_clear_line(run(*base), "checkpoint.pt", "rm ")
    checkpoint.write_bytes(whole)
    weights = out / "moderate" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert_one_clear_line(run("train", out, "--epochs", 1), "weights.safetensors")
    (out / "moderate" / "network.onnx").write_bytes(b"nothing")
    assert_one_clear_line(run("evaluate", out), "network.onnx")
    assert_one_clear_line(run("verify", tmp_path), "no finished search")
    assert_one_clear_line(run("evaluate", out, "--split", "all"), "all")
