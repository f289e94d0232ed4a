"""The table of all runtimes."""

from __future__ import annotations

from pathlib import Path

from hwnas.runtimes import executorch, litert, ncnn, onnxruntime, onnxruntime_web, openvino, tensorrt, torch, webgpu
from hwnas.runtimes.int8 import Int8
from hwnas.runtimes.runtime import Runtime

MODULES = (onnxruntime, onnxruntime_web, openvino, ncnn, litert, executorch, tensorrt, torch, webgpu)
RUNTIMES = {module.RUNTIME.name: module.RUNTIME for module in MODULES}


def int8_of(path: Path) -> Int8:
    """Return how int8 networks are made in the format of a file's name."""
    return next(r.int8 for r in RUNTIMES.values() if r.int8 and path.name.endswith(r.suffix))


def int8_runtime(name: str) -> Runtime:
    """Return the runtime whose int8 networks are made for a table of a runtime; ONNX Runtime for those without any."""
    found = RUNTIMES.get(name)
    return found if found and found.int8 else RUNTIMES["onnxruntime"]
