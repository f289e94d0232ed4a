"""Batches that worker processes decode ahead of time; what they hold and their order depend on the jobs alone."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from hwnas.data.files import ImageFiles
from hwnas.data.imagenet import ImagenetAugmentation, as_picture
from hwnas.errors import HwnasError

MOST_WORKERS = 16


@dataclass(frozen=True)
class Job:
    """The numbers of a batch's images, and the seeds of their augmentations."""

    numbers: NDArray[np.int64]
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Decoder:
    """Images by their numbers, augmented where there is an augmentation: from the whole image that a file holds.

    It is what a worker gets to do its jobs.
    """

    source: ImageFiles | Tensor
    augmentation: ImagenetAugmentation | None = None

    def batch(self, job: Job) -> Tensor:
        """uint8 [n, C, H, W]."""
        if self.augmentation is None:
            return self.source[torch.from_numpy(job.numbers)]
        pairs = zip(job.numbers, job.seeds, strict=True)
        return torch.stack([self.augmentation(self._picture(int(number)), seed) for number, seed in pairs])

    def _picture(self, number: int) -> Any:
        return self.source.open(number) if isinstance(self.source, ImageFiles) else as_picture(self.source[number])

    def __getitem__(self, job: Job) -> NDArray[np.uint8] | HwnasError:
        # An error is a value, which torch does not wrap into a worker's traceback; an array goes through a pipe, and
        # needs none of the shared memory of which containers often have little.
        try:
            return self.batch(job).numpy()
        except HwnasError as error:
            return error


def decode_ahead(decoder: Decoder, jobs: Iterable[Job], most: int = MOST_WORKERS) -> Iterator[Tensor]:
    """The jobs' batches in order, decoded by as many processes as there are processors, at most ``most`` (0: by none).

    Raises HwnasError for an image that cannot be decoded.
    """
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # Its own generator: by default it would draw from torch's, and change what others draw.
    loader: DataLoader[Any] = DataLoader(
        decoder,  # type: ignore[arg-type]  # it maps jobs to batches
        batch_size=None,
        sampler=jobs,
        num_workers=min(processors, MOST_WORKERS, most),
        collate_fn=_unchanged,
        generator=torch.Generator(),
    )
    with _own_handler_of_ended_processes():
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
        raise HwnasError(f"a process that decodes images ended ({reason})", "is there memory enough?") from error
    finally:
        del batches  # which ends its processes, even while the error is held


@contextmanager
def _own_handler_of_ended_processes() -> Iterator[None]:
    """Keep that of torch from staying: it raises an error wherever the program is when a worker has been killed.

    Without it the next batch raises one, within seconds.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)


def _unchanged(batch: Any) -> Any:
    return batch


class Stream:
    """The batches of a training: decoded ahead as long as its steps follow each other, begun anew at any other step."""

    def __init__(self, decoder: Decoder, job: Callable[[int], Job]) -> None:
        self.decoder, self.job = decoder, job
        self._step, self._batch = -1, torch.empty(0)
        self._later: Iterator[Tensor] | None = None

    def batch(self, step: int) -> Tensor:
        """That of a step; not to be written to, as the step may ask for it again."""
        if step != self._step:
            later, self._later = self._later, None  # after an error there is nothing to go on with
            if later is None or step != self._step + 1:
                later = decode_ahead(self.decoder, map(self.job, itertools.count(step)))
            self._batch = next(later)
            self._step, self._later = step, later
        return self._batch
