"""Evaluation of networks: accuracy, calibration and confusion; recalibration of batch-norm statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hwnas.data import ImageData, Split
from hwnas.training.processes import SINGLE_PROCESS, Processes
from hwnas.training.quality import Quality, perplexity_of

RECALIBRATION_BATCHES = 20
BINS = 15
TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Quality of a network's scores on a split. ``confusion[i][j]``: number of images of class i classified as class j.

    ``top5_accuracy`` is None where there are no more than five classes.
    """

    accuracy: float
    top5_accuracy: float | None
    calibration_error: float
    confusion: list[list[int]]


class QualitySums:
    """Sums over the batches of a split, kept on the data's device."""

    def __init__(self, data: ImageData) -> None:
        self.of_words = data.of_words
        self.correct = torch.zeros((), dtype=torch.int64, device=data.device)
        self.loss = torch.zeros((), dtype=torch.float64, device=data.device)

    def add(self, scores: Tensor, targets: Tensor) -> None:
        """Add scores [N, classes] of the classes ``targets`` [N]."""
        self.correct += (scores.argmax(dim=1) == targets).sum()
        if self.of_words:
            self.loss += nn.functional.cross_entropy(scores.float(), targets, reduction="sum")

    def quality(self, split: Split, processes: Processes = SINGLE_PROCESS) -> Quality:
        """Return the quality on a split, over the batches of all processes."""
        predictions = split.targets.numel()
        share = processes.total(int(self.correct)) / predictions
        if not self.of_words:
            return Quality(share)
        return Quality(share, perplexity_of(processes.total(float(self.loss)) / predictions))


def recalibrate(child: nn.Module, data: ImageData, batch_size: int, seed: int) -> None:
    """Replace batch-norm statistics, which a supernet gathered over its mixture, by those of training batches."""
    norms = [m for m in child.modules() if isinstance(m, _BatchNorm)]
    if not norms:
        child.eval()
        return
    momentum = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    child.train()
    with torch.no_grad():
        for step in range(min(RECALIBRATION_BATCHES, data.steps_per_epoch(batch_size))):
            images, _ = data.train_batch(step, batch_size, seed)
            child(images)
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    child.eval()


def accuracy(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    split: Split,
    batch_size: int = 256,
    processes: Processes = SINGLE_PROCESS,
) -> float:
    """Return the share of correctly classified images of a split; several processes divide the batches."""
    return quality_of(network, data, split, batch_size, processes).accuracy


def quality_of(
    network: Callable[[Tensor], Tensor],
    data: ImageData,
    split: Split,
    batch_size: int = 256,
    processes: Processes = SINGLE_PROCESS,
) -> Quality:
    """Return the quality of a network on a split; several processes divide the batches."""
    sums = QualitySums(data)
    with torch.no_grad():
        for images, targets in data.batches(split, batch_size, slice(processes.rank, None, processes.count)):
            sums.add(network(in_layout(images, torch.channels_last)), targets)
    return sums.quality(split, processes)


def in_layout(images: Tensor, layout: torch.memory_format) -> Tensor:
    """Return images [N, C, H, W] in a memory layout; words [N, T], which have none, as they are."""
    return images.contiguous(memory_format=layout) if images.ndim == 4 else images


def cross_entropy(network: Callable[[Tensor], Tensor], data: ImageData, split: Split, batch_size: int = 256) -> float:
    """Return the mean cross entropy of a split's images, in nats."""
    total = torch.zeros((), dtype=torch.float64, device=data.device)
    with torch.no_grad():
        for images, targets in data.batches(split, batch_size):
            scores = network(images.contiguous(memory_format=torch.channels_last))
            total += nn.functional.cross_entropy(scores.float(), targets, reduction="sum")
    return float(total) / len(split)


def scores_of(
    network: Callable[[Tensor], Tensor], data: ImageData, split: Split, batch_size: int = 256
) -> NDArray[np.float32]:
    """Return the scores [N, classes] of a split's images, in order."""
    with torch.no_grad():
        return torch.cat([network(images) for images, _ in data.batches(split, batch_size)]).numpy()


def evaluate_scores(scores: NDArray[np.float32], targets: NDArray[np.int64]) -> Evaluation:
    """Evaluate ``scores`` [N, classes], taken before the softmax, against the classes ``targets`` [N]."""
    classes = scores.shape[1]
    chosen = scores.argmax(axis=1)
    top5 = None
    if classes > TOP:
        best = np.argpartition(-scores, TOP, axis=1)[:, :TOP]
        top5 = float((best == targets[:, None]).any(axis=1).mean())
    confusion = np.bincount(targets * classes + chosen, minlength=classes**2).reshape(classes, classes)
    return Evaluation(float((chosen == targets).mean()), top5, calibration_error(scores, targets), confusion.tolist())


def calibration_error(scores: NDArray[np.float32], targets: NDArray[np.int64], bins: int = BINS) -> float:
    """Return the expected calibration error (Guo et al., ICML 2017): |accuracy - confidence| over bins of equal width.

    Confidence is the greatest probability of the softmax; a bin holds those in (m / bins, (m + 1) / bins].
    """
    shifted = scores.astype(np.float64) - scores.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted).sum(axis=1)
    correct = scores.argmax(axis=1) == targets
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(scores))
