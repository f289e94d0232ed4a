"""LiteRT: the converted graphs compute the same as torch, XNNPACK runs all of them, and int8 is int8 throughout."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwnas.errors import HwnasError
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.models import SENTINEL, Repeated, Whole, repeated, write_model
from hwnas.profiling.sample import random_architectures
from hwnas.runtimes.device_spec import parse_device
from hwnas.runtimes.int8 import random_feeds
from hwnas.runtimes.litert.int8 import quantize_litert
from hwnas.runtimes.litert.run import open_litert
from hwnas.runtimes.litert.translate import translate
from hwnas.runtimes.registry import RUNTIMES
from hwnas.spaces import SPACES, Setting, SizedSpace, Workload
from hwnas.tables.io import write_table
from support.command import Run, assert_one_clear_line
from support.models import MODELS, assert_same, module_and_inputs
from support.packages import needs_litert
from support.tables import make_table

LITERT = RUNTIMES["litert"]


def chain(space: str) -> Whole:
    sized = SizedSpace(SPACES[space], SPACES[space].setting("cifar", height=16, width=16))
    return Whole(sized, random_architectures(sized, 1)[0])


def with_empty_nodes() -> Whole:
    """Return a network of the DARTS space in which some nodes have no inputs, at the ends of a cell and between."""
    sized = SizedSpace(SPACES["darts"], Setting(channels=8, depth=3, height=16, width=16))
    architecture = random_architectures(sized, 1)[0]
    emptied = [[0, 1, 5, 6, 7, 8], [2, 3, 4, 9, 10, 11, 12, 13]]
    cells = zip(architecture.cells, emptied, strict=True)
    return Whole(
        sized,
        replace(
            architecture,
            cells=tuple(tuple("none" if e in empty else op for e, op in enumerate(cell)) for cell, empty in cells),
        ),
    )


ALL = {
    **MODELS,
    "darts with empty nodes": with_empty_nodes(),
    "max_pool_3x3 of stride 2": Repeated(Workload("max_pool_3x3", 16, 16, 12, 12, 2), 2),
    "gated block": Repeated(Workload("mbconv_5x5_e4_se_hs_res", 16, 16, 8, 8), 2),
    "fbnet": chain("fbnet"),
}
DEPLOYED = {**ALL, "mobilenetv3": chain("mobilenetv3")}


def operators(path: Path) -> tuple[list[str], list[str]]:
    """Return the operators of a file, and those that XNNPACK does not run."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    found: list[dict[str, Any]] = interpreter._get_ops_details()
    delegates = [op for op in found if op["op_name"] == "DELEGATE"]
    written = {int(x) for op in delegates for x in op["outputs"]}
    read = {int(x) for op in delegates for x in op["inputs"]} | {d["index"] for d in interpreter.get_output_details()}
    own = [op for op in found if op["op_name"] != "DELEGATE"]
    left = [op["op_name"] for op in own if {int(x) for x in op["outputs"]} & (read - written)]
    return [op["op_name"] for op in own], left


@needs_litert
@pytest.mark.parametrize("name", ALL)
def test_litert_computes_the_same_as_torch(name: str, tmp_path: Path) -> None:
    """Compare one image, as the file has it, and three."""
    path = tmp_path / "model.tflite"
    module, inputs = module_and_inputs(ALL[name], 3)
    LITERT.write(module, inputs, path)
    run = open_litert(path)
    for images in (inputs, [x[:1] for x in inputs]):
        results = run([x.numpy() for x in images])
        assert_same([torch.from_numpy(x.copy()) for x in results], module, images)


@needs_litert
@pytest.mark.parametrize("name", DEPLOYED)
def test_nothing_is_transposed_and_xnnpack_runs_all_but_padded_maxima(name: str, tmp_path: Path) -> None:
    source, path = tmp_path / "model.onnx", tmp_path / "model.tflite"
    assemble_onnx(DEPLOYED[name], source, tmp_path / "pieces")
    LITERT.convert(source, path)  # type: ignore[misc]
    found, left = operators(path)
    shuffles = sum(node.op_type == "Transpose" for node in onnx.load(source).graph.node)
    assert found.count("TRANSPOSE") == shuffles
    assert set(left) <= {"PADV2"}
    kinds = Counter(node.op_type for node in onnx.load(source).graph.node)
    assert found.count("CONV_2D") + found.count("DEPTHWISE_CONV_2D") == kinds["Conv"]


class Reader(nn.Module):
    """A convolution that two ReLUs read, each before a convolution of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.left(torch.relu(x)) + self.right(torch.relu(x))


@needs_litert
def test_equal_activations_run_once_as_the_convolution_writes(tmp_path: Path) -> None:
    LITERT.write(Reader(), [torch.zeros(1, 4, 6, 6)], tmp_path / "model.tflite")
    assert operators(tmp_path / "model.tflite")[0] == ["CONV_2D", "CONV_2D", "CONV_2D", "ADD"]


@needs_litert
@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    padding=st.integers(0, 2),
    kind=st.sampled_from(["conv", "max", "average", "average counting padding"]),
)
def test_any_window_is_the_same_as_torchs(
    tmp_path_factory: pytest.TempPathFactory,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    dilation: int,
    groups: int,
    padding: int,
    kind: str,
) -> None:
    if kind == "conv":
        if dilation * (kernel - 1) + 1 > min(size) + 2 * padding:
            return
        layer: nn.Module = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups)
    elif kind == "max":
        layer = nn.MaxPool2d(kernel, stride, min(padding, kernel // 2))
    else:
        layer = nn.AvgPool2d(kernel, stride, min(padding, kernel // 2), count_include_pad="counting" in kind)
    path = tmp_path_factory.mktemp("window") / "model.tflite"
    images = torch.randn(1, 4, *size)
    LITERT.write(layer, [images], path)
    assert_same([torch.from_numpy(open_litert(path)([images.numpy()])[0].copy())], layer, [images])


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Softsign(), "it has the operator"),
        (nn.Hardtanh(-1, 1), "is not ReLU or ReLU6"),
        (nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 2)), "mixes channels and pixels"),
    ],
)
def test_operators_without_a_translation_are_one_clear_error(module: nn.Module, words: str, tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match=rf"cannot be converted to LiteRT: .*{words}.*use another runtime or format"):
        LITERT.write(module, [torch.zeros(1, 8, 4, 4)], tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_model_is_one_clear_error(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "model.tflite").write_bytes(b"this is no model")
    with pytest.raises(HwnasError, match="LiteRT cannot load"):
        open_litert(tmp_path / "model.tflite")


@needs_litert
@pytest.mark.parametrize("name", ["nasbench201", "darts", "fbnet"])
def test_int8_models_are_integers_throughout(name: str, tmp_path: Path) -> None:
    from ai_edge_litert.interpreter import Interpreter

    floats, integers = tmp_path / "model.onnx", tmp_path / "model.tflite"
    assemble_onnx(ALL[name], floats, tmp_path / "pieces")
    feeds = random_feeds(floats)
    quantize_litert(floats, integers, [feeds])
    interpreter = Interpreter(str(integers))
    for end in (*interpreter.get_input_details(), *interpreter.get_output_details()):
        assert end["dtype"] is np.int8
        assert end["quantization"][0] > 0
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    assert not [d for d in details.values() if d["dtype"] is np.float32]
    weights = [d for d in details.values() if len(d["quantization_parameters"]["scales"]) > 1 and d["dtype"] is np.int8]
    kinds = Counter(node.op_type for node in onnx.load(floats).graph.node)
    assert len(weights) == kinds["Conv"] + kinds["Gemm"]
    (expected,) = onnxruntime.InferenceSession(str(floats), providers=["CPUExecutionProvider"]).run(None, feeds)
    (scores,) = open_litert(integers)(list(feeds.values()))
    assert 0 < np.sqrt(np.mean((scores - expected) ** 2)) < 0.1 * expected.std()
    # Poolings of one window size remain, which XNNPACK has no integers for.
    assert set(operators(integers)[1]) <= {"AVERAGE_POOL_2D", "PADV2", "ADD"}


@needs_litert
def test_ranges_are_those_of_all_batches(tmp_path: Path) -> None:
    """The scale of the quantised images is that of the images, computed here."""
    from ai_edge_litert.interpreter import Interpreter

    floats, integers = tmp_path / "model.onnx", tmp_path / "model.tflite"
    RUNTIMES["onnxruntime"].write(nn.Conv2d(3, 4, 3), [torch.zeros(1, 3, 8, 8)], floats)
    batches = [np.random.default_rng(n).standard_normal((5, 3, 8, 8), dtype=np.float32) for n in range(3)]
    quantize_litert(floats, integers, [{"input0": batch} for batch in batches])
    scale, zero_point = Interpreter(str(integers)).get_input_details()[0]["quantization"]
    least, greatest = min(map(np.min, batches)), max(map(np.max, batches))
    assert scale == pytest.approx((greatest - least) / 255, rel=1e-6)
    assert zero_point == round(-128 - least / scale)


@needs_litert
def test_a_bias_fits_beside_weights_of_almost_nothing(tmp_path: Path) -> None:
    """A norm of a tiny factor, folded into its convolution."""
    from ai_edge_litert.interpreter import Interpreter

    convolution = nn.Conv2d(3, 2, 1)
    nn.init.constant_(convolution.weight[0], 1e-9)
    nn.init.constant_(convolution.bias, 0.5)  # type: ignore[arg-type]
    floats, integers = tmp_path / "model.onnx", tmp_path / "model.tflite"
    RUNTIMES["onnxruntime"].write(convolution, [torch.zeros(1, 3, 4, 4)], floats)
    quantize_litert(floats, integers, [{"input0": np.ones((1, 3, 4, 4), np.float32)}])
    interpreter = Interpreter(str(integers))
    interpreter.allocate_tensors()
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(image["index"], np.full(image["shape"], 127, np.int8))
    interpreter.invoke()
    scale, zero_point = scores["quantization"]
    found = scale * (interpreter.get_tensor(scores["index"])[..., 0].astype(float) - zero_point)
    np.testing.assert_allclose(found, 0.5, atol=scale)


@needs_litert
def test_int8_operations_are_timed_in_chains_and_the_sentinel_in_floats(tmp_path: Path) -> None:
    spec = parse_device("cpu+litert?precision=int8")
    write_model(SENTINEL, spec, tmp_path / "sentinel.tflite")
    workload = Workload("nor_conv_3x3", 8, 8, 8, 8)
    for name, model in repeated(workload, spec).items():
        assert model.chained
        write_model(model, spec, tmp_path / f"{name}.tflite")
        found, left = operators(tmp_path / f"{name}.tflite")
        assert found.count("CONV_2D") == int(name.partition("@")[2])
        assert not left
        assert not {"QUANTIZE", "DEQUANTIZE"} & set(found)
    assert operators(tmp_path / "sentinel.tflite")[0].count("CONV_2D") == 8


@needs_litert
@pytest.mark.slow
def test_a_search_for_a_table_of_int8_writes_a_network_of_litert(run: Run, tmp_path: Path) -> None:
    sized = SizedSpace(SPACES["nasbench201"], Setting(channels=4, depth=1, height=8, width=8))
    table = make_table(sized)
    runtime = table.runtime.model_copy(update={"name": "litert", "precision": "int8"})
    write_table(tmp_path / "table.json", table.model_copy(update={"runtime": runtime}))
    words = ("search", "--table", tmp_path / "table.json", "--data", "digits?size=8", "--recipe", "snas-short")
    words += ("--channels", 4, "--cells", 1, "--epochs", 1, "--child-epochs", 2, "--budget", "90%")
    result = run(*words, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    place = tmp_path / "run" / "90pct"
    assert (place / "network_int8.tflite").exists()
    assert not (place / "network_int8.onnx").exists()
    (row,) = json.loads(run("evaluate", tmp_path / "run", "--json").stdout)["targets"]
    content = json.loads((place / "architecture.json").read_text())["int8"]
    assert (content["onnx"], content["test_accuracy"]) == ("network_int8.tflite", row["litert_int8_accuracy"])
    assert row["litert_int8_accuracy"] == pytest.approx(row["onnx_accuracy"], abs=0.06)
    (place / "network_int8.tflite").unlink()
    refused = run("verify", tmp_path / "run", "--device", "cpu+litert?precision=int8")
    fix = "hwnas export .*90pct --quantize int8 --device cpu\\+litert"
    assert_one_clear_line(refused, "network_int8.tflite does not exist", fix)


def test_networks_for_browsers_are_translated_too(tmp_path: Path) -> None:
    """Their ReLUs are written as max(x, 0)."""
    source, web = tmp_path / "model.onnx", tmp_path / "web.onnx"
    RUNTIMES["onnxruntime"].write(nn.Sequential(nn.MaxPool2d(2), nn.ReLU()), [torch.zeros(1, 4, 4, 4)], source)
    RUNTIMES["onnxruntime-web"].convert(source, web)  # type: ignore[misc]
    assert "Max" in {node.op_type for node in onnx.load(web).graph.node}
    (layer,) = translate(onnx.load(web)).layers
    assert (layer.op, layer.options["fusedActivationFunction"]) == ("MAX_POOL_2D", "RELU")
