"""The table of all runtimes."""

from __future__ import annotations

from hwnas.runtimes import ncnn, onnxruntime, onnxruntime_web, openvino, torch, webgpu

RUNTIMES = {
    module.RUNTIME.name: module.RUNTIME for module in (onnxruntime, onnxruntime_web, openvino, ncnn, torch, webgpu)
}
