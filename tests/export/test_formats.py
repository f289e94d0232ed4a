"""hwnas export --format: files that other runtimes read, each compared with the network it was made of."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from hwnas.export.formats import FORMATS, Format
from hwnas.export.network import export_network
from hwnas.export.timing import Measured
from hwnas.networks.child import ChildNetwork
from hwnas.runs import convert
from hwnas.spaces import SPACES, Setting, SizedSpace, get_space
from hwnas.tables.io import write_table
from support.command import Run, assert_one_clear_line, invoke, timed
from support.packages import needs_executorch, needs_litert
from support.tables import make_table

SIZED = SizedSpace(SPACES["nasbench201"], Setting(channels=4, depth=1, height=8, width=8))
MIXED = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
WRITTEN = {
    "litert": {"network.tflite"},
    "openvino": {"network.xml", "network.bin"},
    "ncnn": {"network.ncnn.param", "network.ncnn.bin"},
    "executorch": {"network.pte"},
}
FROM_ONNX = [pytest.param("litert", marks=needs_litert), "openvino", "ncnn"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    file = tmp_path / "network.onnx"
    export_network(ChildNetwork(SIZED, get_space("nasbench201").parse(MIXED), prune=True), file, {})
    return file


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a search for two budgets of a made-up device."""
    folder = tmp_path_factory.mktemp("searched")
    write_table(folder / "table.json", make_table(SIZED))
    words = ["search", "--table", folder / "table.json", "--data", "digits?size=8", "--recipe", "snas-short"]
    words += ["--channels", 4, "--cells", 1, "--epochs", 1, "--child-epochs", 0, "--budget", "90%", "--budget", "60%"]
    result = invoke(*words, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.mark.parametrize("name", FROM_ONNX)
def test_an_onnx_file_is_converted_and_compared(run: Run, network: Path, name: str) -> None:
    result = run("export", network, "--format", name, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["networks"]
    written = {file for file in network.parent.iterdir() if file != network}
    assert {file.name for file in written} == WRITTEN[name]
    assert row["bytes"] == sum(file.stat().st_size for file in written)
    assert (row["compared_with"], row["parity"]["same_class"]) == ("ONNX Runtime", 1)
    images = np.random.default_rng(1).standard_normal((1, 3, 8, 8), dtype=np.float32)
    session = onnxruntime.InferenceSession(str(network), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": images})
    scores = FORMATS[name].open(Path(row["file"]))(images)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FROM_ONNX, pytest.param("executorch", marks=needs_executorch)])
def test_networks_of_a_run_are_compared_with_torch(run: Run, searched: Path, name: str) -> None:
    shown = run("export", searched, "--format", name)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.count("differs from torch by at most") == 2
    for budget in ("90pct", "60pct"):
        assert WRITTEN[name] <= {file.name for file in (searched / budget).iterdir()}
        assert f"{budget}/network{FORMATS[name].suffix}: {name}, " in shown.stdout


@pytest.mark.slow
def test_further_training_removes_files_of_the_earlier_network(run: Run, searched: Path) -> None:
    assert run("export", searched, "--format", "openvino").exit_code == 0
    place = searched / "90pct"
    assert run("train", place, "--epochs", 1, "--batch-size", 256).exit_code == 0
    assert (place / "network.onnx").exists()
    assert not {"network.xml", "network.bin"} & {file.name for file in place.iterdir()}
    assert (searched / "60pct" / "network.xml").exists()


def test_a_file_with_other_scores_is_not_written(run: Run, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = FORMATS["openvino"]

    def open_wrong(path: Path) -> Any:
        scores = right.open(path)
        return lambda images: scores(images) * 1.01

    monkeypatch.setitem(FORMATS, "openvino", Format(".xml", "openvino", right.write, open_wrong, True))
    assert_one_clear_line(
        run("export", network, "--format", "openvino"),
        "the network in the format openvino and the original network differ by",
    )
    assert list(network.parent.iterdir()) == [network]


@pytest.mark.parametrize(
    ("name", "package"), [("litert", "ai_edge_litert"), ("openvino", "openvino"), ("ncnn", "pnnx")]
)
def test_a_missing_package_is_named_with_its_extra(
    run: Run, network: Path, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    for module in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    result = run("export", network, "--format", name)
    assert_one_clear_line(result, f"needs {package}.* pip install 'hwnas\\[{name}\\]'")
    assert list(network.parent.iterdir()) == [network]


def test_verify_times_the_written_files(run: Run, network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the clock looks at what is timed, where."""
    asked: dict[str, Any] = {}

    def time_networks(files: Mapping[str, Path], spec: Any, *rest: object) -> Any:
        asked.update({"files": list(files.values()), "device": spec.text})
        return {name: Measured(0.25, 0.01, 0.25, None) for name in files}

    monkeypatch.setattr(convert, "time_networks", time_networks)
    shown = run("export", network, "--format", "openvino", "--verify", "--device", "cpu+openvino?threads=2")
    assert shown.exit_code == 0, shown.output
    assert asked == {"files": [network.with_suffix(".xml")], "device": "cpu+openvino?threads=2&batch=1"}
    assert "0.25 ± 0.01 ms on cpu+openvino?threads=2&batch=1" in shown.stdout


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.usefixtures("short_timings")
@pytest.mark.parametrize("name", FROM_ONNX)
def test_written_files_are_timed_on_this_machine(run: Run, network: Path, name: str) -> None:
    result = timed(run, "export", network, "--format", name, "--verify", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["networks"]
    assert 0 < row["measured_ms"] < 100
    assert row["timed_on"] == f"cpu+{name}?threads=1&batch=1"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("is an ONNX file already", "--format")),
        (("--format", "onnx"), ("is an ONNX file already", "--out")),
        (("--format", "tensorrt"), ("unknown format 'tensorrt'", "onnx, litert, executorch, openvino, ncnn")),
        (("--format", "openvino", "--out", "other.onnx"), ("other.onnx is not the name", "end with .xml")),
        (("--format", "openvino", "--device", "cpu+openvino"), ("nothing is timed", "add --verify")),
        (("--format", "openvino", "--verify", "--device", "cpu+ncnn"), ("not timed with ncnn", "cpu\\+openvino")),
        (("--format", "litert", "--verify", "--device", "cpu+litert?precision=int8"), ("single precision",)),
        (("--format", "openvino", "--quantize", "int8"), ("--quantize cannot be given", "single precision")),
        (("--format", "openvino", "--seed", 1), ("--seed cannot be given", "its own networks")),
        (("--format", "executorch"), ("is written from a torch network", "name the run")),
    ],
)  # fmt: skip
def test_impossible_conversions_are_one_clear_error(
    run: Run, network: Path, arguments: tuple[object, ...], words: tuple[str, ...]
) -> None:
    assert_one_clear_line(run("export", network, *arguments), *words)
    assert list(network.parent.iterdir()) == [network]


def test_other_files_and_no_file_are_one_clear_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    assert_one_clear_line(
        run("export", tmp_path / "text.onnx", "--format", "openvino"), "text.onnx is not an ONNX file"
    )
    assert_one_clear_line(run("export", "--format", "openvino"), "--format cannot be given: name a run or an ONNX file")
    assert_one_clear_line(run("export", tmp_path / "none", "--format", "openvino"), "holds no finished search")
    torch.onnx.export(torch.nn.Linear(3, 2), (torch.zeros(1, 3),), str(tmp_path / "rows.onnx"), dynamo=False)
    refused = run("export", tmp_path / "rows.onnx", "--format", "openvino")
    assert_one_clear_line(refused, "rows.onnx does not take one image")
