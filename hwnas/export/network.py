"""Export a trained network: weights, ONNX with metadata, each searched cell alone; and compare ONNX with torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hwnas.data import ImageData, Split
from hwnas.errors import HwnasError
from hwnas.files import atomic_path
from hwnas.networks.child import ChildCell, ChildNetwork
from hwnas.networks.deployed import deployed, deployed_inputs
from hwnas.runtimes.litert.run import open_litert
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.runtimes.opset import OPSET
from hwnas.spaces import HIDDEN, CellInstance
from hwnas.training.evaluation import QualitySums
from hwnas.training.quality import Quality

NETWORK, NETWORK_INT8 = "network.onnx", "network_int8"  # in int8 followed by the suffix of a runtime
NETWORK_FLOAT16 = "network_float16.onnx"
WORD_INPUTS = ["word", "state"]  # of the ONNX file of a network of words
PARITY_IMAGES = 64
PARITY_WINDOWS = 4  # of words, each scored word after word
PARITY_TOLERANCE = 1e-4
FLOAT16_TOLERANCE = 2e-2  # a rounding errs by 5e-4, and a network has dozens of layers


@dataclass(frozen=True)
class Parity:
    """A runtime compared with torch: greatest difference of scores, share of images with equal classes.

    Of text, an image is a word of some sequences, each scored with the state that the words before it left.
    """

    images: int
    greatest_difference: float
    greatest_score: float
    same_class: float


def export_network(child: ChildNetwork, path: Path, metadata: Mapping[str, str], opset: int = OPSET) -> None:
    """Write ``child`` as ONNX: ``image`` [batch, C, H, W], normalised by the metadata, to ``scores`` [batch, K].

    A network of words is that of one step: ``word`` [batch], a number, and ``state`` [batch, C], zeros before the first
    word, to the ``scores`` [batch, K] of the next word and ``next_state`` [batch, C].
    """
    details = {"opset": str(opset), "batch": "dynamic", **metadata}
    prefixed = {f"hwnas.{key}": value for key, value in details.items()}
    setting = child.network.setting
    inputs, outputs = (WORD_INPUTS, ["scores", "next_state"]) if setting.words else (["image"], ["scores"])
    write_onnx(deployed(child), deployed_inputs(setting), path, prefixed, inputs, opset, outputs)


def export_cells(child: ChildNetwork, folder: Path, opset: int = OPSET) -> None:
    """Write the first cell of every kind alone, with its weights, as ``folder/<kind>.onnx``."""
    inputs: dict[str, list[Tensor]] = {}
    modules: dict[str, ChildCell] = {}
    values = dict(zip((-1, HIDDEN), deployed_inputs(child.network.setting), strict=False))
    child.eval()
    with torch.no_grad():
        for index, (part, module) in enumerate(zip(child.network.parts, child.parts, strict=True)):
            given = [values[source] for source in part.inputs]
            values[index] = module(*given)
            if isinstance(part, CellInstance) and part.kind not in modules:
                assert isinstance(module, ChildCell)
                modules[part.kind], inputs[part.kind] = module, given
    for kind, cell in modules.items():
        described = {"hwnas.cell": kind, "hwnas.batch": "dynamic"}
        write_onnx(cell, inputs[kind], folder / f"{kind}.onnx", described, opset=opset)


def open_session(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function images -> scores, or words [N, T] -> scores [N * T, K], that runs an ONNX or LiteRT file.

    Raises HwnasError when it cannot be loaded, and when the runtime is not installed.
    """
    import onnxruntime

    if not path.exists():
        raise HwnasError(f"{path} does not exist", "write it with 'hwnas search' or 'hwnas export'")
    if path.suffix == ".tflite":
        run_litert = open_litert(path)
        return lambda images: run_litert([images])[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise HwnasError(f"ONNX Runtime cannot load {path}: {str(error).splitlines()[0]}", "export it again") from None
    names = [given.name for given in session.get_inputs()]
    if names == WORD_INPUTS:
        return lambda words: _over_words(session, words)

    def run(images: np.ndarray) -> np.ndarray:
        return session.run(None, {names[0]: images})[0]

    return run


def _over_words(session: Any, words: np.ndarray) -> np.ndarray:
    """Run the network of one step over sequences of words [N, T], from states of zeros; return scores [N * T, K]."""
    state = np.zeros((len(words), session.get_inputs()[1].shape[1]), dtype=np.float32)
    found = []
    for column in words.T:
        scores, state = session.run(["scores", "next_state"], {"word": column, "state": state})
        found.append(scores)
    scored = np.stack(found, axis=1)
    return scored.reshape(-1, scored.shape[-1])


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata that hwnas wrote into an ONNX file, by name; empty for ONNX of others and without a file.

    Raises HwnasError when the file is no ONNX.
    """
    if not path.exists():
        return {}
    import onnx

    try:
        entries = onnx.load(path, load_external_data=False).metadata_props
    except Exception as error:  # of protobuf, which has several
        raise HwnasError(f"{path} is not an ONNX file: {error}", "export it again") from None
    return {entry.key.removeprefix("hwnas."): entry.value for entry in entries if entry.key.startswith("hwnas.")}


def check_parity(child: ChildNetwork, path: Path, data: ImageData, tolerance: float = PARITY_TOLERANCE) -> Parity:
    """Compare the ONNX file with the torch network on real validation images.

    Raises HwnasError when the scores differ by more than ``tolerance``, relative to the greatest one if that exceeds 1.
    """
    first = torch.arange(min(PARITY_WINDOWS if data.of_words else PARITY_IMAGES, len(data.validation)))
    images = data.normalise(data.validation.images[first])
    child.eval()
    with torch.no_grad():
        expected = child(images).numpy()
    actual = open_session(path)(images.numpy())
    return compare(actual, expected, str(path), tolerance)


def compare(actual: np.ndarray, expected: np.ndarray, name: str, tolerance: float) -> Parity:
    """Compare scores [N, K] with those of the original network. ``name`` is what computed them, for errors.

    Raises HwnasError when they differ by more than the tolerance, times the greatest score if that is above 1.
    """
    difference, greatest = float(np.abs(actual - expected).max()), float(np.abs(expected).max())
    same = float(np.mean(actual.argmax(axis=1) == expected.argmax(axis=1)))
    if not difference <= tolerance * max(1.0, greatest):
        raise HwnasError(f"{name} and the original network differ by {difference:.3g} (scores up to {greatest:.3g})")
    return Parity(len(actual), difference, greatest, same)


def file_network(path: Path) -> Callable[[Tensor], Tensor]:
    """Return an ONNX or LiteRT file as a function of tensors. Raises HwnasError when it cannot be loaded."""
    run = open_session(path)
    return lambda images: torch.from_numpy(run(images.numpy()))


def file_quality(path: Path, data: ImageData, split: Split) -> Quality:
    """Return the quality of an ONNX or LiteRT file on a split."""
    run = open_session(path)
    sums = QualitySums(data)
    for images, targets in data.batches(split, 256):
        sums.add(torch.from_numpy(run(images.numpy())), targets)
    return sums.quality(split)


def file_accuracy(path: Path, data: ImageData, split: Split) -> float:
    """Return the share of a split's images that the ONNX or LiteRT file classifies correctly."""
    return file_quality(path, data, split).accuracy


def save_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write a child's ``state_dict``."""
    from safetensors.torch import save_file

    with atomic_path(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)


def load_weights(child: ChildNetwork, path: Path) -> None:
    """Load the file of ``save_weights``. Raises HwnasError when it is missing, damaged or of another network."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        child.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise HwnasError(f"cannot read weights {path}: {reason}", "run the search again") from None


def data_metadata(data: ImageData) -> dict[str, str]:
    """Return the metadata that a user of the ONNX file needs: labels (words by their numbers, of a network of words),
    and the normalisation of images.
    """
    if data.of_words:
        return {"labels": json.dumps(data.labels), "data": data.name}
    return {
        "labels": json.dumps(data.labels),
        "normalisation": json.dumps({"scale": 1 / 255, "mean": data.mean, "std": data.std}),
        "data": data.name,
    }
