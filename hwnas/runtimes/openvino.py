"""OpenVINO on a CPU. It reads ONNX."""

from __future__ import annotations

from hwnas.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="openvino",
    profiler="openvino_cpu.py",
    hardware=r"cpu",
    suffix=".onnx",
    processes=6,
    rewrites=("share", "fuse"),
)
