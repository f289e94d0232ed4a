"""Networks in 8-bit integers; for ONNX Runtime with its static quantisation.

Convolutions and the classifier are quantised; everything between them stays in single precision, because ONNX Runtime's
integer poolings and additions take longer than those of floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from hwnas.files import atomic_path
from hwnas.runtimes.onnx_metadata import metadata_of

if TYPE_CHECKING:
    from onnx import ModelProto

FLOAT32, INT8 = "float32", "int8"
OPERATORS = ("Conv", "Gemm")
SETTINGS = {
    "format": "QDQ",
    "operators": list(OPERATORS),
    "weights": "int8 of 7 bits, per channel",
    "activations": "uint8",
    "calibration": "MinMax",
}
Feeds = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Int8:
    """The quantisation of networks to int8 for a runtime.

    - ``quantize``: write an ONNX file in int8, in the runtime's own format, with the ranges that activations have on
      some batches.
    - ``settings``: the settings of the quantisation, for the records.
    - ``package``: the package that it needs.
    - ``chains``: whether operations read the integers of the operation before them, without conversions to floats and
      back.
    """

    quantize: Callable[[Path, Path, Iterable[Feeds]], None]
    settings: Mapping[str, Any] = field(hash=False)
    package: str
    chains: bool


def quantize_onnx(source: Path, path: Path, batches: Iterable[Feeds]) -> None:
    """Write the ONNX model ``source`` to ``path`` with int8 weights, per channel, and uint8 activations (QDQ).

    Weights use 7 of the 8 bits: with all of them processors without VNNI saturate their sums. The ranges of activations
    are those on ``batches`` (input name -> float32 array [N, …]). Batch norms must have been folded into convolutions,
    as ``write_onnx`` does.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    model = onnx.load(source)
    described = metadata_of(model)
    _separate_biases(model)
    _keep_poolings_float(model)
    # Without this property ONNX Runtime advises to fold batch norms first.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with TemporaryDirectory(prefix="hwnas-") as name, atomic_path(path) as temporary:
        prepared, quantized = Path(name) / "prepared.onnx", Path(name) / "quantized.onnx"
        onnx.save(model, prepared)
        quantize_static(
            prepared,
            quantized,
            _reader(batches),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
            reduce_range=True,  # two products of 8 bits each overflow the 16 bits in which AVX2 adds them
        )
        result = onnx.load(quantized)
        del result.metadata_props[:]
        onnx.helper.set_model_props(result, {**described, "hwnas.precision": INT8})
        onnx.checker.check_model(result, full_check=True)
        onnx.save(result, temporary)


def random_feeds(path: Path) -> Feeds:
    """Return one batch of standard normal numbers for an ONNX file whose inputs have fixed shapes."""
    import onnx

    random = np.random.default_rng(0)
    inputs = onnx.load(path, load_external_data=False).graph.input
    shapes = {given.name: [axis.dim_value for axis in given.type.tensor_type.shape.dim] for given in inputs}
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def _separate_biases(model: ModelProto) -> None:
    """Give each layer a bias of its own.

    torch's exporter stores equal biases once. A bias is quantised with the scale of its own layer, and ONNX Runtime
    computes a layer in floats if its bias has the scale of another layer or is the output of a node.
    """
    graph = model.graph
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    copied_from = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    seen = set()
    for node in graph.node:
        if node.op_type in OPERATORS and len(node.input) == 3:
            bias = node.input[2]
            while bias in copied_from:
                bias = copied_from[bias]
            if bias in seen or bias != node.input[2]:
                copy = graph.initializer.add()
                copy.CopyFrom(initializers[bias])
                copy.name = node.input[2] = f"{node.output[0]}.bias"
            seen.add(bias)


def _keep_poolings_float(model: ModelProto) -> None:
    """Keep average poolings between quantised layers in floats; ONNX Runtime's integer ones take ten times as long.

    ONNX Runtime does not look past a maximum, so one is inserted after the pooling: with 0 instead of a ReLU, else with
    the least float, which changes nothing.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    poolings = {node.output[0] for node in graph.node if node.op_type == "AveragePool"}
    bounds: dict[str, float] = {}
    nodes = []
    for node in graph.node:
        name = node.input[0] if node.input else ""
        if name in poolings and node.op_type == "Relu":
            bounds["hwnas_zero"] = 0.0
            node = helper.make_node("Max", [name, "hwnas_zero"], list(node.output), node.name)
        elif name in poolings and node.op_type in OPERATORS:
            bounds["hwnas_least"] = float(np.finfo(np.float32).min)
            nodes.append(helper.make_node("Max", [name, "hwnas_least"], [f"{node.output[0]}.input"]))
            node.input[0] = nodes[-1].output[0]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    for name, bound in bounds.items():
        graph.initializer.append(numpy_helper.from_array(np.array(bound, dtype=np.float32), name))


def _reader(batches: Iterable[Feeds]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    remaining = iter(batches)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Feeds | None:
            return next(remaining, None)

    return Reader()
