"""WebGPU, by onnxruntime-web, in a browser that opens a page. Which operations it fuses is not known."""

from __future__ import annotations

from hwnas.runtimes.runtime import Runtime

RUNTIME = Runtime(name="webgpu", profiler="browser.html", hardware=r"page", suffix=".onnx")
