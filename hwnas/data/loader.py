"""Decode batches in advance in worker processes. Their content and order depend on the jobs only."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from hwnas.compute.device import available_cores
from hwnas.data.files import ImageFiles
from hwnas.data.imagenet import ImagenetAugmentation, to_pillow
from hwnas.errors import HwnasError

MAX_WORKERS = 16


@dataclass(frozen=True)
class Job:
    """Indices of a batch's images, and the seeds of their augmentations (empty without augmentation)."""

    indices: NDArray[np.int64]
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decoder:
    """Decode the images of a job, with an optional augmentation that takes the full-size image of a file.

    Worker processes receive a copy of this object.
    """

    source: ImageFiles | Tensor
    augmentation: ImagenetAugmentation | None = None

    def batch(self, job: Job) -> Tensor:
        """Return the job's images, uint8 [n, C, H, W]."""
        if self.augmentation is None:
            return self.source[torch.from_numpy(job.indices)]
        pairs = zip(job.indices, job.seeds, strict=True)
        return torch.stack([self.augmentation(self._full_size(int(index)), seed) for index, seed in pairs])

    def _full_size(self, index: int) -> Image.Image:
        return self.source.open(index) if isinstance(self.source, ImageFiles) else to_pillow(self.source[index])

    def __getitem__(self, job: Job) -> NDArray[np.uint8] | HwnasError:
        # Errors are returned, because torch wraps raised ones in a worker's traceback. Arrays travel through a pipe:
        # tensors would need shared memory, which containers often lack.
        try:
            return self.batch(job).numpy()
        except HwnasError as error:
            return error


def decode_ahead(decoder: Decoder, jobs: Iterable[Job], max_workers: int = MAX_WORKERS) -> Iterator[Tensor]:
    """Yield the jobs' batches in order, decoded by one process per processor, at most ``max_workers``.

    With 0 workers this process decodes them. Raises HwnasError for an image that cannot be decoded, or if a worker
    ends.
    """
    # A generator of its own: by default DataLoader would draw from torch's global one.
    loader: DataLoader[Any] = DataLoader(
        decoder,  # type: ignore[arg-type]  # maps jobs to batches
        batch_size=None,
        sampler=jobs,
        num_workers=min(available_cores(), MAX_WORKERS, max_workers),
        collate_fn=_unchanged,
        generator=torch.Generator(),
    )
    with _keep_child_signal_handler():
        batches = iter(loader)
    try:
        for batch in batches:
            if isinstance(batch, HwnasError):
                raise batch
            yield torch.from_numpy(batch)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise HwnasError(
            f"a worker process that decodes images ended ({reason})", "check that enough memory is free"
        ) from error
    finally:
        del batches  # ends the workers, even while a caller holds the error


@contextmanager
def _keep_child_signal_handler() -> Iterator[None]:
    """Restore the handler of SIGCHLD that torch replaces.

    torch's handler raises an error at whatever line the program is at when a worker is killed. Without it the next
    batch raises the error, within seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)


def _unchanged(batch: Any) -> Any:
    return batch


class Stream:
    """Batches of a training by step: decoded in advance for consecutive steps, restarted at any other step."""

    def __init__(self, decoder: Decoder, job: Callable[[int], Job]) -> None:
        self.decoder, self.job = decoder, job
        self._step, self._batch = -1, torch.empty(0)
        self._upcoming: Iterator[Tensor] | None = None

    def batch(self, step: int) -> Tensor:
        """Return the batch of a step. The caller must not modify it: the same step may be requested again."""
        if step != self._step:
            upcoming, self._upcoming = self._upcoming, None  # stays None if this step fails
            if upcoming is None or step != self._step + 1:
                upcoming = decode_ahead(self.decoder, map(self.job, itertools.count(step)))
            self._batch = next(upcoming)
            self._step, self._upcoming = step, upcoming
        return self._batch
