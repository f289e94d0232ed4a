"""Memory: how much of a GPU's this process takes, one clear error where it does not suffice, reuse of freed memory."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from hwnas.errors import HwnasError
from hwnas.text import plural

MALLOPT = ((-3, 32 << 20), (-1, 2**31 - 1), (-2, 64 << 20))  # glibc's mmap and trim thresholds, and its top pad


def keep_freed_memory() -> None:
    """Let glibc reuse the memory that a step frees: fresh pages cost up to a tenth of a step."""
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for parameter, value in MALLOPT:
            mallopt(parameter, value)


def peak_gpu_bytes(device: torch.device) -> int | None:
    """Return the most memory that torch has held on a GPU, recorded CUDA graphs included; None on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None


@contextmanager
def enough_memory(images: int) -> Iterator[None]:
    """Compute steps of ``images`` images, or prepare them, in the body.

    Raises HwnasError, which names the batch size, where the memory of the GPU does not suffice.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        wanted = str(error).partition("Tried to allocate ")[2].partition(". ")[0]
        lacking = f" ({wanted} more were asked for)" if wanted else ""
        smaller = f", such as {images // 2}" * (images >= 4)
        raise HwnasError(
            f"the memory of the GPU does not suffice for a step of {plural(images, 'image')}{lacking}",
            f"give a smaller --batch-size{smaller} (for the networks of a search, child.batch_size or "
            "finalists.batch_size in its recipe), fewer channels or cells, or --compute cpu",
        ) from error
