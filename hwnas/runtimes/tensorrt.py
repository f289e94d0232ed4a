"""TensorRT on an NVIDIA GPU, timed by its own program trtexec. It reads ONNX, and converts to float16 itself."""

from __future__ import annotations

from hwnas.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="tensorrt",
    profiler="tensorrt_trtexec.py",
    hardware=r"cuda:\d+",
    suffix=".onnx",
    processes=3,  # each builds all engines anew
    float16=True,
    own_float16=True,
    fixed_batch=True,
    takes_binary=True,
)
