"""Convert ONNX networks to half precision with ONNX Runtime's converter."""

from __future__ import annotations

from pathlib import Path

from hwnas.files import atomic_path
from hwnas.runtimes.onnx_metadata import metadata_of

FLOAT16 = "float16"


def convert_to_float16(source: Path, path: Path, keep_inputs: bool = True) -> None:
    """Write the ONNX model ``source`` to ``path`` (which may be the same) with weights and activations in float16.

    ``keep_inputs`` keeps inputs and outputs in float32, cast within the network: it then ships in place of the one in
    single precision. Without it they are float16, too. A weight beyond the range of float16 is set to its limit.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = onnx.load(source)
    described = metadata_of(model)
    result = convert_float_to_float16(model, keep_io_types=keep_inputs)
    # The converter adds the casts of inputs last; a graph's nodes must be in the order of their inputs.
    nodes = sorted(result.graph.node, key=lambda node: not node.name.startswith("graph_input_cast"))
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    del result.metadata_props[:]
    onnx.helper.set_model_props(result, {**described, "hwnas.precision": FLOAT16})
    onnx.checker.check_model(result, full_check=True)
    with atomic_path(path) as temporary:
        onnx.save(result, temporary)
