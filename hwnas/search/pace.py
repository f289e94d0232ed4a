"""The pace of a search on a GPU: steps a second, the memory of the GPU, the estimated end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import torch
from torch import Tensor

from hwnas.compute.memory import peak_gpu_bytes
from hwnas.data import ImageData
from hwnas.text import duration

DAY_S = 86_400


@dataclass
class Pace:
    """Measures a search of ``total`` steps from epoch to epoch, where the values of an epoch are read anyway: a step on
    a GPU is queued, and its end would have to be waited for.
    """

    device: torch.device
    total: int
    step: int
    clock: Callable[[], float] = time.monotonic
    today: Callable[[], datetime] = datetime.now
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        self._since = self.clock()

    def describe(self, step: int) -> str:
        """Return a line about the steps since the last call, at the end of the one before ``step``."""
        now, taken = self.clock(), step - self.step
        rate = taken / max(now - self._since, 1e-9)
        self._since, self.step = now, step
        parts = [f"{rate:.3g} steps a second"]
        if memory := peak_gpu_bytes(self.device):
            parts.append(f"{memory / 1e9:.2f} GB of GPU memory")
        if step < self.total and rate:
            left_s = (self.total - step) / rate
            end = self.today() + timedelta(seconds=left_s)
            parts.append(f"ends at about {end:%H:%M:%S} ({duration(left_s)} left)" if left_s < DAY_S else _far(end))
        return ", ".join(parts)


def _far(end: datetime) -> str:
    return f"ends at about {end:%Y-%m-%d %H:%M}"


def describe_images(data: ImageData) -> str:
    """Return where a search on a GPU has its training and validation images."""
    in_memory = [s.images for s in (data.train, data.validation) if isinstance(s.images, Tensor)]
    if len(in_memory) < 2:
        return "images are decoded on the processor and sent to the GPU batch by batch"
    held = sum(images.numel() * images.element_size() for images in in_memory)
    return f"{held / 1e6:.0f} MB of images are in the memory of the GPU"
