"""ONNX Runtime on a CPU: the default runtime."""

from __future__ import annotations

from hwnas.runtimes.int8 import SETTINGS, Int8, quantize_onnx
from hwnas.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="onnxruntime",
    profiler="onnxruntime_cpu.py",
    hardware=r"cpu",
    suffix=".onnx",
    processes=8,
    words=True,
    rewrites=("share", "fuse"),
    int8=Int8(quantize_onnx, SETTINGS, package="onnxruntime", chains=False),
)
