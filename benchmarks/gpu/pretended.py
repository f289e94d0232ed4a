"""Run a module with torch's GPU replaced by the simulated device of the tests, to rehearse what runs on a GPU.

python -m benchmarks.gpu.pretended hwnas search …
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map_only

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import hwnas.training.batches
from hwnas.training.checkpoint import Checkpoint
from support.accelerator import DEVICE, Accelerator, There


def replace_device() -> None:
    """Let searches and trainings compute on the simulated device; its tensors are saved as those of a GPU are."""
    hwnas.training.batches.choose_device = lambda asked: DEVICE
    save, export = Checkpoint.save, torch.onnx.export

    def save_values(checkpoint: Checkpoint, state: dict[str, Any]) -> None:
        with _disable_current_modes():
            save(checkpoint, tree_map_only(There, lambda tensor: tensor.held, state))

    def export_on_the_processor(*arguments: Any, **options: Any) -> Any:
        with _disable_current_modes():
            return export(*arguments, **options)

    Checkpoint.save = save_values  # type: ignore[method-assign]
    torch.onnx.export = export_on_the_processor


def main() -> None:
    module, sys.argv = sys.argv[1], sys.argv[1:]
    replace_device()
    with Accelerator():
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
