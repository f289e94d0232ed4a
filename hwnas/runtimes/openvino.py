"""OpenVINO on a CPU. It reads ONNX; its own format, for export, is NAME.xml (graph) and NAME.bin (weights)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.imports import require_extra
from hwnas.runtimes.runtime import Runtime


def write_ir(source: Path, path: Path) -> None:
    """Convert an ONNX model to OpenVINO's own format, in single precision.

    Raises HwnasError when OpenVINO is not installed.
    """
    openvino = require_extra("openvino", "openvino", "writing OpenVINO's format")
    openvino.save_model(openvino.convert_model(source), path, compress_to_fp16=False)


def open_ir(path: Path) -> Callable[[Sequence[NDArray[np.float32]]], list[NDArray[np.float32]]]:
    """Return a function that runs a model of OpenVINO in single precision.

    Raises HwnasError when OpenVINO is not installed.
    """
    openvino = require_extra("openvino", "openvino", "running models in OpenVINO")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        results = compiled(list(inputs))
        return [results[number] for number in range(len(results))]

    return run


RUNTIME = Runtime(
    name="openvino",
    profiler="openvino_cpu.py",
    hardware=r"cpu",
    suffix=".onnx",
    words=True,
    rewrites=("share", "fuse"),
)
