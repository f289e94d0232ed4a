"""The whole workflow: the demo, and a search on CIFAR-10 images."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from hwnas.tables.io import read_table
from support.command import Run, timed
from support.noise import assert_timing
from support.paths import SHARED


@pytest.mark.alone
@pytest.mark.documentation
@pytest.mark.end_to_end
def test_demo_writes_networks_within_three_budgets(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = timed(run, "demo", "--out", "runs/demo")
    # Exit code 1 means that a network breaks its budget as timed on this machine; the files are complete either way.
    assert result.exit_code in (0, 1), result.output
    summary = json.loads((tmp_path / "runs/demo/summary.json").read_text())
    targets = summary["targets"]
    assert [t["budget"] for t in targets] == ["mild", "moderate", "aggressive"]
    assert (result.exit_code == 0) == all(t["kept"] for t in targets)
    table = read_table(tmp_path / "runs/demo/table.json")
    for target in targets:
        assert target["predicted_ms"] <= target["budget_ms"]
        assert_timing(0.4 < target["measured_ms"] / target["predicted_ms"] < 2.5, table)
        assert target["macs"] > 0
        assert target["params"] > 0
        assert target["accuracy"] > 0.8  # chance is 0.1
        assert target["parity"]["same_class"] == 1.0
        file = tmp_path / target["onnx"]
        onnx.checker.check_model(str(file), full_check=True)
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        assert session.run(None, {"image": np.zeros((3, 3, 32, 32), np.float32)})[0].shape == (3, 10)
        metadata = {p.key: p.value for p in onnx.load(file).metadata_props}
        assert metadata["hwnas.budget"] == target["budget"]
        assert metadata["hwnas.table_sha256"] == summary["tables"]["profile"]
        assert metadata["hwnas.table_sha256"] == json.loads((tmp_path / "runs/demo/table.json").read_text())["sha256"]
        assert json.loads(metadata["hwnas.labels"]) == [str(d) for d in range(10)]
        assert set(json.loads(metadata["hwnas.normalisation"])) == {"scale", "mean", "std"}
        assert float(metadata["hwnas.predicted_latency_ms"]) == target["predicted_ms"]
        compared = {network["name"]: network for network in target["comparison"]}
        assert compared["found"]["validation_loss"] <= compared["random"]["validation_loss"]
        used = compared["found"]["share"]
        assert (
            used >= 0.8
            or f"{target['budget']} uses {used:.0%} of its budget, with a validation loss of" in result.stderr
        )
    by_name = {t["budget"]: t["predicted_ms"] for t in targets}
    budgets = {t["budget"]: t["budget_ms"] for t in targets}
    assert budgets["aggressive"] < budgets["moderate"] < budgets["mild"]
    assert max(by_name.values()) <= budgets["mild"]


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.skipif(not SHARED.exists(), reason="the CIFAR-10 images are not beside this checkout")
def test_search_on_cifar10_images_keeps_three_budgets(run: Run, tmp_path: Path, measured: Path) -> None:
    """Search on some of the CIFAR-10 images, at half their size, with networks timed on this machine."""
    wanted: dict[str, int] = {}
    with tarfile.open(SHARED / "cifar10-images.tar.gz") as archive:
        for member in archive:
            folder = str(Path(member.name).parent)
            if member.isfile() and wanted.get(folder, 0) < (40 if "train" in folder else 10):
                wanted[folder] = wanted.get(folder, 0) + 1
                archive.extract(member, tmp_path, filter="data")
    images = next(path.parent for path in tmp_path.rglob("train") if path.is_dir())
    out = tmp_path / "run"
    budgets = ("--budget", "mild", "--budget", "moderate", "--budget", "aggressive")
    sizes = ("--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 2, "--child-epochs", 1)
    command = (
        "--table",
        measured,
        "--data",
        f"imagefolder:{images}?size=16",
        *sizes,
        *budgets,
        "--verify",
        "--out",
        out,
    )
    result = timed(run, "search", *command, "--json")  # after a noisy attempt only the networks are timed again
    assert result.exit_code in (0, 1), result.output
    targets = json.loads(result.stdout)["targets"]
    for target in targets:
        assert target["predicted_ms"] <= target["budget_ms"]
        assert target["kept"] == (target["measured_ms"] <= target["budget_ms"] + target["measured_error_ms"])
    assert (result.exit_code == 0) == all(t["kept"] for t in targets)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["recipe"]["seed"] == 0
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 6
