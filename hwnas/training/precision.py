"""In which numbers a search and a training compute: float32, or bfloat16 by torch's autocast.

Weights, optimisers, logits and sums stay in float32; so do, in a search, cells with depthwise convolutions
(hwnas.networks.supernet). Networks are judged in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import torch

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


def choose_precision(asked: str) -> tuple[str, str]:
    """float32 or bfloat16 for what was asked, and why: ``auto`` is bfloat16 on a processor that multiplies it."""
    if asked != "auto":
        return asked, "as asked"
    flag = bfloat16_flag()
    if flag:
        return "bfloat16", f"the processor has {flag}"
    return "float32", f"the processor has neither {' nor '.join(BFLOAT16_FLAGS)}"


def computing(precision: str) -> AbstractContextManager[object]:
    """A context in which modules compute in this precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16")
