"""A graph of LiteRT operators, and the flatbuffer that it is written as (the schema comes with ai-edge-litert)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.files import write_bytes
from hwnas.imports import require_extra

SCHEMA_VERSION = 3
# Tables of options by operator. Operators that are not listed have none.
OPTIONS = {
    "ADD": "AddOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "CONCATENATION": "ConcatenationOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "MEAN": "ReducerOptions",
    "MUL": "MulOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "RESHAPE": "ReshapeOptions",
    "STRIDED_SLICE": "StridedSliceOptions",
    "TRANSPOSE": "TransposeOptions",
}
# The first versions of operators with the forms that are used here, in float32 and int8; 1 and 2 where not listed.
VERSIONS = {"CONV_2D": (1, 3), "DEPTHWISE_CONV_2D": (2, 3), "FULLY_CONNECTED": (1, 5), "QUANTIZE": (1, 1)}
UNVERSIONED = ("HARD_SWISH", "RESHAPE")
# Operators that can apply an activation to what they write.
FUSING = ("ADD", "AVERAGE_POOL_2D", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "MUL")
ACTIVATIONS = ("RELU", "RELU6")


@dataclass(frozen=True)
class Quantization:
    """real = scale · (integer − zero point); several scales belong to the slices along ``axis``."""

    scale: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph; ``data`` is its value if it is a constant. Images are [N, H, W, C]."""

    shape: tuple[int, ...]
    data: NDArray[Any] | None = None
    name: str = ""
    dtype: type[np.generic] = np.float32
    quantization: Quantization | None = None


@dataclass(eq=False)
class Layer:
    """An operator with one output. An input of None is left out."""

    op: str
    inputs: list[Tensor | None]
    output: Tensor
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Layers in the order in which they run."""

    inputs: list[Tensor]
    outputs: list[Tensor]
    layers: list[Layer]


def constant(values: Any, dtype: type[np.generic] = np.float32, name: str = "") -> Tensor:
    """Return a constant tensor."""
    array = np.ascontiguousarray(values, dtype=dtype)
    return Tensor(array.shape, array, name, dtype)


def optimise(graph: Graph) -> None:
    """Compute equal layers once, and apply activations where their input is written if nothing else reads that."""
    same: dict[int, Tensor] = {}
    seen: dict[Any, Tensor] = {}
    layers = []
    for layer in graph.layers:
        layer.inputs = [same.get(id(x), x) if x else None for x in layer.inputs]
        key = (layer.op, tuple(map(_identity, layer.inputs)), tuple(sorted(layer.options.items())))
        if key in seen and not any(layer.output is x for x in graph.outputs):
            same[id(layer.output)] = seen[key]
        else:
            seen.setdefault(key, layer.output)
            layers.append(layer)
    graph.layers = _fuse_activations(layers, graph.outputs)


def _identity(tensor: Tensor | None) -> Any:
    """Return a value that is equal for one tensor, and for small constants of equal content."""
    if tensor is not None and tensor.data is not None and tensor.data.size <= 16:
        return tensor.data.dtype.str, tensor.data.shape, tensor.data.tobytes()
    return id(tensor)


def _fuse_activations(layers: Sequence[Layer], outputs: Sequence[Tensor]) -> list[Layer]:
    readers: dict[int, int] = {id(x): 1 for x in outputs}
    for layer in layers:
        for tensor in layer.inputs:
            readers[id(tensor)] = readers.get(id(tensor), 0) + 1
    writers: dict[int, Layer] = {}
    remaining = []
    for layer in layers:
        writer = writers.get(id(layer.inputs[0]))
        if layer.op in ACTIVATIONS and writer and _can_fuse(writer) and readers[id(writer.output)] == 1:
            writer.options["fusedActivationFunction"] = layer.op
            writer.output = layer.output
            writers[id(layer.output)] = writer
            continue
        writers[id(layer.output)] = layer
        remaining.append(layer)
    return remaining


def _can_fuse(layer: Layer) -> bool:
    return layer.op in FUSING and "fusedActivationFunction" not in layer.options


def write_graph(graph: Graph, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a graph as a ``.tflite`` file. Raises HwnasError when ai-edge-litert is not installed."""
    write_bytes(path, pack(graph, metadata))


def pack(graph: Graph, metadata: Mapping[str, str]) -> bytes:
    """Return the graph as a ``.tflite`` file, with one signature, ``serving_default``.

    ``metadata`` is stored as buffers of UTF-8 text. Raises HwnasError when ai-edge-litert is not installed.
    """
    schema: Any = require_extra("ai_edge_litert.schema_py_generated", "litert", "writing models for LiteRT")
    import flatbuffers

    tensors = tensors_of(graph)
    index = {id(tensor): number for number, tensor in enumerate(tensors)}
    model = schema.ModelT()
    model.version, model.description = SCHEMA_VERSION, f"hwnas {__version__}"
    model.buffers, model.operatorCodes, model.metadata = [schema.BufferT()], [], []
    part = schema.SubGraphT()
    part.tensors = [_tensor(schema, tensor, number, model.buffers) for number, tensor in enumerate(tensors)]
    part.inputs, part.outputs = ([index[id(x)] for x in some] for some in (graph.inputs, graph.outputs))
    codes: dict[tuple[str, int], int] = {}
    part.operators = [_operator(schema, layer, index, codes) for layer in graph.layers]
    for op, version in codes:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, op)
        code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), version
        model.operatorCodes.append(code)
    model.subgraphs = [part]
    model.signatureDefs = [_signature(schema, graph, index)]
    for name, text in metadata.items():
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, len(model.buffers)
        model.buffers.append(_buffer(schema, np.frombuffer(text.encode(), np.uint8)))
        model.metadata.append(entry)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tensors_of(graph: Graph) -> list[Tensor]:
    """Return the tensors of a graph, each once, in the order of the file."""
    found = {id(x): x for x in graph.inputs}
    for layer in graph.layers:
        found |= {id(x): x for x in (*layer.inputs, layer.output) if x is not None}
    return list((found | {id(x): x for x in graph.outputs}).values())


def _tensor(schema: Any, tensor: Tensor, number: int, buffers: list[Any]) -> Any:
    packed = schema.TensorT()
    packed.name = tensor.name or f"tensor{number}"
    packed.shape = np.array(tensor.shape, dtype=np.int32)
    packed.type = getattr(schema.TensorType, np.dtype(tensor.dtype).name.upper())
    packed.hasRank = True
    packed.buffer = 0 if tensor.data is None else len(buffers)
    if tensor.data is not None:
        buffers.append(_buffer(schema, tensor.data.reshape(-1).view(np.uint8)))
    if tensor.quantization:
        packed.quantization = found = schema.QuantizationParametersT()
        found.scale = tensor.quantization.scale.astype(np.float32)
        found.zeroPoint = np.full(found.scale.shape, tensor.quantization.zero_point, dtype=np.int64)
        found.quantizedDimension = tensor.quantization.axis
    return packed


def _buffer(schema: Any, data: NDArray[np.uint8]) -> Any:
    buffer = schema.BufferT()
    buffer.data = data
    return buffer


def _operator(schema: Any, layer: Layer, index: Mapping[int, int], codes: dict[tuple[str, int], int]) -> Any:
    integers = any(x is not None and x.dtype is np.int8 for x in (*layer.inputs, layer.output))
    version = 1 if layer.op in UNVERSIONED else VERSIONS.get(layer.op, (1, 2))[integers]
    operator = schema.OperatorT()
    operator.opcodeIndex = codes.setdefault((layer.op, version), len(codes))
    operator.inputs = [-1 if x is None else index[id(x)] for x in layer.inputs]
    operator.outputs = [index[id(layer.output)]]
    if layer.op in OPTIONS:
        name = OPTIONS[layer.op]
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
        operator.builtinOptions = options = getattr(schema, f"{name}T")()
        for key, value in layer.options.items():
            enum = {"padding": "Padding", "fusedActivationFunction": "ActivationFunctionType"}.get(key)
            setattr(options, key, getattr(getattr(schema, enum), value) if enum else value)
    return operator


def _signature(schema: Any, graph: Graph, index: Mapping[int, int]) -> Any:
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    for side, tensors in (("inputs", graph.inputs), ("outputs", graph.outputs)):
        entries = []
        for tensor in tensors:
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = re.sub(r"\W", "_", tensor.name), index[id(tensor)]
            entries.append(entry)
        setattr(signature, side, entries)
    return signature
