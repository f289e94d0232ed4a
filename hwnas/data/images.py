"""Images in memory: train, validation and test kept apart, batches that depend on nothing but a seed and a step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.files import sha256_of

HELD_OUT = 0.2  # the share of the training images kept for validation where a data set names none


@dataclass(frozen=True)
class Split:
    """uint8 images [N, C, H, W] and int64 targets [N]."""

    images: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if not len(self.images):
            raise HwnasError("a split of the data has no images", "give a folder with more images or a larger share")

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def fingerprint(self) -> str:
        pixels = hashlib.sha256(self.images.contiguous().numpy().tobytes()).hexdigest()
        return sha256_of([list(self.images.shape), pixels, self.targets.tolist()])[:16]


@dataclass(frozen=True)
class ImageData:
    """A data set. ``load_test`` is called by evaluation alone: a search never reads the test images."""

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    load_test: Callable[[], Split]
    flip: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def test(self) -> Split:
        return self.load_test()

    @cached_property
    def mean(self) -> list[float]:
        return [round(v, 6) for v in (self.train.images.double().mean(dim=(0, 2, 3)) / 255).tolist()]

    @cached_property
    def std(self) -> list[float]:
        return [round(max(v, 1e-3), 6) for v in (self.train.images.double().std(dim=(0, 2, 3)) / 255).tolist()]

    @property
    def fingerprint(self) -> str:
        return sha256_of([self.train.fingerprint, self.validation.fingerprint, self.labels])[:16]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 with zero mean and unit deviation over the training images."""
        mean = torch.tensor(self.mean).view(1, -1, 1, 1)
        std = torch.tensor(self.std).view(1, -1, 1, 1)
        return (images.float() / 255 - mean) / std

    def train_batch(self, step: int, batch_size: int, seed: int, part: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The augmented batch of one step: a function of the seed and the step, so a resumed run sees the same one.

        ``part`` are the numbers of those training images that are meant, by default all. Every epoch visits them in an
        order of its own; the last, short batch is dropped (as in the papers' code).
        """
        epoch, position = divmod(step, self.steps_an_epoch(batch_size, part))
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(self.train) if part is None else len(part))
        chosen = torch.from_numpy(order[position * batch_size : (position + 1) * batch_size].copy())
        chosen = chosen if part is None else part[chosen]
        generator = torch.Generator().manual_seed(seed_of(seed, 2, step))
        images = self._augment(self.train.images[chosen], generator)
        return self.normalise(images), self.train.targets[chosen]

    def steps_an_epoch(self, batch_size: int, part: Tensor | None = None) -> int:
        return max(1, (len(self.train) if part is None else len(part)) // batch_size)

    def _augment(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Random crop after zero padding by an eighth of the side (4 pixels at 32), and a random horizontal flip."""
        count, _, height, width = images.shape
        pad = max(1, height // 8)
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        tops = torch.randint(2 * pad + 1, (count,), generator=generator)
        lefts = torch.randint(2 * pad + 1, (count,), generator=generator)
        rows = (tops[:, None] + torch.arange(height))[:, None, :, None]
        columns = (lefts[:, None] + torch.arange(width))[:, None, None, :]
        cropped = padded[
            torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[:, None, None], rows, columns
        ]
        if self.flip:
            flipped = torch.rand(count, generator=generator) < 0.5
            cropped[flipped] = cropped[flipped].flip(-1)
        return cropped

    def batches(self, split: Split, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image of a split once, in order, normalised."""
        for start in range(0, len(split), batch_size):
            images = split.images[start : start + batch_size]
            yield self.normalise(images), split.targets[start : start + batch_size]


def seed_of(*parts: int) -> int:
    """A 63-bit seed that depends on every part."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def divide(targets: np.ndarray, shares: tuple[float, ...], seed: int = 0) -> list[np.ndarray]:
    """Indices of disjoint parts with these shares of every class, in a random order that the seed fixes."""
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(targets):
        members = generator.permutation(np.flatnonzero(targets == label))
        bounds = np.round(np.cumsum(shares) * len(members)).astype(int)
        for part, (start, stop) in zip(parts, zip((0, *bounds[:-1]), bounds, strict=True), strict=True):
            part.append(members[start:stop])
    # Mixed again, so that no batch of a later pass in order holds one class alone.
    return [generator.permutation(np.concatenate(part)) for part in parts]
