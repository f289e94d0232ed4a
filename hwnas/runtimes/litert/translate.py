"""Translate an ONNX model to a graph of LiteRT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwnas.runtimes.litert.graph import Graph, Tensor, optimise
from hwnas.runtimes.litert.layers import TRANSLATIONS, Translation, unsupported
from hwnas.runtimes.onnx_constants import fold_constants

if TYPE_CHECKING:
    from onnx import ModelProto


def translate(model: ModelProto) -> Graph:
    """Translate an ONNX model to a graph of LiteRT. Raises HwnasError for operators that have no translation."""
    from onnx import helper, numpy_helper

    model = _of_fixed_shapes(model)
    graph = model.graph
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = _fixed_shapes(model) | {name: value.shape for name, value in values.items()}
    found = Translation(values, shapes)
    inputs = [Tensor(found.stored_shape(x.name), name=x.name) for x in graph.input if x.name not in values]
    found.tensors |= {x.name: x for x in inputs}
    for node in graph.node:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Constant":
            if "value" not in given:
                raise unsupported(f"it has a Constant with {', '.join(given)}")
            values[node.output[0]] = numpy_helper.to_array(given["value"])
            shapes[node.output[0]] = values[node.output[0]].shape
        elif node.op_type not in TRANSLATIONS or node.domain not in ("", "ai.onnx"):
            raise unsupported(f"it has the operator {node.op_type}")
        else:
            found.tensors[node.output[0]] = TRANSLATIONS[node.op_type](found, node, given)
    outputs = [found.tensor(value.name) for value in graph.output]
    for value, tensor in zip(graph.output, outputs, strict=True):
        tensor.name = tensor.name or value.name
    result = Graph(inputs, outputs, found.layers)
    optimise(result)
    return result


def _of_fixed_shapes(model: ModelProto) -> ModelProto:
    """Return a copy for one image where the batch size is free, with the shapes of all tensors, and constants folded.

    Zeros, which stand for edges without an operation, become constants.
    """
    from onnx import ModelProto, shape_inference
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    copy = ModelProto()
    copy.CopyFrom(model)
    for value in (*copy.graph.input, *copy.graph.output):
        if value.type.tensor_type.shape.dim:
            batch = value.type.tensor_type.shape.dim[0]
            batch.dim_value = batch.dim_value or 1
    del copy.graph.value_info[:]
    copy = shape_inference.infer_shapes(copy, data_prop=True)
    fixed = _fixed_shapes(copy)
    for node in copy.graph.node:
        if node.op_type == "Shape" and node.input[0] in fixed:
            shape = from_array(np.array(fixed[node.input[0]], dtype=np.int64))
            node.CopyFrom(make_node("Constant", [], node.output, node.name, value=shape))
    fold_constants(copy)
    return shape_inference.infer_shapes(copy, data_prop=True)


def _fixed_shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors but weights, as far as they are fixed."""
    graph, found = model.graph, {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            found[value.name] = tuple(dim.dim_value for dim in dims)
    return found
