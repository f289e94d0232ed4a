"""Give an ONNX network of a dynamic batch size a fixed one, for runtimes that need it."""

from __future__ import annotations

from pathlib import Path

from hwnas.files import atomic_path


def fix_batch(source: Path, path: Path, batch: int) -> None:
    """Write the ONNX model ``source`` to ``path`` with the batch size ``batch``, which is the first dimension."""
    import onnx

    model = onnx.load(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del model.graph.value_info[:]
    with atomic_path(path) as temporary:
        onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), temporary)
