"""onnxruntime-web (WebAssembly): in headless Chromium, or in any browser that opens a page.

Slow ReLUs of its ONNX models are replaced: its ReLU branches on every number when it works in place (which it does if
nothing else reads its input later), and takes up to ten times as long on signs that cannot be predicted. max(x, 0)
gives the same numbers and always takes the same time. A ReLU is left as it is if only ReLUs read the result of a
convolution: the convolution applies it.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hwnas.files import atomic_path
from hwnas.runtimes.runtime import Runtime

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

ZERO = "hwnas_zero"


def convert_for_web(source: Path, path: Path) -> None:
    """Write the ONNX model ``source`` to ``path`` (which may be the same) with its slow ReLUs replaced."""
    import onnx

    model = onnx.load(source)
    _replace_relus(model)
    onnx.checker.check_model(model, full_check=True)
    with atomic_path(path) as temporary:
        onnx.save(model, temporary)


def _replace_relus(model: ModelProto) -> None:
    from onnx import numpy_helper

    graph = model.graph
    writers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {output.name for output in graph.output}

    def applied_by_a_convolution(name: str) -> bool:
        """Return whether only ReLUs read the result of a convolution, or of an addition fused into one."""
        if name in outputs or any(node.op_type != "Relu" for node in readers[name]):
            return False
        writer = writers.get(name)
        if writer is not None and writer.op_type == "Add":
            written = [writers[i] for i in writer.input if i in writers and len(readers[i]) == 1 and i not in outputs]
            return any(node.op_type == "Conv" for node in written)
        return writer is not None and writer.op_type == "Conv"

    slow = [node for node in graph.node if node.op_type == "Relu" and not applied_by_a_convolution(node.input[0])]
    for node in slow:
        node.op_type = "Max"
        node.input.append(ZERO)
    if slow and ZERO not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(np.array(0, dtype=np.float32), ZERO))


RUNTIME = Runtime(
    name="onnxruntime-web",
    profiler="browser.py",
    hardware=r"browser|page",
    suffix=".onnx",
    convert=convert_for_web,
    # A process takes 4 s to start and 0.3 s a model, but each compiles the runtime anew, not always equally fast.
    processes=4,
    rewrites=("share", "fuse"),
)
