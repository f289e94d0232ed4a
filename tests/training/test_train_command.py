"""Children trained and evaluated by the command line: sizes, budgets, a killed training."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.export.network import file_network
from hwnas.files import sha256_of_file
from hwnas.networks.child import ChildNetwork
from hwnas.profiling.session import ask
from hwnas.progress import Progress
from hwnas.runs.train import train_run
from hwnas.runtimes.device_spec import parse_device
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from hwnas.training.recipe import read_training
from support.accelerator import WAITS
from support.command import Run, assert_one_clear_line, hwnas_process, timed
from support.simulated import simulated_gpu
from support.tables import make_table

SIZES = ("--channels", 4, "--cells", 1, "--data", "digits?size=16", "--recipe", "snas-short")
SEARCH = (*SIZES, "--epochs", 1, "--child-epochs", 1, "--batch-size", 256, "--budget", "90%")

# --- the command line ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search of nasbench201 at 4 channels, one cell a stage, with a synthetic table of this machine."""
    folder = tmp_path_factory.mktemp("searched")
    setting = Setting(channels=4, depth=1, height=16, width=16)
    table = make_table(SizedSpace(get_space("nasbench201"), setting))
    device = table.device.model_copy(update={"fingerprint": ask(parse_device("cpu")).device.fingerprint})
    write_table(folder / "cpu.json", table.model_copy(update={"device": device}))
    words = ("search", "--table", folder / "cpu.json", *SEARCH, "--out", folder / "run")
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture
def finished(searched: Path, tmp_path: Path) -> Path:
    """A copy of the finished search that a test may change."""
    return Path(shutil.copytree(searched, tmp_path / "run"))


@pytest.mark.end_to_end
def test_a_network_of_other_sizes_has_no_budget(run: Run, finished: Path) -> None:
    searched = {f.name: sha256_of_file(f) for f in (finished / "90pct").iterdir() if f.is_file()}
    base = ("train", finished, "--recipe", "nasbench201", "--channels", 6, "--layers", 1, "--batch-size", 256)
    assert_one_clear_line(run(*base, "--from-supernet"), "4 channels", "6 channels", "--from-scratch")
    assert_one_clear_line(run("train", finished, "--recipe", "imagenet-mobile"), "no setting 'imagenet-mobile'")
    assert_one_clear_line(run("train", finished, "--recipe", "cake"), "cake", "darts-cifar10")
    result = run(*base, "--epochs", 2, "--keep", "best", "--ema", 0.5)
    assert result.exit_code == 0, result.output
    assert "no budget is claimed" in result.stdout
    assert "recipe nasbench201: 2 epochs in float32" in result.stderr
    assert searched == {f.name: sha256_of_file(f) for f in (finished / "90pct").iterdir() if f.is_file()}
    place = finished / "90pct" / "nasbench201-6x1"
    assert sorted(f.name for f in place.iterdir() if f.is_file()) == [
        "architecture.json", "best.safetensors", "network.onnx", "training.jsonl", "weights.safetensors",
    ]  # fmt: skip
    content = json.loads((place / "architecture.json").read_text())
    assert (content["claims_budget"], content["training"]["exported"], content["child_epochs"]) == (False, "best", 2)
    assert not any("latency" in metric for metric in content["costs"])
    space = get_space("nasbench201")
    child = ChildNetwork(
        SizedSpace(space, Setting(**content["setting"])), space.parse(content["architecture"]), prune=True
    )
    assert content["costs"]["params"] >= sum(p.numel() for p in child.parameters())
    best = load_file(place / "best.safetensors")
    assert set(best) == set(child.state_dict())
    child.load_state_dict(best)
    images = torch.randn(5, 3, 16, 16)
    with torch.no_grad():  # what is exported are the best weights
        expected = child.eval()(images)
    torch.testing.assert_close(file_network(place / "network.onnx")(images), expected, rtol=1e-3, atol=1e-4)
    metadata = {p.key for p in onnx.load(place / "network.onnx").metadata_props}
    assert not {"hwnas.budget", "hwnas.predicted_latency_ms", "hwnas.table_sha256"} & metadata
    assert_one_clear_line(run("verify", place), "claims no budget", "--latency")

    evaluated = timed(run, "evaluate", place, "--latency", "--json")
    (row,) = json.loads(evaluated.stdout)["targets"]
    assert row["latency"][0]["device"] == "cpu"
    assert row["latency"][0]["measured_ms"] > 0
    further = run("train", place, "--epochs", 1, "--json")
    assert further.exit_code == 0, further.output
    (row,) = json.loads(further.stdout)["targets"]
    assert (row["child_epochs"], row["onnx"]) == (3, str(place / "network.onnx"))


@pytest.mark.end_to_end
def test_networks_trained_on_a_gpu_are_exported_and_evaluated_on_the_processor(finished: Path) -> None:
    recipe = read_training("quick", {"epochs": 1, "batch_size": 256, "ema": 0.9})
    WAITS.clear()
    with simulated_gpu():
        (row,) = train_run(finished, "quick", recipe, None, Progress(quiet=True))
    assert WAITS  # values were read from the simulated device
    assert row.parity
    assert row.parity.same_class == 1
    assert row.child_epochs == 2
    assert row.accuracy is not None


@pytest.mark.end_to_end
def test_a_training_starts_from_the_layers_of_a_file_that_fit(run: Run, finished: Path, tmp_path: Path) -> None:
    folder = finished / "90pct"
    before = load_file(folder / "weights.safetensors")
    (head,) = {name.rpartition(".")[0] for name, tensor in before.items() if tensor.dim() == 2}
    save_file({name: t for name, t in before.items() if not name.startswith(head)}, tmp_path / "body.safetensors")
    words = ("train", folder, "--weights", tmp_path / "body.safetensors", "--learning-rate", 1e-9, "--epochs", 1)
    assert_one_clear_line(run(*words, "--from-supernet"), "the run's weights and from a file")
    result = run(*words, "--batch-size", 256)
    assert result.exit_code == 0, result.output
    assert "body.safetensors fits" in result.stderr
    content = json.loads((folder / "pretrained.json").read_text())
    end = head.rpartition(".")[0]
    assert (set(content["unfit"]), {name.split(".0.")[0] for name in content["unused"]}) == ({end}, {end})
    assert content["sha256"] == sha256_of_file(tmp_path / "body.safetensors")
    after = load_file(folder / "weights.safetensors")
    for name, tensor in before.items():
        if tensor.dim() == 4:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-6)
        elif name.startswith(f"{head}.weight"):
            assert not torch.allclose(after[name], tensor, atol=1e-3)
    again = run("train", folder, "--from-scratch", "--epochs", 1, "--batch-size", 256)
    assert again.exit_code == 0, again.output
    assert not (folder / "pretrained.json").exists()


@pytest.mark.end_to_end
def test_a_training_learns_from_the_network_of_a_run(run: Run, finished: Path) -> None:
    folder = finished / "90pct"
    teacher = sha256_of_file(folder / "weights.safetensors")
    result = run("train", folder, "--teacher", finished, "--from-scratch", "--epochs", 1, "--batch-size", 256)
    assert result.exit_code == 0, result.output
    assert re.search(
        rf"teacher {finished}: validation \d+.\d%; its scores at temperature 4 have weight 0.9", result.stderr
    )
    training = json.loads((folder / "architecture.json").read_text())["training"]
    assert training["teacher_sha256"] == teacher
    assert training["settings"]["distillation"] == {"teacher": str(finished), "temperature": 4.0, "weight": 0.9}
    assert_one_clear_line(run("train", folder, "--teacher", "python:none:net"), "module none cannot be imported")


@pytest.mark.end_to_end
def test_the_searched_sizes_are_trained_in_place_and_evaluated(run: Run, finished: Path) -> None:
    place = finished / "90pct"
    before = json.loads((place / "architecture.json").read_text())
    scratch = ("--from-scratch", "--setting", "as-searched", "--epochs", 2)
    result = run("train", place, "--recipe", "nasbench201", *scratch, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    after = json.loads((place / "architecture.json").read_text())
    assert (after["claims_budget"], after["costs"]) == (True, before["costs"])
    assert row["predicted_ms"] == after["costs"]["latency_ms"]
    rows = [json.loads(line) for line in (place / "training.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"epoch", "loss", "learning_rate", "drop_path", "train_accuracy", "validation_accuracy"}
    assert [r["epoch"] for r in rows] == [1, 2]
    assert rows[-1]["validation_accuracy"] == row["validation_accuracy"]
    (summary,) = json.loads((finished / "summary.json").read_text())["targets"]
    assert summary["validation_accuracy"] == row["validation_accuracy"]

    table = finished / "confusion.csv"
    evaluated = run("evaluate", finished, "--split", "validation", "--confusion", table, "--json")
    (found,) = json.loads(evaluated.stdout)["targets"]
    assert found["torch_accuracy"] == pytest.approx(row["validation_accuracy"], abs=0.003)
    assert found["onnx_accuracy"] == pytest.approx(np.trace(found["onnx_confusion"]) / found["images"])
    assert found["onnx_accuracy"] <= found["onnx_top5_accuracy"] <= 1
    with table.open() as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["device", "budget", "runtime", "class", *(str(digit) for digit in range(10))]
    written = {name: [[int(n) for n in line[4:]] for line in lines if line[2] == name] for name in ("onnx", "torch")}
    assert written == {name: found[f"{name}_confusion"] for name in written}


@pytest.mark.end_to_end
def test_a_repeated_search_keeps_a_network_that_was_trained_since(run: Run, searched: Path, finished: Path) -> None:
    def files() -> dict[str, str]:
        return {f.name: sha256_of_file(f) for f in sorted((finished / "90pct").iterdir()) if f.is_file()}

    search, before = ("search", "--table", searched.parent / "cpu.json", *SEARCH, "--out", finished, "--json"), files()
    again = run(*search)
    assert again.exit_code == 0, again.output
    assert "kept" not in again.stderr
    assert files() == before
    assert run("train", finished, "--epochs", 1).exit_code == 0
    trained = files()
    assert trained["weights.safetensors"] != before["weights.safetensors"]
    again = run(*search)
    assert again.exit_code == 0, again.output
    assert files() == trained
    kept = rf"^90pct: `hwnas train` has trained its network since \(recipe quick\), .*kept; remove {finished}/90pct to"
    assert re.search(kept, again.stderr, re.MULTILINE), again.stderr
    assert json.loads(again.stdout)["targets"] == json.loads((finished / "summary.json").read_text())["targets"]
    assert json.loads(again.stdout)["targets"][0]["training"]["epochs"] == 1
    shutil.rmtree(finished / "90pct")
    assert run(*search).exit_code == 0
    for name in ("network.onnx", "weights.safetensors", "architecture.json"):
        assert files()[name] == before[name]


@pytest.mark.end_to_end
def test_killed_training_ends_bit_identical(finished: Path) -> None:
    """Compare a training whose process is killed with an uninterrupted one."""
    others = finished.parent / "others"
    others.mkdir()
    searched = (finished / "90pct" / "training.jsonl").read_bytes()
    kept = ("architecture.json", "weights.safetensors", "training.jsonl")
    for file in ("manifest.json", "table.json", *(f"90pct/{name}" for name in kept)):
        (others / file).parent.mkdir(exist_ok=True)
        (others / file).write_bytes((finished / file).read_bytes())

    def train(folder: Path) -> Any:
        options = ("--epochs", 4, "--batch-size", 64, "--ema", 0.9, "--keep", "best")
        return hwnas_process("train", folder, "--recipe", "quick", *options)

    whole = train(finished)
    assert whole.wait() == 0, whole.communicate()[0]
    process = train(others)
    while process.poll() is None and not list(others.glob("90pct/training-*/train.pt")):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert (others / "90pct" / "training.jsonl").read_bytes() == searched  # as long as its network is there
    last = train(others)
    assert last.wait() == 0, last.communicate()[0]
    for name in ("architecture.json", "best.safetensors", "weights.safetensors", "network.onnx", "training.jsonl"):
        assert sha256_of_file(others / "90pct" / name) == sha256_of_file(finished / "90pct" / name), name
    assert not list(others.glob("90pct/training-*"))
