"""LiteRT (TensorFlow Lite) on a CPU, with XNNPACK. Its models, NAME.tflite, are converted from ONNX.

The converter is hwnas's own and knows the operators of hwnas's networks. Those of other packages take a second or more
for a model, where a profile writes hundreds, and pin other versions of numpy, onnx or jax.
"""

from hwnas.runtimes.int8 import Int8
from hwnas.runtimes.litert.convert import convert_onnx
from hwnas.runtimes.litert.int8 import SETTINGS, quantize_litert
from hwnas.runtimes.runtime import Runtime

RUNTIME = Runtime(
    name="litert",
    profiler="litert_cpu.py",
    hardware=r"cpu",
    suffix=".tflite",
    convert=convert_onnx,
    processes=8,
    rewrites=("share",),
    int8=Int8(quantize_litert, SETTINGS, package="ai-edge-litert", chains=True),
)
