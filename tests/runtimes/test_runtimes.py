"""Models in the runtimes' own formats compute the same as torch."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.runtimes import ncnn
from hwnas.runtimes.executorch import open_program
from hwnas.runtimes.registry import RUNTIMES
from support.models import MODELS, assert_same, module_and_inputs
from support.packages import needs_executorch


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_ncnn_computes_the_same_as_torch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.ncnn.param"
    module, inputs = module_and_inputs(MODELS[name], 3)
    RUNTIMES["ncnn"].write(module, inputs, path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.ncnn.bin", "model.ncnn.param"]
    for given in (inputs, [x[:1] for x in inputs]):
        results = ncnn.run_ncnn(path, [x.numpy() for x in given])
        assert_same([torch.from_numpy(x) for x in results], module, given)


@pytest.mark.parametrize("name", MODELS)
def test_openvino_computes_the_same_as_torch(name: str, tmp_path: Path) -> None:
    import openvino

    path = tmp_path / "model.onnx"
    module, inputs = module_and_inputs(MODELS[name], 3)
    RUNTIMES["openvino"].write(module, inputs, path)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled([x.numpy() for x in inputs])
    assert_same([torch.from_numpy(results[number]) for number in range(len(results))], module, inputs)


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sep_conv_5x5 of stride 2", "sum", "nasbench201"])
def test_executorch_computes_the_same_as_torch(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pte"
    module, inputs = module_and_inputs(MODELS[name], 1)
    RUNTIMES["executorch"].write(module, inputs, path)
    results = open_program(path)([x.numpy() for x in inputs])
    assert_same([torch.from_numpy(x) for x in results], module, inputs)


@pytest.mark.parametrize("name", MODELS)
def test_torch_layers_compute_the_same_as_the_module(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(shipped("profilers")))
    module, inputs = module_and_inputs(MODELS[name], 3)
    RUNTIMES["torch"].write(module, inputs, tmp_path / "model.pt")
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    layers = import_module("torch_eager").as_layers(content, torch.device("cpu")).eval()
    with torch.no_grad():
        results = layers(*inputs)
    assert_same([results] if isinstance(results, Tensor) else list(results), module, inputs)
    called = {node.target for node in layers.graph.nodes if node.op == "call_function"}
    assert not [target for target in called if "conv" in str(target) or "norm" in str(target)]


@pytest.mark.parametrize(
    ("runtime", "package"),
    [("litert", "ai_edge_litert.schema_py_generated"), ("executorch", "executorch.exir")],
)
def test_models_need_the_package_of_their_runtime(
    runtime: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package.partition(".")[0], None)
    monkeypatch.delitem(sys.modules, package, raising=False)
    path = tmp_path / f"model{RUNTIMES[runtime].suffix}"
    with pytest.raises(HwnasError, match=rf"needs {package}, .*; pip install 'hwnas\[{runtime}\]'"):
        RUNTIMES[runtime].write(nn.ReLU(), [torch.zeros(1, 8, 4, 4)], path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["pnnx", "ncnn"])
def test_ncnn_models_need_two_packages(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(HwnasError, match=rf"needs {package}, which is not installed; pip install 'hwnas\[ncnn\]'"):
        RUNTIMES["ncnn"].write(nn.ReLU(), [torch.zeros(1, 8, 4, 4)], tmp_path / "model.ncnn.param")


class Unknown(nn.Module):
    """A module that ncnn has no layer for."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.det(x)


def test_models_that_ncnn_cannot_run_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match="ncnn"):
        RUNTIMES["ncnn"].write(Unknown(), [torch.zeros(1, 8, 4, 4)], tmp_path / "model.ncnn.param")
    assert not list(tmp_path.iterdir())


def test_pnnx_is_restarted_after_a_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pnnx

    program = tmp_path / "pnnx"
    program.write_text(f'#!/bin/sh\nmkdir {tmp_path}/crashed && kill -SEGV $$\nexec {pnnx.EXEC_PATH} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(program))
    RUNTIMES["ncnn"].write(nn.ReLU(), [torch.zeros(1, 8, 4, 4)], tmp_path / "model.ncnn.param")
    assert (tmp_path / "crashed").exists()


def test_a_model_with_other_outputs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ncnn, "run_ncnn", lambda path, inputs: [x + 0.1 for x in inputs])
    with pytest.raises(HwnasError, match="has other outputs"):
        RUNTIMES["ncnn"].write(nn.ReLU(), [torch.zeros(1, 8, 4, 4)], tmp_path / "model.ncnn.param")
    assert not list(tmp_path.iterdir())
