"""Image data sets: training, validation and test splits, and batches that depend on seed and step only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.compute.device import CPU, to_device
from hwnas.compute.seeds import Purpose, SplitSeed, numpy_generator, seed_of, torch_generator
from hwnas.data.files import ImageFiles
from hwnas.data.imagenet import ImagenetAugmentation
from hwnas.data.loader import Decoder, Job, Stream, decode_ahead
from hwnas.errors import HwnasError
from hwnas.files import sha256_of

HELD_OUT = 0.2  # share of the training images held out for validation, and for test, where a data set has no such split
SAMPLED = 2_000  # number of streamed training images from which mean and standard deviation are computed
DECODED_AT_ONCE = 50
MAX_STREAMS = 2  # a search alternates between batches for weights and batches for logits
Augment = Literal["shift-flip", "flip", "imagenet"]
# Select the images of a split to use, from the split's class numbers [N] and name. Returns indices.
SelectImages = Callable[[NDArray[np.int64], str], NDArray[np.int64]]


@dataclass(frozen=True)
class Split:
    """uint8 images [N, C, H, W], in memory or streamed from files, and int64 targets [N].

    ``files`` are the files that images in memory were read from, in the same order; None if there are none.
    """

    images: Tensor | ImageFiles
    targets: Tensor
    files: ImageFiles | None = None

    def __post_init__(self) -> None:
        if not len(self.images):
            raise HwnasError("a split of the data has no images", "add images, or use a larger share")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def predictions(self) -> int:
        """The number of targets of an image: 1, or the words of a window."""
        return self.targets[0].numel()

    @property
    def strata(self) -> NDArray[np.int64]:
        """Classes [N] of which subsets have equal shares; windows of words are all of one."""
        return (self.targets if self.targets.ndim == 1 else torch.zeros(len(self), dtype=torch.int64)).cpu().numpy()

    @property
    def full_size(self) -> Tensor | ImageFiles:
        """The files, whose images have their original sizes; without files, the images in memory."""
        return self.files or self.images

    def subset(self, indices: NDArray[np.int64]) -> Split:
        images = self.images.subset(indices) if isinstance(self.images, ImageFiles) else self.images[indices]
        return Split(images, self.targets[indices], self.files and self.files.subset(indices))

    def on(self, device: torch.device) -> Split:
        """Return the split with targets and in-memory images on ``device``."""
        images = self.images.to(device) if isinstance(self.images, Tensor) else self.images
        return Split(images, self.targets.to(device), self.files)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of pixels and targets; of streamed images, of their files' names and sizes instead of pixels."""
        if isinstance(self.images, ImageFiles):
            return sha256_of([self.images.fingerprint, self.targets.tolist()])[:16]
        pixels = hashlib.sha256(self.images.cpu().contiguous().numpy().tobytes()).hexdigest()
        return sha256_of([list(self.images.shape), pixels, self.targets.tolist()])[:16]


@dataclass(frozen=True)
class ImageData:
    """A data set. Only evaluation calls ``load_test``: a search never reads the test images.

    Batches are made on ``device``, which also holds the images unless they are streamed. ``flip`` says whether
    augmentation mirrors images.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    validation: Split
    load_test: Callable[[], Split]
    flip: bool = True
    device: torch.device = CPU
    of_words: ClassVar[bool] = False  # true for text (hwnas.data.text)
    _streams: dict[object, Stream] = field(default_factory=dict, init=False, repr=False, compare=False)

    def on(self, device: torch.device) -> ImageData:
        """Return the data set with its batches on ``device``."""
        if device == self.device:
            return self
        train, validation = self.train.on(device), self.validation.on(device)
        return replace(self, train=train, validation=validation, load_test=lambda: self.test.on(device), device=device)

    def without_test(self) -> ImageData:
        """Return the data set without its test images; it can be pickled, to be sent to another process."""
        return replace(self, load_test=_no_test)

    def reward(self, loss: Tensor, correct: Tensor, images: int) -> float:
        """Return the reward of an architecture for a batch: the share of correctly classified ``images``."""
        return float(correct) / images

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def test(self) -> Split:
        return self.load_test()

    @cached_property
    def _levels(self) -> NDArray[np.int64]:
        """Histogram of the training images' pixel values (of a sample, if they are streamed), by channel [C, 256]."""
        images = self.train.images
        chunks = iter([images]) if isinstance(images, Tensor) else _decoded_sample(images)
        return np.sum([_count_levels(chunk) for chunk in chunks], axis=0)

    @cached_property
    def mean(self) -> list[float]:
        """Mean of every channel, in 0..1, over the training images; over 2,000 of them if they are streamed."""
        return [round(v, 6) for v in (_moments(self._levels)[0] / 255).tolist()]

    @cached_property
    def std(self) -> list[float]:
        """Standard deviation of every channel, over the same images as the mean."""
        return [round(max(v, 1e-3), 6) for v in (_moments(self._levels)[1] / 255).tolist()]

    @property
    def fingerprint(self) -> str:
        return sha256_of([self.train.fingerprint, self.validation.fingerprint, self.labels])[:16]

    def normalise(self, images: Tensor) -> Tensor:
        """Convert uint8 [N, C, H, W] to float32 with zero mean and unit deviation over the training images."""
        mean, std = self._scale
        return (images.float() / 255 - mean) / std

    @cached_property
    def _scale(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [1, C, 1, 1]."""
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return to_device(mean, self.device), to_device(std, self.device)

    def train_batch(
        self,
        step: int,
        batch_size: int,
        seed: int,
        subset: Tensor | None = None,
        augment: Augment = "shift-flip",
        share: slice = slice(None),
    ) -> tuple[Tensor, Tensor]:
        """Return the augmented images and the targets of one step, as a function of seed and step.

        ``subset`` holds the indices of the training images to use, by default all. Every epoch visits them in a new
        order and drops the last, short batch (as in the papers' code). ``augment`` imagenet crops the full-size images
        of the files, also where images are in memory. ``share`` selects some images of the batch, augmented as in the
        whole batch.

        Streamed images are decoded in advance for the steps that follow. Raises HwnasError for an image that cannot be
        decoded.
        """
        chosen = choose_batch(len(self.train), step, batch_size, seed, subset)
        count, chosen = len(chosen), chosen[share]
        indices = to_device(chosen, self.device)
        if isinstance(self.train.images, Tensor) and augment != "imagenet":
            images = self.train.images[indices]
        else:
            images = to_device(self._stream(batch_size, seed, subset, augment, share).batch(step), self.device)
        if augment != "imagenet":
            generator = torch_generator(seed, Purpose.AUGMENTATION, step)
            images = self._augment(images, generator, count, share, shift=augment == "shift-flip")
        return self.normalise(images), self.train.targets[indices]

    def images_per_step(self, batch_size: int, subset: Tensor | None = None) -> int:
        return min(batch_size, len(self.train) if subset is None else len(subset))

    def steps_per_epoch(self, batch_size: int, subset: Tensor | None = None) -> int:
        return _steps_per_epoch(len(self.train) if subset is None else len(subset), batch_size)

    def stop_decoding(self) -> None:
        """End the worker processes until the next batch is requested: latencies are timed on a quiet machine."""
        self._streams.clear()

    def _stream(self, batch_size: int, seed: int, subset: Tensor | None, augment: Augment, share: slice) -> Stream:
        """Return the stream of these batches. The most recently used streams stay open."""
        # The stream's job holds a reference to the subset, so its id stays valid.
        key = (batch_size, seed, id(subset), augment, share.start, share.stop)
        stream = self._streams.pop(key, None)
        if stream is None:
            count, (_, height, width) = len(self.train), self.shape
            augmentation = ImagenetAugmentation(height, width, self.flip) if augment == "imagenet" else None

            def job(step: int) -> Job:  # must not refer to self: workers end with the last reference to the data set
                indices = choose_batch(count, step, batch_size, seed, subset)[share].numpy()
                images = indices.tolist() if augmentation else []
                seeds = [seed_of(seed, Purpose.AUGMENTATION, step, image) for image in images]
                return Job(indices, tuple(seeds))

            source = self.train.full_size if augmentation else self.train.images
            stream = Stream(Decoder(source.cpu() if isinstance(source, Tensor) else source, augmentation), job)
        while len(self._streams) >= MAX_STREAMS:
            del self._streams[next(iter(self._streams))]
        self._streams[key] = stream
        return stream

    def _augment(
        self,
        images: Tensor,
        generator: torch.Generator,
        count: int | None = None,
        share: slice = slice(None),
        shift: bool = True,
    ) -> Tensor:
        """Pad with zeros by an eighth of the side (4 pixels at 32), crop at random and flip horizontally at random.

        Without ``shift``, images are only flipped.
        ``images`` are the ``share`` of a batch of ``count`` images, by default the whole batch. Random numbers are
        drawn for the whole batch.
        """
        size, _, height, width = images.shape
        count = count or size
        pad = max(1, height // 8) if shift else 0
        padded = torch.nn.functional.pad(images, (pad, pad, pad, pad))
        tops = torch.randint(2 * pad + 1, (count,), generator=generator)[share]
        lefts = torch.randint(2 * pad + 1, (count,), generator=generator)[share]
        rows, columns = tops[:, None] + torch.arange(height), lefts[:, None] + torch.arange(width)
        if self.flip:
            flipped = torch.rand(count, generator=generator)[share] < 0.5
            columns = torch.where(flipped[:, None], columns.flip(-1), columns)
        every, channels = (torch.arange(length, device=self.device) for length in (size, images.shape[1]))
        rows, columns = (
            to_device(rows, self.device)[:, None, :, None],
            to_device(columns, self.device)[:, None, None, :],
        )
        return padded[every[:, None, None, None], channels[:, None, None], rows, columns]

    def batches(self, split: Split, batch_size: int, share: slice = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the normalised images of a split once, in order, with their targets; ``share`` selects batches.

        Raises HwnasError for an image that cannot be decoded.
        """
        all_targets = split.targets.split(batch_size)[share]
        for images, targets in zip(_in_order(split.images, batch_size, share), all_targets, strict=True):
            yield self.normalise(to_device(images, self.device)), targets


def _no_test() -> Split:
    raise ValueError("the test images were not sent to this process")


def _in_order(images: Tensor | ImageFiles, batch_size: int, share: slice = slice(None)) -> Iterator[Tensor]:
    if isinstance(images, Tensor):
        return iter(images.split(batch_size)[share])
    jobs = [Job(indices) for indices in np.split(np.arange(len(images)), range(batch_size, len(images), batch_size))]
    jobs = jobs[share]
    # This process decodes a single batch: workers would take longer to start.
    return decode_ahead(Decoder(images), jobs, len(jobs) if len(jobs) > 1 else 0)


def _decoded_sample(files: ImageFiles) -> Iterator[Tensor]:
    chosen = np.sort(np.random.default_rng(0).permutation(len(files))[:SAMPLED])
    return _in_order(files.subset(chosen), DECODED_AT_ONCE)


def _count_levels(images: Tensor) -> NDArray[np.int64]:
    return torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).cpu().numpy()


def _moments(levels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and (unbiased) standard deviation [C] from a histogram [C, values]."""
    values, total = np.arange(levels.shape[1]), levels.sum(axis=1)
    mean = levels @ values / total
    squares = (levels * (values - mean[:, None]) ** 2).sum(axis=1)
    return mean, np.sqrt(squares / (total - 1))


def _steps_per_epoch(count: int, batch_size: int) -> int:
    return max(1, count // batch_size)


def choose_batch(count: int, step: int, batch_size: int, seed: int, subset: Tensor | None = None) -> Tensor:
    """Return the indices of the images in a step's batch, among ``count`` images or the indices in ``subset``."""
    count = count if subset is None else len(subset)
    epoch, position = divmod(step, _steps_per_epoch(count, batch_size))
    order = _order(seed, epoch, count)
    chosen = torch.from_numpy(order[position * batch_size : (position + 1) * batch_size].copy())
    return chosen if subset is None else subset[chosen]


@lru_cache(maxsize=8)
def _order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Order in which an epoch visits its images; cached, because every step needs it."""
    return numpy_generator(seed, Purpose.IMAGE_ORDER, epoch).permutation(count)


def divide(targets: np.ndarray, shares: tuple[float, ...], seed: int = SplitSeed.HOLD_OUT) -> list[np.ndarray]:
    """Return indices of disjoint parts with these shares of every class, in a random order fixed by the seed."""
    generator = np.random.default_rng(seed)
    parts: list[list[np.ndarray]] = [[] for _ in shares]
    for label in np.unique(targets):
        members = generator.permutation(np.flatnonzero(targets == label))
        bounds = np.round(np.cumsum(shares) * len(members)).astype(int)
        for part, (start, stop) in zip(parts, zip((0, *bounds[:-1]), bounds, strict=True), strict=True):
            part.append(members[start:stop])
    # Shuffled again, so that no batch of a pass in order holds a single class.
    return [generator.permutation(np.concatenate(part)) for part in parts]
