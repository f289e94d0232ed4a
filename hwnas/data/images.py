"""Images: train, validation and test kept apart, batches that depend on nothing but a seed and a step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.compute.device import CPU, to_device
from hwnas.data.files import ImageFiles
from hwnas.data.imagenet import ImagenetAugmentation
from hwnas.data.loader import Decoder, Job, Stream, decode_ahead
from hwnas.errors import HwnasError
from hwnas.files import sha256_of

HELD_OUT = 0.2  # the share of the training images kept for validation where a data set names none
SAMPLED = 2_000  # training images, of those in files, that mean and deviation are computed from
DECODED_AT_ONCE = 50
MOST_STREAMS = 2  # a search takes turns between images for weights and for logits
Augment = Literal["shift-flip", "imagenet"]
Choose = Callable[[NDArray[np.int64], str], NDArray[np.int64]]  # the class numbers and name of a split, to images of it


@dataclass(frozen=True)
class Split:
    """uint8 images [N, C, H, W], in memory or decoded when they are asked for, and int64 targets [N].

    ``files`` are those that images in memory were read from, if there are such, in the same order.
    """

    images: Tensor | ImageFiles
    targets: Tensor
    files: ImageFiles | None = None

    def __post_init__(self) -> None:
        if not len(self.images):
            raise HwnasError("a split of the data has no images", "give a folder with more images or a larger share")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def whole(self) -> Tensor | ImageFiles:
        """The images at their own sizes, where there are files; otherwise as they are in memory."""
        return self.files or self.images

    def part(self, numbers: NDArray[np.int64]) -> Split:
        images = self.images.part(numbers) if isinstance(self.images, ImageFiles) else self.images[numbers]
        return Split(images, self.targets[numbers], self.files and self.files.part(numbers))

    def on(self, device: torch.device) -> Split:
        """The same, what is in memory held by ``device``."""
        images = self.images.to(device) if isinstance(self.images, Tensor) else self.images
        return Split(images, self.targets.to(device), self.files)

    @cached_property
    def fingerprint(self) -> str:
        """Of the pixels and targets; of images that are not in memory, of their files' names and sizes."""
        if isinstance(self.images, ImageFiles):
            return sha256_of([self.images.fingerprint, self.targets.tolist()])[:16]
        pixels = hashlib.sha256(self.images.cpu().contiguous().numpy().tobytes()).hexdigest()
        return sha256_of([list(self.images.shape), pixels, self.targets.tolist()])[:16]


@dataclass(frozen=True)
class ImageData:
    """A data set. ``load_test`` is called by evaluation alone: a search never reads the test images.

    Batches are made on ``device``, where the images are, too, unless they are in files.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    load_test: Callable[[], Split]
    flip: bool = True
    device: torch.device = CPU
    _streams: dict[object, Stream] = field(default_factory=dict, init=False, repr=False, compare=False)

    def on(self, device: torch.device) -> ImageData:
        """The same data set for networks that are computed on ``device``."""
        if device == self.device:
            return self
        train, validation = self.train.on(device), self.validation.on(device)
        return replace(self, train=train, validation=validation, load_test=lambda: self.test.on(device), device=device)

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def test(self) -> Split:
        return self.load_test()

    @cached_property
    def _levels(self) -> NDArray[np.int64]:
        """How often every pixel value occurs in the training images (or a sample of them), by channel [C, 256]."""
        images = self.train.images
        parts = iter([images]) if isinstance(images, Tensor) else _decoded_sample(images)
        return np.sum([_count_levels(part) for part in parts], axis=0)

    @cached_property
    def mean(self) -> list[float]:
        """Of every channel, pixels being 0 to 1: over the training images, or 2,000 of them where they are in files."""
        return [round(v, 6) for v in (_moments(self._levels)[0] / 255).tolist()]

    @cached_property
    def std(self) -> list[float]:
        return [round(max(v, 1e-3), 6) for v in (_moments(self._levels)[1] / 255).tolist()]

    @property
    def fingerprint(self) -> str:
        return sha256_of([self.train.fingerprint, self.validation.fingerprint, self.labels])[:16]

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> float32 with zero mean and unit deviation over the training images."""
        mean, std = self._scale
        return (images.float() / 255 - mean) / std

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation [1, C, 1, 1]."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return to_device(mean, self.device), to_device(std, self.device)

    def train_batch(
        self,
        step: int,
        batch_size: int,
        seed: int,
        part: Tensor | None = None,
        augment: Augment = "shift-flip",
        share: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """The augmented batch of one step: a function of the seed and the step, so a resumed run sees the same one.

        ``part`` are the numbers of those training images that are meant, by default all. Every epoch visits them in an
        order of its own; the last, short batch is dropped (as in the papers' code). ``augment`` imagenet crops the
        whole images of the files, whether they are in memory or not. ``share`` is a part of the batch: its images are
        augmented as they are in the whole.

        Images that must be decoded for it are so ahead of time, for the steps that follow this one. Raises HwnasError
        for one that cannot be.
        """
        chosen = choose_batch(len(self.train), step, batch_size, seed, part)
        count, chosen = len(chosen), chosen[share]
        numbers = to_device(chosen, self.device)
        if isinstance(self.train.images, Tensor) and augment == "shift-flip":
            images = self.train.images[numbers]
        else:
            images = to_device(self._stream(batch_size, seed, part, augment, share).batch(step), self.device)
        if augment == "shift-flip":
            images = self._augment(images, torch.Generator().manual_seed(seed_of(seed, 2, step)), count, share)
        return self.normalise(images), self.train.targets[numbers]

    def images_a_step(self, batch_size: int, part: Tensor | None = None) -> int:
        return min(batch_size, len(self.train) if part is None else len(part))

    def steps_an_epoch(self, batch_size: int, part: Tensor | None = None) -> int:
        return _steps_an_epoch(len(self.train) if part is None else len(part), batch_size)

    def stop_decoding(self) -> None:
        """Decode no batches ahead any more, until one is asked for: latencies are timed on a quiet machine."""
        self._streams.clear()

    def _stream(self, batch_size: int, seed: int, part: Tensor | None, augment: Augment, share: slice) -> Stream:
        """The stream that such batches come from; of several, those that were used last are kept."""
        # The stream's job keeps the part, and with it its id.
        key = (batch_size, seed, id(part), augment, share.start, share.stop)
        stream = self._streams.pop(key, None)
        if stream is None:
            count, (_, height, width) = len(self.train), self.shape
            augmentation = ImagenetAugmentation(height, width, self.flip) if augment == "imagenet" else None

            def job(step: int) -> Job:  # without self: processes end with the last reference to their data set
                numbers = choose_batch(count, step, batch_size, seed, part)[share].numpy()
                seeds = [seed_of(seed, 2, step, number) for number in numbers.tolist()] if augmentation else []
                return Job(numbers, tuple(seeds))

            source = self.train.whole if augmentation else self.train.images
            stream = Stream(Decoder(source.cpu() if isinstance(source, Tensor) else source, augmentation), job)
        while len(self._streams) >= MOST_STREAMS:
            del self._streams[next(iter(self._streams))]
        self._streams[key] = stream
        return stream

    def _augment(
        self, images: Tensor, generator: torch.Generator, count: int | None = None, share: slice = slice(None)
    ) -> Tensor:
        """Random crop after zero padding by an eighth of the side (4 pixels at 32), and a random horizontal flip.

        ``images`` are that share of a batch of ``count``, by default all of it: the random numbers are the batch's.
        """
        own, _, height, width = images.shape
        count = count or own
        pad = max(1, height // 8)
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        tops = torch.randint(2 * pad + 1, (count,), generator=generator)[share]
        lefts = torch.randint(2 * pad + 1, (count,), generator=generator)[share]
        rows, columns = tops[:, None] + torch.arange(height), lefts[:, None] + torch.arange(width)
        if self.flip:
            flipped = torch.rand(count, generator=generator)[share] < 0.5
            columns = torch.where(flipped[:, None], columns.flip(-1), columns)
        every, channels = (torch.arange(size, device=self.device) for size in (own, images.shape[1]))
        rows, columns = (
            to_device(rows, self.device)[:, None, :, None],
            to_device(columns, self.device)[:, None, None, :],
        )
        return padded[every[:, None, None, None], channels[:, None, None], rows, columns]

    def batches(self, split: Split, batch_size: int, which: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image of a split once, in order, normalised; or of all these batches some. Raises HwnasError for an
        image that cannot be decoded.
        """
        targets = split.targets.split(batch_size)[which]
        for images, theirs in zip(_in_order(split.images, batch_size, which), targets, strict=True):
            yield self.normalise(to_device(images, self.device)), theirs


def _in_order(images: Tensor | ImageFiles, batch_size: int, which: slice = slice(None)) -> Iterator[Tensor]:
    if isinstance(images, Tensor):
        return iter(images.split(batch_size)[which])
    jobs = [Job(numbers) for numbers in np.split(np.arange(len(images)), range(batch_size, len(images), batch_size))]
    jobs = jobs[which]
    # One batch alone is decoded here: processes would take longer to begin.
    return decode_ahead(Decoder(images), jobs, len(jobs) if len(jobs) > 1 else 0)


def _decoded_sample(files: ImageFiles) -> Iterator[Tensor]:
    chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:SAMPLED])
    return _in_order(files.part(chosen), DECODED_AT_ONCE)


def _count_levels(images: Tensor) -> NDArray[np.int64]:
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).cpu().numpy()


def _moments(levels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and (unbiased) deviation [C] of values that occur so often [C, values]."""
    values, total = np.arange(levels.shape[1]), levels.sum(axis=1)
    mean = levels @ values / total
    squares = (levels * (values - mean[:, None]) ** 2).sum(axis=1)
    return mean, np.sqrt(squares / (total - 1))


def _steps_an_epoch(count: int, batch_size: int) -> int:
    return max(1, count // batch_size)


def choose_batch(count: int, step: int, batch_size: int, seed: int, part: Tensor | None = None) -> Tensor:
    """The numbers of the images in a step's batch, of ``count`` images or those that ``part`` has the numbers of."""
    count = count if part is None else len(part)
    epoch, position = divmod(step, _steps_an_epoch(count, batch_size))
    order = _order(seed, epoch, count)
    chosen = torch.from_numpy(order[position * batch_size : (position + 1) * batch_size].copy())
    return chosen if part is None else part[chosen]


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """In which an epoch visits its images; kept, as every step needs it."""
    return np.random.default_rng([seed, 1, epoch]).permutation(count)


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
