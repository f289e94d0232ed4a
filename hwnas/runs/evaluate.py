"""Evaluate the networks of a run on a split of the images, through ONNX Runtime and torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from hwnas.data import ImageData, Split
from hwnas.errors import HwnasError
from hwnas.export.network import file_network, read_metadata
from hwnas.export.timing import require_its_device, spec_of
from hwnas.files import atomic_path
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.read import load_images, read_networks, read_tables, require_trained
from hwnas.runs.schema import EvaluationRow, Measurement, RuntimeScores
from hwnas.runs.text_schema import TextScores
from hwnas.runs.verify import measurement, time_saved
from hwnas.runtimes.float16 import FLOAT16
from hwnas.training.evaluation import evaluate_scores, quality_of, scores_of

SPLITS = ("train", "validation", "test")
RUNTIME_NAMES = {
    "onnx": "ONNX Runtime",
    FLOAT16: "ONNX Runtime, float16",
    "int8": "ONNX Runtime, int8",
    "litert_int8": "LiteRT, int8",
    "torch": "torch",
}
INT8_NAMES = {".onnx": "int8", ".tflite": "litert_int8"}  # by suffix


def evaluate_run(
    folder: Path, split: str, data_spec: str | None, latency: bool, confusion: Path | None, progress: Progress
) -> list[EvaluationRow]:
    """Evaluate the ONNX files of a run and their torch networks on a split; return one row for each target.

    Networks in float16 and int8 are evaluated where there are any. With ``latency`` the networks are also timed on the
    run's devices. ``confusion`` is a CSV file to write the confusion matrices to.

    Raises HwnasError for an unknown split, an untrained network, and images that do not fit the networks.
    """
    if split not in SPLITS:
        raise HwnasError(f"unknown split {split!r}", "use train, validation or test")
    networks = read_networks(folder)
    require_trained(networks)
    if latency:
        for table in read_tables(networks).values():
            require_its_device(table)
    data = load_images(networks, data_spec, progress)
    if confusion and data.of_words:
        raise HwnasError("confusion matrices are of classes of images, and the networks score words", "leave them out")
    for network in networks:
        _require_its_words(network, data)
    rows = [_evaluate(network, data, split) for network in networks]
    if confusion:
        write_confusion(confusion, data.labels, rows)
    if not latency:
        return rows
    measured = _time(networks, progress)
    return [
        row.model_copy(update={"latency": measured[network.folder]})
        for network, row in zip(networks, rows, strict=True)
    ]


def _require_its_words(network: SavedNetwork, data: ImageData) -> None:
    """Raise HwnasError for text whose words have other numbers than those of the network."""
    if not data.of_words:
        return
    labels = read_metadata(network.onnx_file).get("labels")
    if labels is not None and labels != json.dumps(data.labels):
        raise HwnasError(
            f"the vocabulary of {data.name} is not that of the network in {network.folder}",
            "give the text it was trained on, and another test text with ?test=FILE",
        )


def _evaluate(network: SavedNetwork, data: ImageData, split: str) -> EvaluationRow:
    images = getattr(data, split)
    scores = {runtime: _scores(function, data, images) for runtime, function in _functions(network).items()}
    count = images.targets.numel()
    return EvaluationRow(
        target=network.id, device=network.device, budget=network.budget.text, images=count, scores=scores
    )


def _scores(function: Callable[[Tensor], Tensor], data: ImageData, images: Split) -> RuntimeScores | TextScores:
    if data.of_words:
        return TextScores(**quality_of(function, data, images).fields())
    return RuntimeScores(**asdict(evaluate_scores(scores_of(function, data, images), images.targets.numpy())))


def _functions(network: SavedNetwork) -> dict[str, Callable[[Tensor], Tensor]]:
    """Return a function images -> scores for each of RUNTIME_NAMES in which the network exists."""
    functions: dict[str, Callable[[Tensor], Tensor]] = {"onnx": file_network(network.onnx_file)}
    if network.float16_file.exists():
        functions[FLOAT16] = file_network(network.float16_file)
    functions |= {INT8_NAMES[file.suffix]: file_network(file) for file in network.int8_files()}
    return {**functions, "torch": network.child().eval()}


def _time(networks: Sequence[SavedNetwork], progress: Progress) -> dict[Path, list[Measurement]]:
    """Return the networks' latencies on every device by folder."""
    result: dict[Path, list[Measurement]] = {network.folder: [] for network in networks}
    for device, table in read_tables(list(networks)).items():
        on_device = [network for network in networks if device in network.tables]
        for folder, measured in time_saved(on_device, device, spec_of(table), progress).items():
            result[folder].append(measurement(device, measured))
    return result


def write_confusion(path: Path, labels: Sequence[str], rows: Sequence[EvaluationRow]) -> None:
    """Write confusion matrices as one CSV file: a line for each network, runtime and true class, a column for each
    predicted class.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["device", "budget", "runtime", "class", *labels])
        for row in rows:
            for runtime, scores in row.scores.items():
                assert isinstance(scores, RuntimeScores)
                for label, counts in zip(labels, scores.confusion, strict=True):
                    writer.writerow([row.device, row.budget, runtime, label, *counts])
