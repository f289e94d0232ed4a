"""Write the average poolings of an ONNX model in the form that all runtimes compute alike: with explicit padding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def pad_explicitly(model: ModelProto) -> None:
    """Replace ``ceil_mode`` of average poolings over inputs of fixed height and width, in place.

    Torch divides an average over a window that reaches past the input by the number of pixels inside. Runtimes disagree
    on that where the padding counts (``count_include_pad``); padding at the end that does not count has one meaning.
    """
    if any(_rounds_up(node) for node in model.graph.node):
        sizes = _sizes(model)
        nodes = [new for node in model.graph.node for new in (_padded(node, sizes) if _rounds_up(node) else [node])]
        del model.graph.node[:]
        model.graph.node.extend(nodes)


def _padded(node: NodeProto, sizes: Mapping[str, list[int]]) -> Iterator[NodeProto]:
    """Yield the nodes that replace a pooling; itself where none do. ``sizes`` are heights and widths by tensor."""
    from onnx.helper import make_node

    given, size = _attributes(node), sizes.get(node.input[0])
    overhangs = _overhangs(given, size) if size else None
    if overhangs is None:
        yield node
        return
    del given["ceil_mode"]
    data, pads = node.input[0], _pads(given)
    if any(overhangs):
        if given.get("count_include_pad") and any(pads):  # the given padding counts, the new one must not
            yield from _pad(node, pads)
            data, pads = f"{node.output[0]}_padded", [0, 0, 0, 0]
        given |= {"pads": [*pads[:2], pads[2] + overhangs[0], pads[3] + overhangs[1]], "count_include_pad": 0}
    yield make_node(node.op_type, [data], node.output, node.name, **given)


def _overhangs(given: Mapping[str, Any], size: list[int]) -> list[int] | None:
    """Return how many pixels the last window reaches past the padding, below and to the right.

    Returns None if that window begins in the padding at the end: torch leaves it out, ONNX does not.
    """
    found = []
    for axis, (window, stride) in enumerate(zip(given["kernel_shape"], given.get("strides", [1, 1]), strict=True)):
        length, end = _pads(given)[axis] + size[axis], _pads(given)[2 + axis]
        last = -(-(length + end - window) // stride) * stride
        if last >= length:
            return None
        found.append(last + window - length - end)
    return found


def _pads(given: Mapping[str, Any]) -> list[int]:
    """Return the padding: above, to the left, below, to the right."""
    return given.get("pads", [0, 0, 0, 0])


def _pad(node: NodeProto, pads: list[int]) -> Iterator[NodeProto]:
    """Yield nodes that pad a pooling's input with zeros."""
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    all_axes = [0, 0, *pads[:2], 0, 0, *pads[2:]]
    sizes, padded = f"{node.output[0]}_pads", f"{node.output[0]}_padded"
    yield make_node("Constant", [], [sizes], value=from_array(np.array(all_axes, dtype=np.int64)))
    yield make_node("Pad", [node.input[0], sizes], [padded], f"{node.name}_pad", mode="constant")


def _sizes(model: ModelProto) -> dict[str, list[int]]:
    """Return the height and width of every tensor for which they are fixed."""
    from onnx.shape_inference import infer_shapes

    graph = infer_shapes(model).graph
    found = {}
    for value in (*graph.input, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and all(dim.HasField("dim_value") for dim in dims[2:]):
            found[value.name] = [dim.dim_value for dim in dims[2:]]
    return found


def _rounds_up(node: NodeProto) -> bool:
    return node.op_type == "AveragePool" and bool(_attributes(node).get("ceil_mode"))


def _attributes(node: NodeProto) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
