"""Models in the runtimes' own formats compute the same as torch."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.files import shipped
from hwnas.profiling.assemble import Assembled
from hwnas.profiling.models import Repeated, Whole, torch_model
from hwnas.runtimes import ncnn
from hwnas.runtimes.registry import RUNTIMES
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload

ONLY_SKIPS = "|skip_connect~0|+|skip_connect~0|skip_connect~1|+|skip_connect~0|skip_connect~1|skip_connect~2|"
MIXED = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
SMALL = Setting(channels=8, depth=1, height=16, width=16)
MODELS: dict[str, Assembled] = {
    "nor_conv_3x3": Repeated(Workload("nor_conv_3x3", 16, 16, 12, 12), 3),
    "sep_conv_3x3": Repeated(Workload("sep_conv_3x3", 16, 16, 12, 12), 3),
    "sep_conv_5x5 of stride 2": Repeated(Workload("sep_conv_5x5", 16, 16, 13, 13, 2), 2),
    "dil_conv_5x5": Repeated(Workload("dil_conv_5x5", 16, 16, 12, 12), 3),
    "avg_pool_3x3": Repeated(Workload("avg_pool_3x3", 16, 16, 12, 12), 3),
    "avg_pool_3x3 of stride 2": Repeated(Workload("avg_pool_3x3", 16, 16, 13, 13, 2), 2),
    "max_pool_3x3": Repeated(Workload("max_pool_3x3", 16, 16, 12, 12), 3),
    "factorized_reduce": Repeated(Workload("factorized_reduce", 16, 32, 12, 12, 2), 2),
    "factorized_reduce of odd sides": Repeated(Workload("factorized_reduce", 16, 32, 13, 13, 2), 2),
    "residual_reduction of odd sides": Repeated(Workload("residual_reduction", 16, 32, 13, 13, 2), 2),
    "sum": Repeated(Workload("sum", 16, 16, 12, 12), 3),
    "concat": Repeated(Workload("concat", 16, 64, 12, 12), 2),
    "norm_relu_pool_linear": Repeated(Workload("norm_relu_pool_linear", 16, 10, 8, 8), 2),
    "nasbench201": Whole(SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(MIXED)),
    "nasbench201 of skips": Whole(SizedSpace(SPACES["nasbench201"], SMALL), SPACES["nasbench201"].parse(ONLY_SKIPS)),
    "darts": Whole(SizedSpace(SPACES["darts"], replace(SMALL, depth=3)), SPACES["darts"].parse("DARTS_V2")),
}


def module_and_inputs(model: Assembled, batch: int) -> tuple[nn.Module, list[Tensor]]:
    """Return a module with random batch-norm parameters, which show a wrong zero at a border, and inputs."""
    torch.manual_seed(0)
    module, inputs = torch_model(model, 1)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values, std=0.3)
    return module.eval(), [torch.randn(batch, *x.shape[1:]) for x in inputs]


def assert_same(computed: list[Tensor], module: nn.Module, inputs: list[Tensor]) -> None:
    with torch.no_grad():
        expected = module(*inputs)
    expected = [expected] if isinstance(expected, Tensor) else expected
    for ours, theirs in zip(expected, computed, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-4 * float(ours.abs().max()))


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
