"""Quantise LiteRT models to 8-bit integers throughout, from inputs to outputs, as integer accelerators need them.

Weights have a scale for each output channel, activations a scale and a zero point (LiteRT's own specification).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.imports import require_extra
from hwnas.runtimes.int8 import INT8, Feeds
from hwnas.runtimes.litert.graph import (
    ACTIVATIONS,
    Graph,
    Layer,
    Quantization,
    Tensor,
    constant,
    pack,
    tensors_of,
    write_graph,
)
from hwnas.runtimes.litert.layers import order_of
from hwnas.runtimes.litert.translate import translate
from hwnas.runtimes.onnx_metadata import metadata_of

WEIGHT_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0}  # that of the output channels
# Operators that write what they read: their inputs and outputs have one scale.
COPYING = (
    "AVERAGE_POOL_2D",
    "CONCATENATION",
    "MAX_POOL_2D",
    "PAD",
    "PADV2",
    "RELU",
    "RELU6",
    "RESHAPE",
    "STRIDED_SLICE",
    "TRANSPOSE",
)
SETTINGS = {
    "format": "LiteRT",
    "operators": "all",
    "weights": "int8, per channel",
    "activations": "int8",
    "calibration": "MinMax",
}
Range = tuple[float, float]


def quantize_litert(source: Path, path: Path, batches: Iterable[Feeds]) -> None:
    """Write the ONNX model ``source`` as a LiteRT model of int8 with int8 inputs and outputs.

    The ranges of activations are those on ``batches`` (input name -> float32 array [N, …]).
    Raises HwnasError for operators that have no translation, and when ai-edge-litert is not installed.
    """
    import onnx

    model = onnx.load(source)
    graph = translate(model)
    integers = quantized(graph, ranges_of(graph, batches))
    write_graph(integers, path, metadata_of(model) | {"hwnas.precision": INT8})


def ranges_of(graph: Graph, batches: Iterable[Feeds]) -> dict[int, Range]:
    """Return the least and the greatest value of each activation, by the identity of its tensor; 0 is always inside."""
    litert: Any = require_extra("ai_edge_litert.interpreter", "litert", "quantising models for LiteRT")
    interpreter = litert.Interpreter(
        model_content=pack(graph, {}),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        num_threads=1,
    )
    interpreter.allocate_tensors()
    found = {id(x): (0.0, 0.0) for x in tensors_of(graph) if x.data is None}
    # What PADV2 adds is the least number of all, which takes the least integer.
    filled = {id(layer.output) for layer in graph.layers if layer.op == "PADV2"}
    watched = [(n, x) for n, x in enumerate(tensors_of(graph)) if id(x) in found.keys() - filled]
    size = graph.inputs[0].shape[0]
    for feeds in batches:
        for first in range(0, len(feeds[graph.inputs[0].name]) - size + 1, size):
            for given, x in zip(interpreter.get_input_details(), graph.inputs, strict=True):
                images = feeds[x.name][first : first + size]
                interpreter.set_tensor(given["index"], np.ascontiguousarray(images.transpose(order_of(images.ndim))))
            interpreter.invoke()
            for number, x in watched:
                values, (least, greatest) = interpreter.get_tensor(number), found[id(x)]
                found[id(x)] = (min(least, float(values.min())), max(greatest, float(values.max())))
    return found


def quantized(graph: Graph, ranges: Mapping[int, Range]) -> Graph:
    """Return the graph in int8, with activations in the given ranges (by the identity of their tensors)."""
    shared = _shared_ranges(graph, ranges)
    integers: dict[int, Tensor] = {}

    def activation(x: Tensor) -> Tensor:
        if id(x) not in integers:
            integers[id(x)] = Tensor(x.shape, None, x.name, np.int8, _quantization(shared[id(x)]))
        return integers[id(x)]

    layers = []
    for layer in graph.layers:
        first = layer.inputs[0]
        assert first is not None
        inputs: list[Tensor | None]
        if layer.op in WEIGHT_AXIS:
            x, (weights, bias) = _operand(first, layer, activation), layer.inputs[1:]
            assert weights is not None
            assert bias is not None
            inputs = [x, *_weights(weights, bias, WEIGHT_AXIS[layer.op], x)]
        else:
            inputs = [_operand(x, layer, activation) if x else None for x in layer.inputs]
        layers.append(_delegated(Layer(layer.op, inputs, activation(layer.output), layer.options)))
    return Graph([activation(x) for x in graph.inputs], [activation(x) for x in graph.outputs], layers)


def _delegated(layer: Layer) -> Layer:
    """Return the form of a layer that XNNPACK runs: no ReLU of integers, but one after a pooling of a single pixel."""
    if layer.op not in ACTIVATIONS or len(layer.output.shape) != 4:
        return layer
    pixel = {"padding": "VALID", "strideH": 1, "strideW": 1, "filterHeight": 1, "filterWidth": 1}
    return Layer("MAX_POOL_2D", layer.inputs, layer.output, pixel | {"fusedActivationFunction": layer.op})


def _operand(x: Tensor, layer: Layer, activation: Any) -> Tensor:
    """Return an input of a layer: an activation, or a constant in the integers of that layer."""
    if x.data is None:
        return activation(x)
    if x.dtype is not np.float32:
        return x
    scale = activation(layer.output).quantization if layer.op in COPYING else _quantization(_range_of(x.data))
    return Tensor(x.shape, _rounded(x.data, scale), x.name, np.int8, scale)


def _shared_ranges(graph: Graph, ranges: Mapping[int, Range]) -> dict[int, Range]:
    """Return the ranges, united over the tensors that must have one scale."""
    leader = {name: name for name in ranges}

    def find(name: int) -> int:
        while leader[name] != name:
            name = leader[name]
        return name

    for layer in graph.layers:
        if layer.op in COPYING:
            for x in layer.inputs:
                if x is not None and x.data is None:
                    leader[find(id(x))] = find(id(layer.output))
    united: dict[int, Range] = {}
    for name, (least, greatest) in ranges.items():
        before = united.get(find(name), (0.0, 0.0))
        united[find(name)] = (min(before[0], least), max(before[1], greatest))
    found = {name: united[find(name)] for name in ranges}
    # The specification fixes the scale of a sigmoid's result.
    return found | {id(layer.output): (0.0, 255 / 256) for layer in graph.layers if layer.op == "LOGISTIC"}


def _range_of(values: NDArray[Any]) -> Range:
    return min(0.0, float(values.min())), max(0.0, float(values.max()))


def _quantization(found: Range) -> Quantization:
    """Return the scale and zero point with which −128 … 127 cover a range."""
    least, greatest = found
    scale = (greatest - least) / 255 or 1.0
    zero_point = int(np.clip(round(-128 - least / scale), -128, 127))
    return Quantization(np.array([scale], dtype=np.float32), zero_point)


def _rounded(values: NDArray[Any], found: Quantization | None) -> NDArray[np.int8]:
    assert found
    return np.clip(np.rint(values.astype(np.float64) / found.scale[0]) + found.zero_point, -128, 127).astype(np.int8)


def _weights(weights: Tensor, bias: Tensor, axis: int, x: Tensor) -> Sequence[Tensor]:
    """Return weights in −127 … 127 with a scale for each output channel, and the bias in 32 bits."""
    assert weights.data is not None
    assert bias.data is not None
    assert x.quantization
    others = tuple(a for a in range(weights.data.ndim) if a != axis)
    greatest = np.abs(weights.data).max(axis=others, keepdims=True)
    scale = np.where(greatest > 0, greatest / 127, 1.0).astype(np.float32)
    # A channel of tiny weights needs a larger scale, or its bias would not fit 32 bits.
    least = np.abs(bias.data) / (x.quantization.scale[0] * np.float64(2**30))
    scale = np.maximum(scale, least.reshape(scale.shape)).astype(np.float32)
    integers = constant(np.rint(weights.data / scale), np.int8, weights.name)
    integers.quantization = Quantization(scale.ravel(), 0, axis)
    scales = (x.quantization.scale[0] * scale.ravel().astype(np.float64)).astype(np.float32)
    limit = np.iinfo(np.int32)
    rounded = np.clip(np.rint(bias.data.astype(np.float64) / scales), limit.min, limit.max)
    terms = constant(rounded, np.int32, bias.name)
    terms.quantization = Quantization(scales, 0, 0)
    return integers, terms
