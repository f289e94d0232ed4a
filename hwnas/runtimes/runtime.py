"""A runtime: the profiler program that times models with it, the hardware it runs on, and its model files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hwnas.files import shipped
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
    - ``int8``: how networks in int8 are made for it; None if they are not.
    """

    name: str
    profiler: str
    hardware: str
    suffix: str
    write_module: Callable[[nn.Module, Sequence[Tensor], Path], None] = write_onnx
    convert: Callable[[Path, Path], None] | None = None
    processes: int = 4
    rewrites: tuple[Rewrite, ...] | None = None
    int8: Int8 | None = None

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions in which networks can be written for it."""
        return (FLOAT32, INT8) if self.int8 else (FLOAT32,)

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
