"""ncnn on a CPU. Its models are converted from ONNX by pnnx: NAME.ncnn.param (graph) and NAME.ncnn.bin (weights)."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hwnas.errors import HwnasError
from hwnas.files import atomic_path
from hwnas.imports import require_extra
from hwnas.runtimes.runtime import Runtime

MAX_ERROR = 1e-3  # relative to the largest output; Winograd convolutions in single precision err by 1e-5
ATTEMPTS = 5  # pnnx 20261020 crashes now and then; on some TorchScript files one time in four


def convert_onnx(source: Path, path: Path) -> None:
    """Convert with pnnx, in single precision and for any batch size, and check the outputs against ONNX Runtime.

    ``path`` is NAME.ncnn.param; NAME.ncnn.bin is written next to it. pnnx folds batch norms, and ReLUs that follow,
    into convolutions, as in a deployed model. A conversion takes 0.7 s, most of it the start of pnnx.
    Raises HwnasError when pnnx or ncnn are not installed, or the outputs differ.
    """
    import onnxruntime

    pnnx = require_extra("pnnx", "ncnn", "writing models for ncnn")
    require_extra("ncnn", "ncnn", "writing models for ncnn")
    session = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    given = {}
    for x in session.get_inputs():
        batch = x.shape[0] if isinstance(x.shape[0], int) else 1
        given[x.name] = random.standard_normal([batch, *x.shape[1:]], dtype=np.float32)
    expected = session.run(None, given)
    with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
        folder = Path(name)
        _write_for_pnnx(source, folder / "model.onnx")
        _run_pnnx(pnnx.EXEC_PATH, folder, [x.shape for x in given.values()])
        graph, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
        graph.write_text(_fixed(graph.read_text(), [x.shape for x in given.values()]))
        computed = run_ncnn(graph, list(given.values()))
        for ours, theirs in zip(expected, computed, strict=True):
            if ours.shape != theirs.shape or abs(ours - theirs).max() > MAX_ERROR * abs(ours).max():
                raise HwnasError(f"the model that pnnx converted for {path} has other outputs", "use another runtime")
        for file, target in ((weights, path.with_suffix(".bin")), (graph, path)):
            with atomic_path(target) as temporary:
                temporary.write_bytes(file.read_bytes())


def _write_for_pnnx(source: Path, path: Path) -> None:
    """Write a copy whose averages round up in place of padding at the end alone, which pnnx does not know.

    Both mean the same (hwnas.runtimes.onnx_pools).
    """
    import onnx

    model = onnx.load(source)
    for node in model.graph.node:
        given = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "AveragePool" and "pads" in given:
            pads = list(given["pads"].ints)
            if not any(pads[:2]) and any(pads[2:]):
                given["pads"].ints[:] = [0, 0, 0, 0]
                node.attribute.append(onnx.helper.make_attribute("ceil_mode", 1))
    onnx.save(model, path)


def _run_pnnx(program: str, folder: Path, shapes: Sequence[Sequence[int]]) -> None:
    """Convert ``model.onnx`` in ``folder``; pnnx leaves a few other files there."""
    sizes = ",".join(f"[{','.join(map(str, shape))}]" for shape in shapes)
    command = [program, "model.onnx", f"inputshape={sizes}", "fp16=0"]
    for _ in range(ATTEMPTS):
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
        if result.returncode >= 0:
            break
    if result.returncode != 0 or not (folder / "model.ncnn.param").exists():
        last = (result.stderr.strip() or f"exit code {result.returncode}").splitlines()[-1]
        raise HwnasError(f"pnnx cannot convert the model: {last}", "use another runtime")


def run_ncnn(path: Path, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the outputs of an ncnn model, computed on one thread in single precision."""
    ncnn = require_extra("ncnn", "ncnn", "running models in ncnn")
    net = ncnn.Net()
    net.opt.num_threads = 1
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_packed", "bf16_storage"):
        setattr(net.opt, f"use_{name}", False)
    if net.load_param(str(path)) != 0 or net.load_model(str(path.with_suffix(".bin"))) != 0:
        raise HwnasError(
            f"ncnn cannot read {path.name}: it lacks an operation, or the file is damaged", "use another runtime"
        )
    extractor = net.create_extractor()
    for number, x in enumerate(inputs):
        extractor.input(f"in{number}", ncnn.Mat(x, 0).clone())
    count = sum(bool(re.fullmatch(r"out\d+", name)) for name in net.output_names())
    results = [extractor.extract(f"out{number}")[1] for number in range(count)]
    return [np.stack([np.array(x.batch(n)) for n in range(x.n)]) for x in results]


def open_ncnn(path: Path) -> Callable[[Sequence[np.ndarray]], list[np.ndarray]]:
    """Return a function that runs an ncnn model as ``run_ncnn`` does."""
    return lambda inputs: run_ncnn(path, inputs)


def _fixed(graph: str, shapes: Sequence[Sequence[int]]) -> str:
    """Return the graph with the sizes of its inputs, which the profiler reads, and two mistakes of pnnx corrected.

    In a graph of concatenations alone pnnx does not recognise the batch axis and counts it in the axis number, which
    ncnn does not. And an average over a window that overhangs an image without padding is divided by the pixels inside.
    """
    numbered = iter(shapes)
    lines = []
    for line in graph.splitlines():
        if line.startswith("Input "):
            _, channels, height, width = next(numbered)
            line += f" 0={width} 1={height} 2={channels}"
        elif line.startswith("Concat "):
            line = re.sub(r" 0=1$", " 0=0", line)
        elif line.startswith("Pooling ") and " 3=0 " in line:
            line = line.replace(" 6=1", " 6=0")
        lines.append(line)
    return "\n".join(lines) + "\n"


RUNTIME = Runtime(
    name="ncnn",
    profiler="ncnn_cpu.py",
    hardware=r"cpu",
    suffix=".ncnn.param",
    convert=convert_onnx,
    processes=8,
    rewrites=("share",),
)
