"""Run a script with torchvision importable beside a CPU build of torch, which lacks two of its operators.

``python with_torchvision.py SCRIPT``
"""

from __future__ import annotations

import contextlib
import runpy
import sys

import torch

with contextlib.suppress(ImportError):
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.insert(0, "")
runpy.run_path(sys.argv[1], run_name="__main__")
