"""The runtimes that there are profilers for: which program, on what hardware, and how a model is written for it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.cost.fusion import Rewrite
from hwnas.files import shipped
from hwnas.runtimes.int8 import FLOAT32, INT8

if TYPE_CHECKING:
    from torch import Tensor, nn


def _write_onnx(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    from hwnas.runtimes.onnx_model import write_onnx

    write_onnx(module, inputs, path)


def _write_layers(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    from hwnas.runtimes.onnx_model import write_layers

    write_layers(module, inputs, path)


def _convert_to_ncnn(source: Path, path: Path) -> None:
    from hwnas.runtimes.ncnn_model import convert_onnx

    convert_onnx(source, path)


def _convert_for_web(source: Path, path: Path) -> None:
    from hwnas.runtimes.web_model import convert_for_web

    convert_for_web(source, path)


@dataclass(frozen=True)
class Runtime:
    """``profiler`` is a program in ``profilers/``; ``hardware`` the forms it runs on, as a regular expression.

    ``export`` makes a file of a module, and ``convert`` what the runtime reads of that file where it is another one
    (ONNX again: what is shipped for it); a second file that belongs to a model has the same name but for its last
    ending.
    ``processes`` over which a profile's rounds are spread at the least (fewer where loading is slow). ``rewrites`` are
    what its optimiser is known to do to a cell; None leaves it to the networks that the correction is fitted on.
    ``precisions`` are those in which networks are written for it.
    """

    profiler: str
    hardware: str
    suffix: str
    export: Callable[[nn.Module, Sequence[Tensor], Path], None] = _write_onnx
    convert: Callable[[Path, Path], None] | None = None
    processes: int = 4
    rewrites: tuple[Rewrite, ...] | None = None
    precisions: tuple[str, ...] = (FLOAT32,)

    @property
    def program(self) -> Path:
        return shipped("profilers") / self.profiler

    def write(self, module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
        """Write a module, in evaluation mode, as the model that the runtime reads."""
        if not self.convert:
            self.export(module, inputs, path)
            return
        with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            self.export(module, inputs, Path(name) / "model.onnx")
            self.convert(Path(name) / "model.onnx", path)

    @property
    def takes_onnx(self) -> bool:
        """Whether an exported network can be timed as it is, or converted."""
        return self.suffix == ".onnx" or self.convert is not None


RUNTIMES = {
    "onnxruntime": Runtime(
        "onnxruntime_cpu.py", r"cpu", ".onnx", processes=8, rewrites=("share", "fuse"), precisions=(FLOAT32, INT8)
    ),
    # 4 s to start and 0.3 s a model, but each process compiles the runtime anew, and not always to equally fast code.
    "onnxruntime-web": Runtime("browser.py", r"browser", ".onnx", convert=_convert_for_web, rewrites=("share", "fuse")),
    "openvino": Runtime("openvino_cpu.py", r"cpu", ".onnx", processes=6, rewrites=("share", "fuse")),
    "ncnn": Runtime("ncnn_cpu.py", r"cpu", ".ncnn.param", convert=_convert_to_ncnn, processes=8, rewrites=("share",)),
    "torch": Runtime("torch_eager.py", r"cpu|cuda:\d+", ".pt", _write_layers, processes=6, rewrites=()),
}
