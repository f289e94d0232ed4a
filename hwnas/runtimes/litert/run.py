"""Run LiteRT models on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import HwnasError
from hwnas.imports import require_extra
from hwnas.runtimes.litert.layers import order_of

Images = NDArray[np.float32]


def open_litert(path: Path) -> Callable[[Sequence[Images]], list[Images]]:
    """Return a function that runs a LiteRT model of floats or int8 on one thread.

    It takes and returns floats, images as [N, C, H, W] for any N. Raises HwnasError when the file is no model, and
    when ai-edge-litert is not installed.
    """
    litert: Any = require_extra("ai_edge_litert.interpreter", "litert", "running models in LiteRT")
    try:
        interpreter = litert.Interpreter(str(path), num_threads=1)
    except ValueError as error:
        raise HwnasError(f"LiteRT cannot load {path}: {str(error).splitlines()[0]}", "export it again") from None

    def run(inputs: Sequence[Images]) -> list[Images]:
        ordered = [np.ascontiguousarray(x.transpose(order_of(x.ndim))) for x in inputs]
        for given, x in zip(interpreter.get_input_details(), ordered, strict=True):
            interpreter.resize_tensor_input(given["index"], x.shape)
        interpreter.allocate_tensors()
        for given, x in zip(interpreter.get_input_details(), ordered, strict=True):
            interpreter.set_tensor(given["index"], _quantized(x, *given["quantization"]))
        interpreter.invoke()
        results = []
        for given in interpreter.get_output_details():
            y = _real(interpreter.get_tensor(given["index"]), *given["quantization"])
            results.append(y.transpose(np.argsort(order_of(y.ndim))))
        return results

    return run


def _quantized(x: Images, scale: float, zero_point: int) -> NDArray[Any]:
    """Return what a model reads: 8-bit integers if its input has a scale."""
    return np.clip(np.rint(x / scale) + zero_point, -128, 127).astype(np.int8) if scale else x


def _real(y: NDArray[Any], scale: float, zero_point: int) -> Images:
    """Return the numbers that a model's output stands for."""
    return np.float32(scale) * (y.astype(np.float32) - zero_point) if scale else y
