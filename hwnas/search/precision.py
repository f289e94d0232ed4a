"""float32, or bfloat16 where a processor multiplies it: what a supernet's passes are computed in while it is searched.

bfloat16 is torch's autocast: weights, optimisers, logits and sums stay in float32, so do cells with depthwise
convolutions (hwnas.networks.supernet), and derived networks are judged and trained in float32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from hwnas.training.precision import bfloat16_flag

Precision = Literal["auto", "float32", "bfloat16"]


def resolve(precision: Precision) -> Literal["float32", "bfloat16"]:
    """``auto`` is bfloat16 on a processor with instructions for it (AVX512-BF16, AMX)."""
    if precision != "auto":
        return precision
    return "bfloat16" if bfloat16_flag() else "float32"


def computing(precision: Literal["float32", "bfloat16"]) -> AbstractContextManager[object]:
    """A context in which modules compute in this precision."""
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()
