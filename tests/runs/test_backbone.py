"""A user's own torch network from a table to a plain module: searched, derived, trained, written without hwnas."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.cost.model import build_cost_models
from hwnas.export.network import open_session
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.backbone import import_backbone
from hwnas.tables.io import write_table
from hwnas.tables.schema import Correction
from support.backbones import SMALL, WIDE
from support.command import Run, assert_one_clear_line, profile, timed
from support.few_digits import FEW_DIGITS
from support.tables import make_table

SPEC = "python:own_backbone:net"
SPACE = ("--space", SPEC, "--table", "table.json")
FEW = ("--data", FEW_DIGITS, "--epochs", 1, "--batch-size", 64)
WITHOUT_HWNAS = """
import sys
import numpy, torch
sys.path.insert(0, sys.argv[1])
from network import network
model = network().eval()
assert not [name for name in sys.modules if name.split(".")[0] == "hwnas"]
with torch.no_grad():
    numpy.save("scores.npy", model(torch.from_numpy(numpy.load("images.npy"))).numpy())
torch.save(model.state_dict(), "plain.pth")
"""


@pytest.fixture
def sized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SizedSpace:
    """A working directory with the small backbone and a made-up table of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_backbone", raising=False)
    Path("own_backbone.py").write_text(SMALL)
    import_backbone.cache_clear()
    found = SizedSpace.named(get_space(SPEC))
    correction = {found.key: Correction(offset_ms=0, scale=1, networks=0)}
    write_table(Path("table.json"), make_table(found).model_copy(update={"correction": correction}))
    return found


@pytest.mark.end_to_end
@pytest.mark.parametrize("method", ["snas", "random"])
def test_a_backbone_is_searched_and_comes_out_plain(method: str, run: Run, sized: SizedSpace) -> None:
    few = (*FEW, "--child-epochs", 1)
    result = run("search", *SPACE, *few, "--method", method, "--budget", "50%", "--out", "run")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(Path("run/summary.json").read_text())["targets"]
    chosen = sized.space.parse(row["architecture"])
    table = make_table(sized)
    assert row["predicted_ms"] == pytest.approx(build_cost_models(table, sized)["latency_ms"].predict(chosen))
    assert row["predicted_ms"] <= row["budget_ms"]
    assert row["parity"]["same_class"] == 1
    require_equal_scores("run/50pct")
    trained = run("train", "run", "--epochs", 1, "--weights", "plain.pth")
    assert trained.exit_code == 0, trained.output
    assert "100.0% of the parameters (the plain network's names)" in trained.output
    require_equal_scores("run/50pct")
    assert run("report", "run", "--out", "page.html").exit_code == 0


@pytest.mark.alone
@pytest.mark.end_to_end
@pytest.mark.usefixtures("short_timings")
def test_a_backbone_is_profiled_and_its_networks_verified(run: Run, sized: SizedSpace) -> None:
    """Layers that change the shape, depths and numbers of channels are timed on this machine."""
    Path("wide_backbone.py").write_text(WIDE)
    spec = "python:wide_backbone:net"
    few = ("--rounds", 3, "--fit-networks", 4, "--report-networks", 4)
    table = profile(run, "--space", spec, *few, "--out", "measured.json")
    wide = SizedSpace.named(get_space(spec))
    assert {entry.workload for entry in table.entries} == set(wide.network.workloads())
    assert table.quality.additivity[wide.key].networks == 4
    command = ("search", "--space", spec, "--table", "measured.json", *FEW, "--child-epochs", 0)
    result = run(*command, "--budget", "mild", "--out", "run")
    assert result.exit_code == 0, result.output
    verified = timed(run, "verify", "run", "--json")
    assert verified.exit_code in (0, 1), verified.output  # 1: a noisy machine kept no budget
    (row,) = json.loads(verified.stdout)["targets"]
    saved = json.loads(Path("run/mild/architecture.json").read_text())
    assert row["predicted_ms"] <= row["budget_ms"]
    assert row["predicted_ms"] == pytest.approx(
        build_cost_models(table, wide)["latency_ms"].predict(wide.space.parse(saved["architecture"]))
    )
    require_equal_scores("run/mild")


def require_equal_scores(folder: str) -> None:
    """Run ``network.py`` in a process without hwnas, and compare it with ``network.onnx`` beside it."""
    images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)).numpy()
    np.save("images.npy", images)
    done = subprocess.run([sys.executable, "-c", WITHOUT_HWNAS, folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = open_session(Path(folder) / "network.onnx")(images)
    np.testing.assert_allclose(np.load("scores.npy"), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_run_is_not_read_with_a_changed_declaration(
    run: Run, sized: SizedSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = run("search", *SPACE, *FEW, "--child-epochs", 0, "--budget", "50%", "--out", "run")
    assert searched.exit_code == 0, searched.output
    Path("own_backbone.py").write_text(f"{SMALL}# changed\n")
    monkeypatch.delitem(sys.modules, "own_backbone")
    import_backbone.cache_clear()
    assert_one_clear_line(run("derive", "run"), "run of space small@", "undo the change")
    assert_one_clear_line(run("space", "preview", *SPACE, "--budget", "60%"), "made for small@", "hwnas profile")
