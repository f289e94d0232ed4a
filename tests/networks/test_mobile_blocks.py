"""Layers of mobile networks, against torchvision's modules, fvcore, and ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwnas.cost.fusion import family, fuses_addition, fuses_relu, piece_of
from hwnas.networks.count import count, count_workload
from hwnas.operations import build_operation, randomise
from hwnas.profiling.models import is_chainable, keeps_layout
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.spaces import Workload, get_operation
from hwnas.spaces.mobile_blocks import divisible, inverted_residual, read_mobile_layer
from hwnas.spaces.operation import counted_layers, find_operation
from support.torchvision_models import (
    Conv2dNormActivation,
    InvertedResidualConfig,
    MobileNetV2Block,
    MobileNetV3Block,
)

# Names, and the module of torchvision that they stand for, at 16 channels and 9x9 pixels.
THEIRS = {
    ("mbconv_3x3_e6_r6_res", 16, 1): lambda: MobileNetV2Block(16, 16, 1, 6),
    ("mbconv_3x3_e6_r6", 24, 2): lambda: MobileNetV2Block(16, 24, 2, 6),
    ("mbconv_3x3_e1_r6", 24, 1): lambda: MobileNetV2Block(16, 24, 1, 1),
    ("mbconv_5x5_m40_se_hs", 24, 2): lambda: v3(5, 40, 24, True, "HS", 2),
    ("mbconv_5x5_e3_se_res", 16, 1): lambda: v3(5, 48, 16, True, "RE", 1),
    ("mbconv_3x3_e1_res", 16, 1): lambda: v3(3, 16, 16, False, "RE", 1),
    ("conv_bn_relu6_1x1", 24, 1): lambda: Conv2dNormActivation(16, 24, 1, activation_layer=nn.ReLU6),
    ("conv_bn_hswish_3x3", 24, 2): lambda: Conv2dNormActivation(16, 24, 3, 2, activation_layer=nn.Hardswish),
    ("conv_bn_relu_3x3_g2", 24, 1): lambda: Conv2dNormActivation(16, 24, 3, groups=2),
    ("conv_bn_3x3", 24, 1): lambda: Conv2dNormActivation(16, 24, 3, activation_layer=None),
    ("separable_bn_relu_5x5", 24, 2): lambda: nn.Sequential(
        Conv2dNormActivation(16, 16, 5, 2, groups=16), Conv2dNormActivation(16, 24, 1)
    ),
}
CLEAN = {"Constant", "Conv", "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "GlobalAveragePool", "Mul", "Add"}


def v3(kernel: int, middle: int, out: int, gated: bool, activation: str, stride: int) -> nn.Module:
    config = InvertedResidualConfig(16, kernel, middle, out, gated, activation, stride, 1, 1.0)
    return MobileNetV3Block(config, nn.BatchNorm2d)


def workload(op: str, out: int, stride: int, size: int = 9) -> Workload:
    return Workload(op, 16, out, size, size, stride)


@pytest.mark.parametrize("named", THEIRS, ids=lambda named: named[0])
def test_modules_compute_what_torchvision_computes(named: tuple[str, int, int]) -> None:
    torch.manual_seed(0)
    mine, theirs = build_operation(workload(*named)), THEIRS[named]()
    tensors = list(theirs.state_dict().values())
    assert [v.shape for v in tensors] == [v.shape for v in mine.state_dict().values()]
    mine.load_state_dict(dict(zip(mine.state_dict(), tensors, strict=True)))
    images = torch.randn(2, 16, 9, 9)
    assert torch.equal(mine(images), theirs(images))
    assert count_workload(workload(*named)) == count(theirs, torch.zeros(1, 16, 9, 9))


NAMES = st.builds(
    "{0}_{1}x{1}_e{2}{3}{4}{5}".format,
    st.sampled_from(["mbconv", "ir"]),
    st.sampled_from([3, 5, 7]),
    st.integers(1, 6),
    st.sampled_from(["", "_g2"]),
    st.sampled_from(["", "_se", "_sei"]),
    st.sampled_from(["", "_r6", "_hs"]),
)


@settings(max_examples=25, deadline=None)
@given(NAMES, st.sampled_from([(16, 1), (16, 2), (24, 1)]), st.booleans())
def test_counted_layers_have_the_weights_and_sizes_of_the_module(op: str, sizes: tuple[int, int], adds: bool) -> None:
    w = workload(op + "_res" * (adds and sizes == (16, 1)), *sizes, size=6)
    module = build_operation(w)
    layers = counted_layers(w)
    convolutions = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert [m.weight.numel() for m in convolutions] == [c.weights for c in layers if c.kind == "conv"]
    written: list[int] = []
    for m in convolutions:
        m.register_forward_hook(lambda _m, _x, y: written.append(y[0].numel()))
    output = module.eval()(torch.zeros(1, 16, 6, 6))
    assert written == [c.written_values for c in layers if c.kind == "conv"]
    assert output[0].numel() == layers[-1].written_values
    assert ("add" in [c.kind for c in layers]) == w.op.endswith("_res")
    assert get_operation(w.op).op == w.op


def test_names_that_describe_no_layer_are_none() -> None:
    wrong = [
        "mbconv_3x5_e6",
        "mbconv_4x4_e6",
        "mbconv_3x3_e06",
        "mbconv_3x3",
        "ir_3x3_e1_res_g2",
        "conv_3x3_bn",
        "conv",
    ]
    assert [find_operation(op) for op in wrong] == [None] * len(wrong)
    assert read_mobile_layer("conv_hswish_1x1") is not None
    # One layer has one name: the expansion where it is whole, else the channels in the middle.
    assert inverted_residual(16, 96, kernel=3).op == "mbconv_3x3_e6"
    assert inverted_residual(16, 72, kernel=3).op == "mbconv_3x3_m72"
    assert [divisible(c) for c in (8.0, 12.0, 11.0, 3.0, 18.4)] == [8, 16, 16, 8, 24]


def test_facts_for_latencies() -> None:
    residual, plain = workload("mbconv_3x3_e6_res", 16, 1), workload("mbconv_3x3_e6", 24, 2)
    assert [is_chainable(w) for w in (residual, plain, workload("mbconv_3x3_e6", 24, 1))] == [True, False, False]
    assert [fuses_addition(w) for w in (residual, plain)] == [False, True]
    assert [fuses_relu(w) for w in (residual, plain)] == [True, True]
    assert [keeps_layout(w) for w in (residual, plain)] == [True, False]
    assert [family(w) for w in (residual, plain)] == ["conv", "strided_conv"]
    assert piece_of(residual) is None  # it reads its input twice; nothing is shared


def test_groups_are_shuffled_as_in_shufflenet() -> None:
    module = build_operation(workload("ir_3x3_e1_g2", 16, 1, 4))
    shuffle = module.layers[3]  # type: ignore[union-attr,index]
    x = torch.arange(16.0).view(1, 16, 1, 1).expand(2, 16, 4, 4)
    expected = nn.ChannelShuffle(2)(x)
    assert torch.equal(shuffle(x), expected)  # type: ignore[operator]


@pytest.mark.parametrize("op", ["mbconv_5x5_e3_se_hs_res", "mbconv_3x3_e6_r6_res", "mbconv_3x3_e3_sei", "ir_3x3_e3_g2"])
def test_onnx_files_are_clean_and_compute_the_same(tmp_path: Path, op: str) -> None:
    torch.manual_seed(0)
    module, images = randomise(build_operation(workload(op, 16, 1))), torch.randn(2, 16, 9, 9)
    write_onnx(module, [images[:1]], tmp_path / "op.onnx")
    used = {node.op_type for node in onnx.load(tmp_path / "op.onnx").graph.node}
    assert used <= CLEAN | ({"Reshape", "Transpose"} if "_g2" in op else set())
    session = onnxruntime.InferenceSession(tmp_path / "op.onnx")
    found = session.run(None, {"input0": images.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(found), module(images), rtol=1e-4, atol=1e-4)
