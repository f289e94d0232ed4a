"""How good a network's scores are: accuracy, calibration, which classes it takes for which."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.data import ImageData, Split
from hwnas.files import atomic_path

BINS = 15
TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Of the scores of a split's images. ``confusion[i][j]``: how many images of class i were taken for class j.

    ``top5_accuracy`` is None where there are no more than five classes.
    """

    accuracy: float
    top5_accuracy: float | None
    calibration_error: float
    confusion: list[list[int]]


def scores_of(
    network: Callable[[Tensor], Tensor], data: ImageData, split: Split, batch_size: int = 256
) -> NDArray[np.float32]:
    """The scores [N, classes] of a split's images, in order."""
    with torch.no_grad():
        return torch.cat([network(images) for images, _ in data.batches(split, batch_size)]).numpy()


def evaluate_scores(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> Evaluation:
    """``scores`` [N, classes] before the softmax, ``targets`` [N]."""
    classes = scores.shape[1]
    chosen = scores.argmax(axis=1)
    top5 = None
    if classes > TOP:
        best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
        top5 = float((best == targets[:, None]).any(axis=1).mean())
    confusion = np.bincount(targets * classes + chosen, minlength=classes**2).reshape(classes, classes)
    return Evaluation(float((chosen == targets).mean()), top5, calibration_error(scores, targets), confusion.tolist())


def calibration_error(scores: NDArray[np.float32], targets: NDArray[np.int64], bins: int = BINS) -> float:
    """Expected calibration error (Guo et al., ICML 2017): |accuracy - confidence| over bins of equal width.

    Confidence is the greatest probability of the softmax; a bin holds those in (m / bins, (m + 1) / bins].
    """
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)
    right = scores.argmax(axis=1) == targets
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=right - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(scores))


def write_confusion(path: Path, labels: Sequence[str], rows: Sequence[dict[str, Any]], runtimes: Sequence[str]) -> None:
    """Confusion matrices as one CSV file: a line a network, runtime and true class, a column a predicted class.

    A row need not have all of the ``runtimes``.
    """
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["device", "budget", "runtime", "class", *labels])
        for row in rows:
            for runtime in (name for name in runtimes if f"{name}_confusion" in row):
                for label, counts in zip(labels, row[f"{runtime}_confusion"], strict=True):
                    writer.writerow([row["device"], row["budget"], runtime, label, *counts])
