"""Export networks in the formats of other runtimes, and compare each file with torch before it is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hwnas.errors import HwnasError
from hwnas.export.network import WORD_INPUTS, Parity, compare, open_session
from hwnas.files import write_bytes
from hwnas.runtimes import executorch, ncnn, openvino
from hwnas.runtimes.litert.convert import convert_onnx

IMAGES = 16  # random ones, compared one by one
TOLERANCE = 1e-3  # of the greatest score: Winograd convolutions in single precision err by 1e-5
Arrays = Sequence[NDArray[np.float32]]
Scores = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Source:
    """A network to export: its ONNX file and, where it is known, the torch module that the file was made of."""

    onnx: Path
    module: nn.Module | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The image, [C, H, W]. Raises HwnasError unless the file is a model of one image of a fixed size."""
        import onnx

        try:
            inputs = onnx.load(self.onnx, load_external_data=False).graph.input
        except Exception as error:  # of protobuf, which has several
            raise HwnasError(f"{self.onnx} is not an ONNX file: {error}", "name another file") from None
        if [given.name for given in inputs] == WORD_INPUTS:
            raise HwnasError(f"{self.onnx} reads words, and only networks of images are converted", "use the ONNX file")
        dims = [[axis.dim_value for axis in given.type.tensor_type.shape.dim] for given in inputs]
        if len(dims) != 1 or len(dims[0]) != 4 or not all(dims[0][1:]):
            raise HwnasError(f"{self.onnx} does not take one image [N, C, H, W] of a fixed size", "name another file")
        return tuple(dims[0][1:])

    def scores(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the scores [N, K] of torch, or those of ONNX Runtime where there is no module."""
        if self.module is None:
            run = open_session(self.onnx)
            return np.concatenate([run(images[n : n + 1]) for n in range(len(images))])
        with torch.no_grad():
            scores: NDArray[np.float32] = self.module.eval()(torch.from_numpy(images)).numpy()
        return scores


@dataclass(frozen=True)
class Format:
    """A file format: how a network is written, and how a file is run on images.

    ``suffix`` is the ending of the file. ``runtime`` is the runtime that reads it. ``has_weights_file``: the weights
    are in a file of their own, which ends with ``.bin`` in place of the last ending.
    """

    suffix: str
    runtime: str
    write: Callable[[Source, Path], None]
    open: Callable[[Path], Scores]
    has_weights_file: bool = False

    @property
    def suffixes(self) -> list[str]:
        """The endings of all files of a network."""
        return [self.suffix, str(Path(f"x{self.suffix}").with_suffix(".bin"))[1:]][: 1 + self.has_weights_file]


def _of_onnx(convert: Callable[[Path, Path], None]) -> Callable[[Source, Path], None]:
    """Return a function that writes a network from its ONNX file."""
    return lambda source, path: convert(source.onnx, path)


def _of_one(open_model: Callable[[Path], Callable[[Arrays], list[NDArray[np.float32]]]]) -> Callable[[Path], Scores]:
    """Return a function that opens models of one input and one output."""

    def open_network(path: Path) -> Scores:
        run = open_model(path)
        return lambda images: run([images])[0]

    return open_network


def _write_onnx(source: Source, path: Path) -> None:
    write_bytes(path, source.onnx.read_bytes())


def _write_executorch(source: Source, path: Path) -> None:
    executorch.write_program(_module_of(source), [torch.zeros(1, *source.shape)], path)


FORMATS = {
    "onnx": Format(".onnx", "onnxruntime", _write_onnx, open_session),
    "litert": Format(".tflite", "litert", _of_onnx(convert_onnx), open_session),
    "executorch": Format(".pte", "executorch", _write_executorch, _of_one(executorch.open_program)),
    "openvino": Format(".xml", "openvino", _of_onnx(openvino.write_ir), _of_one(openvino.open_ir), True),
    "ncnn": Format(".ncnn.param", "ncnn", _of_onnx(ncnn.convert_onnx), _of_one(ncnn.open_ncnn), True),
}


def get_format(name: str) -> Format:
    """Return a format by name. Raises HwnasError for an unknown one."""
    if name not in FORMATS:
        raise HwnasError(f"unknown format {name!r}", f"use one of {', '.join(FORMATS)}")
    return FORMATS[name]


def write_format(source: Source, name: str, path: Path) -> Parity:
    """Write a network in a format, and return how it compares with torch (ONNX Runtime where no module is known).

    Both run on random images. Raises HwnasError, and writes nothing, when the scores differ by more than rounding, the
    format cannot express the network, or the format's package is not installed.
    """
    chosen = get_format(name)
    if not path.name.endswith(chosen.suffix):
        raise HwnasError(f"{path} is not the name of a file of {name}", f"let it end with {chosen.suffix}")
    images = np.random.default_rng(0).standard_normal((IMAGES, *source.shape), dtype=np.float32)
    with TemporaryDirectory(prefix="hwnas-") as folder:
        file = Path(folder) / f"network{chosen.suffix}"
        chosen.write(source, file)
        run = chosen.open(file)
        actual = np.concatenate([run(images[n : n + 1]) for n in range(IMAGES)])
        parity = compare(actual, source.scores(images), f"the network in the format {name}", TOLERANCE)
        for written in sorted(Path(folder).iterdir()):
            ending = written.name.removeprefix("network")
            write_bytes(path.with_name(path.name.removesuffix(chosen.suffix) + ending), written.read_bytes())
    return parity


def _module_of(source: Source) -> nn.Module:
    if source.module is None:
        raise HwnasError(
            f"ExecuTorch's format is written from a torch network, and {source.onnx} is an ONNX file",
            "name the run of hwnas search that the network is from",
        )
    return source.module
