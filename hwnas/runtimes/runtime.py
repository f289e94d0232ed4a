"""A runtime: the profiler program that times models with it, the hardware it runs on, and its model files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwnas.files import shipped
from hwnas.runtimes.float16 import FLOAT16
from hwnas.runtimes.int8 import FLOAT32, INT8, Int8

if TYPE_CHECKING:
    from torch import Tensor, nn

# An optimisation of a cell's graph that changes what the cell costs (hwnas.cost.fusion).
Rewrite = Literal["share", "fuse"]


def write_onnx(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """Write a module as ONNX."""
    from hwnas.runtimes import onnx_model

    onnx_model.write_onnx(module, inputs, path)


@dataclass(frozen=True)
class Runtime:
    """One runtime that models can be timed with.

    - ``name``: the name in device specs and latency tables.
    - ``profiler``: a program in ``profilers/``.
    - ``hardware``: a regular expression for the hardware it runs on (``cpu``, ``cuda:0``, ``browser``).
    - ``suffix``: the ending of its model files. Further files of a model differ in the last ending only.
    - ``write_module``: write a module in evaluation mode, for example inputs, to a file.
    - ``convert``: convert that file to the runtime's own format (or ONNX to ONNX optimised for it); None if it reads
      the file as it is.
    - ``processes``: the least number of processes that a profile's rounds are spread over; fewer where loading is slow.
    - ``rewrites``: the optimisations of a cell that it is known to make; None if unknown, then fitted to networks.
    - ``float32``, ``float16``: whether networks in these precisions can be written for it.
    - ``int8``: how networks in int8 are made for it; None if they are not.
    - ``own_float16``: whether it converts float32 models to float16 itself.
    - ``fixed_batch``: whether its model files must have the batch size of the device.
    - ``words``: whether its profiler gives networks of words their input, in float32.
    - ``takes_binary``: whether a device may name the program that times models, with ``?binary=PATH``.
    """

    name: str
    profiler: str
    hardware: str
    suffix: str
    write_module: Callable[[nn.Module, Sequence[Tensor], Path], None] = write_onnx
    convert: Callable[[Path, Path], None] | None = None
    processes: int = 4
    rewrites: tuple[Rewrite, ...] | None = None
    float32: bool = True
    float16: bool = False
    int8: Int8 | None = None
    own_float16: bool = False
    fixed_batch: bool = False
    words: bool = False
    takes_binary: bool = False

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which networks can be written for it."""
        known = {FLOAT32: self.float32, FLOAT16: self.float16, INT8: self.int8}
        return tuple(precision for precision, possible in known.items() if possible)

    @property
    def program(self) -> Path:
        """The path of the profiler."""
        return shipped("profilers") / self.profiler

    def write(self, module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
        """Write a module, in evaluation mode, in the format that the runtime reads."""
        if not self.convert:
            self.write_module(module, inputs, path)
            return
        with tempfile.TemporaryDirectory(prefix="hwnas-") as name:
            source = Path(name) / "model.onnx"
            self.write_module(module, inputs, source)
            self.convert(source, path)

    @property
    def takes_onnx(self) -> bool:
        """Return whether an exported ONNX network can be timed, as it is or converted."""
        return self.suffix == ".onnx" or self.convert is not None
