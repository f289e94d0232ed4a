"""ONNX Runtime on a CPU: the default runtime, and the one that runs int8 networks."""

from __future__ import annotations

from hwnas.runtimes.int8 import FLOAT32, INT8
from hwnas.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="onnxruntime",
    profiler="onnxruntime_cpu.py",
    hardware=r"cpu",
    suffix=".onnx",
    processes=8,
    rewrites=("share", "fuse"),
    precisions=(FLOAT32, INT8),
)
