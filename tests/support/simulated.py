"""Let whole commands, searches and trainings with their export, compute on the simulated device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

from hwnas.compute.device import CPU
from hwnas.training.checkpoint import Checkpoint
from support.accelerator import DEVICE, Accelerator, There

CHOOSERS = tuple(f"hwnas.{module}.choose_device" for module in ("training.batches", "runs.train", "runs.settle"))


@contextmanager
def simulated_gpu() -> Iterator[None]:
    """Choose the simulated device in the body, except where the CPU is requested. Its tensors are saved as those of a
    GPU are, by their values.
    """
    save, export = Checkpoint.save, torch.onnx.export

    def save_values(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        with _disable_current_modes():
            save(checkpoint, tree_map_only(There, lambda tensor: tensor.held, state))

    def export_on_the_processor(*arguments: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return export(*arguments, **options)

    with ExitStack() as stack:
        for chooser in CHOOSERS:
            stack.enter_context(patch(chooser, lambda asked: CPU if asked == "cpu" else DEVICE))
        stack.enter_context(patch.object(Checkpoint, "save", save_values))
        stack.enter_context(patch("torch.onnx.export", export_on_the_processor))
        stack.enter_context(Accelerator())
        yield
