"""Convert ONNX models to LiteRT."""

from __future__ import annotations

from pathlib import Path

from hwnas.runtimes.litert.graph import write_graph
from hwnas.runtimes.litert.translate import translate
from hwnas.runtimes.onnx_metadata import metadata_of


def convert_onnx(source: Path, path: Path) -> None:
    """Convert an ONNX model to LiteRT, for its batch size or, where that is not fixed, for one image.

    Inputs and outputs of four axes are [N, H, W, C]; another batch size can be set when the model is loaded
    (``resize_tensor_input``). Activations are fused into the layers before them, and equal layers run once.
    Raises HwnasError for operators that it does not know, and when ai-edge-litert is not installed.
    """
    import onnx

    model = onnx.load(source)
    write_graph(translate(model), path, metadata_of(model))
