"""In which numbers a search and a training compute: float32, on a GPU tf32, or bfloat16 by torch's autocast.

Weights, optimisers, logits and sums stay in float32; so do, in a search on a processor, cells with depthwise
convolutions (hwnas.networks.supernet). Networks are judged in float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from hwnas.compute.device import CPU
from hwnas.errors import HwnasError
from hwnas.recipe import Precision

BFLOAT16_FLAGS = ("amx_bf16", "avx512_bf16")
CPU_INFO = Path("/proc/cpuinfo")


def bfloat16_flag(cpu_info: Path = CPU_INFO) -> str | None:
    """What lets this processor multiply in bfloat16, by the system's name; None where it cannot, or does not say."""
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.split() for line in lines if line.startswith("flags")), [])
    return next((flag for flag in BFLOAT16_FLAGS if flag in flags), None)


def choose_precision(asked: Precision, device: torch.device = CPU) -> tuple[str, str]:
    """float32, tf32 or bfloat16 for what was asked, and why: ``auto`` is bfloat16 where the device multiplies it.

    Raises HwnasError for tf32 on a processor: it is how GPUs multiply float32 faster, with 10 bits of the fraction.
    """
    on_gpu = device.type == "cuda"
    if asked == "tf32" and not on_gpu:
        raise HwnasError("precision tf32 is of GPUs", "use float32, bfloat16 or auto")
    if asked != "auto":
        return asked, "as asked"
    if on_gpu:
        known = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU multiplies it") if known else ("float32", "the GPU does not multiply bfloat16")
    flag = bfloat16_flag()
    if flag:
        return "bfloat16", f"the processor has {flag}"
    return "float32", f"the processor has neither {' nor '.join(BFLOAT16_FLAGS)}"


@contextmanager
def computing(precision: str, device: torch.device = CPU) -> Iterator[None]:
    """Inside, modules compute in this precision."""
    # Weights in bfloat16 are not cached: each is used once a pass, and recorded passes
    # (hwnas.networks.fast.cuda_graphs) may not.
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False):
        yield


def multiply_in(precision: str, device: torch.device) -> None:
    """Let a GPU multiply float32 as it is, or as tf32; and let it take the same kernels in every run."""
    if device.type == "cuda":
        kind = "tf32" if precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = kind
        torch.backends.cudnn.conv.fp32_precision = kind  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = True
