"""ONNX of odd image sizes: constants in place of what follows from the size, and one result in every runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from hwnas.networks.child import ChildNetwork
from hwnas.operations.reductions import FactorizedReduce, ResidualReduction
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.spaces import SPACES, SearchSpace, Setting, SizedSpace, Workload, get_space

CELL = "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|"
OWN: dict[str, Any] = {
    "name": "mine",
    "operations": ["none", "skip_connect", {"name": "top", "kind": "pool", "pool": "max"}, "sep_conv_3x3"],
    "cells": {"cell": {"nodes": 2}},
    "network": {"stages": [{"cell": "cell"}, {"cell": "cell", "channels": 2, "reduction": "residual_reduction"}]},
    "settings": {"small": {"channels": 8, "depth": 1}},
}
PAIR: dict[str, Any] = {
    **OWN,
    "name": "pair",
    "cells": {kind: {"inputs": 2, "nodes": 2, "outputs": [2, 3]} for kind in ("normal", "reduce")},
    "network": {"stages": [{"cell": "normal"}, {"cell": "normal", "channels": 2, "reduction": "reduce"}]},
}
NETWORKS = ["nasbench201", "darts", "mine", "pair"]
SIZES = [(33, 31), (15, 18), (21, 21)]  # odd at the first reduction, at the second, at both
COMPUTED_AT_RUN_TIME = {"Shape", "Size", "Mod", "Gather", "Cast", "ConstantOfShape", "Range", "Loop", "If", "Where"}


def network(name: str, size: tuple[int, int], folder: Path) -> ChildNetwork:
    """Return a network with an architecture whose skip connections cross its reductions, and random batch norms."""
    space: SearchSpace
    if name in SPACES:
        space = SPACES[name]
        architecture = space.parse(CELL if name == "nasbench201" else "DARTS_V2")
    else:
        file = folder / "space.yaml"
        file.write_text(yaml.safe_dump(OWN if name == "mine" else PAIR))
        space = get_space(str(file))
        cells = [
            ["skip_connect", "top", "sep_conv_3x3", "skip_connect", "sep_conv_3x3"][: len(c.edges)]
            for c in space.cells.values()
        ]
        architecture = space.architecture(tuple(map(tuple, cells)))
    setting = Setting(channels=8, depth=3 if name == "darts" else 1, height=size[0], width=size[1])
    torch.manual_seed(0)
    child = ChildNetwork(SizedSpace(space, setting), architecture, prune=True)
    for layer in child.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (layer.bias, layer.running_mean):
                nn.init.normal_(values, std=0.3)  # a wrong zero at a border shows
    return child.eval()


def run_onnx(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_of_odd_sizes_is_the_same_everywhere(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    import openvino

    child, path = network(name, size, tmp_path), tmp_path / "network.onnx"
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        expected = child(images).numpy()
    write_onnx(child, [images], path, input_names=["image"])
    assert_constants_only(path)
    close = {"rtol": 1e-3, "atol": 1e-4 * float(np.abs(expected).max())}
    np.testing.assert_allclose(run_onnx(path, images.numpy()), expected, **close)
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    np.testing.assert_allclose(compiled([images.numpy()])[0], expected, **close)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_opencv_computes_the_same_of_odd_sizes(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    child, path = network(name, size, tmp_path), tmp_path / "network.onnx"
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = child(images).numpy()
    write_onnx(child, [images], path, input_names=["image"])
    net = cv2.dnn.readNetFromONNX(str(path))
    net.setInput(images.numpy())
    close = {"rtol": 1e-3, "atol": 1e-4 * float(np.abs(expected).max())}
    np.testing.assert_allclose(net.forward().reshape(expected.shape), expected, **close)


def assert_constants_only(path: Path) -> None:
    """Check that a graph rounds no size up, computes none at run time, and slices and pads by constants."""
    graph = onnx.load(path).graph
    constants = {value.name for value in graph.initializer}
    constants |= {node.output[0] for node in graph.node if node.op_type == "Constant"}
    assert not {node.op_type for node in graph.node} & COMPUTED_AT_RUN_TIME
    for node in graph.node:
        assert not any(attribute.name == "ceil_mode" and attribute.i for attribute in node.attribute), node.name
        if node.op_type in ("Slice", "Pad"):
            assert {name for name in node.input[1:] if name} <= constants, node.name


@pytest.mark.parametrize("size", [(9, 8), (8, 9), (9, 9), (8, 8), (1, 1)])
@pytest.mark.parametrize("module", [FactorizedReduce, ResidualReduction])
def test_a_reduction_alone(module: type[nn.Module], size: tuple[int, int], tmp_path: Path) -> None:
    built = module(Workload("reduction", 4, 6, *size, 2), affine=True).eval()
    images = torch.randn(3, 4, *size)
    write_onnx(built, [images], tmp_path / "module.onnx")
    assert_constants_only(tmp_path / "module.onnx")
    with torch.no_grad():
        expected = built(images).numpy()
    assert expected.shape == (3, 6, -(-size[0] // 2), -(-size[1] // 2))
    np.testing.assert_allclose(run_onnx(tmp_path / "module.onnx", images.numpy()), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.booleans(),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    size=st.tuples(st.integers(4, 11), st.integers(4, 11)),
)
def test_an_average_of_any_module_that_rounds_up_is_written_with_padding(
    counts: bool, kernel: int, stride: int, padding: int, size: tuple[int, int], tmp_path: Path
) -> None:
    """Compare with torch's own ``ceil_mode``, whose last window must begin inside."""
    assume(padding <= kernel // 2)
    shapes = [-(-(side + 2 * padding - kernel) // stride) * stride < side + padding for side in size]
    assume(all(shapes))  # otherwise torch leaves out a window that ONNX has
    pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode=True, count_include_pad=counts)
    images = torch.randn(2, 3, *size)
    write_onnx(pool, [images], tmp_path / "pool.onnx")
    (found,) = [node for node in onnx.load(tmp_path / "pool.onnx").graph.node if node.op_type.endswith("Pool")]
    assert not any(attribute.name == "ceil_mode" and attribute.i for attribute in found.attribute)
    np.testing.assert_allclose(run_onnx(tmp_path / "pool.onnx", images.numpy()), pool(images), rtol=1e-5, atol=1e-6)
