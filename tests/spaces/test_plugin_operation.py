"""An operation of a plug-in file from profile to verify: the residual bottleneck of docs/how-to/add-an-operation.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hwnas.cost.memory import memory_access_bytes
from hwnas.cost.model import build_cost_models
from hwnas.export.network import export_network, open_session
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network, count_workload
from hwnas.operations import build_operation
from hwnas.profiling.assemble import Assembled, assemble_onnx
from hwnas.profiling.models import Repeated, Whole
from hwnas.runtimes.torch import write_layers
from hwnas.spaces import SizedSpace, Workload, get_space
from hwnas.spaces.space_files import parse_space
from hwnas.tables.io import read_table, write_table
from hwnas.tables.schema import Correction, LatencyTable
from support.command import Run, assert_one_clear_line, profile, timed
from support.paths import ROOT
from support.tables import make_table

PAGE = (ROOT / "docs/how-to/add-an-operation.md").read_text(encoding="utf-8")
FILES = re.findall(r'```\w+ title="(.*?)"\n(.*?)```', PAGE, re.DOTALL)
BUILTIN = "nor_conv_1x1"  # stands for the bottleneck in a space without plug-ins
ENTRY = '{name: bottleneck, operation: "bottleneck:BOTTLENECK"}'
NETWORKS = ("--rounds", 16, "--fit-networks", 8, "--report-networks", 8)
SHORT = ("--data", "digits?size=16", "--budget", "60%", "--epochs", 1)
ATTEMPTS = 3
EVERY = "|bottleneck~0|+|bottleneck~0|bottleneck~1|+|bottleneck~0|bottleneck~1|bottleneck~2|"
QUIET = 3.0  # percent by which two halves of the same readings may differ on a machine that is quiet enough to compare


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's files, and the same space with a built-in operation instead."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bottleneck", raising=False)
    for name, content in FILES:
        (tmp_path / name).write_text(content)
    own = (tmp_path / "bottlenecks.yaml").read_text()
    assert ENTRY in own
    (tmp_path / "builtin.yaml").write_text(own.replace(ENTRY, BUILTIN).replace("name: bottlenecks", "name: builtin"))
    return tmp_path


def sized(folder: Path) -> SizedSpace:
    space = get_space(str(folder / "bottlenecks.yaml"))
    return SizedSpace(space, space.settings["small"])


def bottleneck(folder: Path, stride: int = 1) -> Workload:
    """A bottleneck of 8 channels on 6x5 images."""
    (op,) = {workload.op for workload in sized(folder).network.workloads() if workload.op.startswith("bottleneck_")}
    return Workload(op, 8, 8, 6, 5, stride)


@pytest.mark.parametrize("stride", [1, 2])
def test_its_layers_agree_with_its_module(folder: Path, stride: int) -> None:
    """Weights and values by hand, with 2 channels in the middle."""
    weights, norms = 8 * 2 + 2 * 2 * 9 + 2 * 8, 2 * (2 + 2 + 8)
    assert count_workload(bottleneck(folder, stride)).params == weights + norms
    image, small = 6 * 5, 6 * 5 if stride == 1 else 3 * 3
    convolutions = (8 + 2) * image + 2 * (image + small) + (2 + 8) * small
    addition = 3 * 8 * image if stride == 1 else 0
    assert memory_access_bytes(bottleneck(folder, stride)) == 4 * (convolutions + addition + weights)


@pytest.mark.slow
def test_it_is_written_for_the_torch_runtime(folder: Path) -> None:
    write_layers(build_operation(bottleneck(folder)), [torch.zeros(1, 8, 6, 5)], folder / "layers.pt")
    targets = [target for _, target, _, _ in torch.load(folder / "layers.pt", weights_only=True)["nodes"]]
    assert targets.count("aten.conv2d.default") == 3
    assert targets[-2:] == ["aten.add.Tensor", "aten.relu.default"]


def test_costs_add_up_and_onnx_computes_the_same(folder: Path) -> None:
    chosen = sized(folder).space.parse(EVERY)
    child = ChildNetwork(sized(folder), chosen).eval()
    counts = count_network(child)
    models = build_cost_models(make_table(sized(folder)), sized(folder))
    assert (models["params"].predict(chosen), models["macs"].predict(chosen)) == (counts.params, counts.macs_fvcore)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    export_network(child, folder / "network.onnx", {})
    with torch.no_grad():
        expected = child(images).numpy()
    np.testing.assert_allclose(open_session(folder / "network.onnx")(images.numpy()), expected, rtol=1e-3, atol=1e-4)


def test_it_is_timed_in_the_layout_of_a_network(folder: Path) -> None:
    """ONNX Runtime fuses the residual addition into the convolution in a chain, as it does in a network."""

    def additions(model: Assembled) -> int:
        assemble_onnx(model, folder / "model.onnx", folder)
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        options.log_severity_level = 3  # says that the optimised file is for this processor
        onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
        return [node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node].count("Add")

    small = sized(folder)
    (workload, *_) = [w for w in small.network.workloads() if w.op.startswith("bottleneck_")]
    network = Whole(small, small.space.parse("|bottleneck~0|+|none~0|bottleneck~1|+|none~0|none~1|bottleneck~2|"))
    per_stage = 3
    assert additions(Repeated(workload, 12)) / 12 == additions(network) / (2 * per_stage)


@pytest.mark.slow
def test_a_run_is_not_read_with_a_changed_plugin(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    correction = {sized(folder).key: Correction(offset_ms=0, scale=1, networks=0)}
    write_table(folder / "table.json", make_table(sized(folder)).model_copy(update={"correction": correction}))
    space = ("--space", "bottlenecks.yaml", "--table", "table.json")
    searched = run("search", *space, *SHORT, "--child-epochs", 0, "--out", "run")
    assert searched.exit_code == 0, searched.output
    assert run("derive", "run").exit_code == 0
    with open("bottleneck.py", "a") as file:
        file.write("# changed\n")
    monkeypatch.delitem(sys.modules, "bottleneck")
    parse_space.cache_clear()
    assert_one_clear_line(run("derive", "run"), "run of space bottlenecks@", "undo the change")
    assert_one_clear_line(run("space", "preview", *space, "--budget", "60%"), "made for bottlenecks@", "hwnas profile")


def comparable_table(run: Run) -> Path:
    """Profile both spaces until sums of the plug-in's entries err at most twice as much as the built-in operations'.

    Returns the file of the plug-in's table. A noisy machine skips the test.
    """
    floors: list[float] = []
    tables: list[LatencyTable] = []
    while len(floors) < ATTEMPTS:
        files = {name: Path(f"{name}{len(floors)}.json") for name in ("builtin", "bottlenecks")}
        tables = [profile(run, "--space", f"{name}.yaml", *NETWORKS, "--out", file) for name, file in files.items()]
        (builtin,), (own,) = (table.quality.additivity.values() for table in tables)
        if own.mape <= 2 * builtin.mape:
            return files["bottlenecks"]
        floors.append(max(builtin.floor or 0.0, own.floor or 0.0))
    if min(floors) > QUIET:
        pytest.skip(f"the machine is too noisy: the same networks timed twice differ by {min(floors):.1f} %")
    pytest.fail(f"mean error {own.mape:.1f} % with the plug-in's operation, {builtin.mape:.1f} % without it")


@pytest.mark.alone
@pytest.mark.end_to_end
def test_it_is_profiled_searched_and_verified(run: Run, folder: Path) -> None:
    table = comparable_table(run)
    assert any(entry.op.startswith("bottleneck_") for entry in read_table(table).entries)
    space = ("--space", "bottlenecks.yaml", "--table", table)
    checked = timed(run, "table", "check", table, "--space", "bottlenecks.yaml", "--entries", 6)
    assert checked.exit_code in (0, 1), checked.output  # 1: the machine has changed its speed
    searched = run("search", *space, *SHORT, "--child-epochs", 1, "--out", "run", "--json")
    assert searched.exit_code == 0, searched.output
    (target,) = json.loads(searched.stdout)["targets"]
    assert target["predicted_ms"] <= target["budget_ms"]
    assert target["parity"]["same_class"] == 1.0
    verified = timed(run, "verify", "run")
    assert verified.exit_code in (0, 1), verified.output  # 1: the network is over its budget on this machine
