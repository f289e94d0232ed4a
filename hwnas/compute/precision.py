"""Numeric precision of search and training: float32, tf32 on a GPU, or bfloat16 by torch's autocast.

Weights, optimisers, logits and sums stay in float32, and so do, in a search on a CPU, cells with depthwise convolutions
(hwnas.networks.mixed_cell). Networks are evaluated in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hwnas.compute.device import CPU
from hwnas.errors import HwnasError
from hwnas.recipe import Precision

AS_REQUESTED = "as requested"
BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
CPU_INFO = Path("/proc/cpuinfo")


def bfloat16_flag(cpu_info: Path = CPU_INFO) -> str | None:
    """Return the CPU flag of bfloat16 multiplication; None where the CPU has none, or the system lists no flags."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((flag for flag in BFLOAT16_FLAGS if flag in flags), None)


def choose_precision(requested: Precision, device: torch.device = CPU) -> tuple[str, str]:
    """Return float32, tf32 or bfloat16 for a recipe's ``precision``, and the reason.

    ``auto`` is bfloat16 on a processor that multiplies it, and float32 on a GPU, where bfloat16 has not been timed.
    Raises HwnasError for tf32 on a CPU: it is how GPUs multiply float32 faster, with 10 bits of the fraction.
    """
    on_gpu = device.type == "cuda"
    if requested == "tf32" and not on_gpu:
        raise HwnasError("precision tf32 needs a GPU", "use float32, bfloat16 or auto")
    if requested != "auto":
        return requested, AS_REQUESTED
    if on_gpu:
        return "float32", "bfloat16 has not been timed on a GPU: --precision bfloat16 asks for it"
    flag = bfloat16_flag()
    if flag:
        return "bfloat16", f"the processor has {flag}"
    return "float32", f"the processor has neither {' nor '.join(BFLOAT16_FLAGS)}"


@contextmanager
def computing(precision: str, device: torch.device = CPU) -> Iterator[None]:
    """Let modules compute in ``precision``."""
    # No cache of bfloat16 weights: each is used once a pass, and CUDA graphs do not allow it.
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
        yield


def multiply_in(precision: str, device: torch.device) -> None:
    """Set whether a GPU multiplies float32 exactly or as tf32, and make its choice of kernels deterministic."""
    if device.type == "cuda":
        # Not by torch's newer fp32_precision, which leaves these flags as they are: torch.export reads them, and fails
        # where they say otherwise.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.deterministic = True
