"""Remove the nodes that the exporter leaves for constants and weights: a chain for every padding, copies of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto, NodeProto


def fold_constants(model: ModelProto) -> None:
    """Replace nodes that depend on constants alone by their values, and drop constants without a reader, in place.

    Weights are no constants here.
    """
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array, to_array

    known: dict[str, np.ndarray] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            known[node.output[0]] = to_array(node.attribute[0].t)
        elif node.input and all(name in known for name in node.input if name):
            (known[node.output[0]],) = _computed(node, known)
            node = make_node("Constant", [], node.output, node.name, value=from_array(known[node.output[0]]))
        nodes.append(node)
    read = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    del model.graph.node[:]
    model.graph.node.extend(node for node in nodes if node.op_type != "Constant" or node.output[0] in read)


def name_weights_once(model: ModelProto) -> None:
    """Let every node read weights by the name of their tensor, in place.

    Where two weights have the same values, the exporter writes one and a node that copies it.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    first: dict[str, str] = {}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in weights:
            first[node.output[0]] = node.input[0]
            continue
        node.input[:] = [first.get(name, name) for name in node.input]
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _computed(node: NodeProto, known: dict[str, np.ndarray]) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input if name})
