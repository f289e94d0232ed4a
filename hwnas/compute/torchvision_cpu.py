"""Import torchvision with a CPU build of torch.

torchvision's wheels are built against CUDA. With a CPU build of torch their compiled operators do not load, and the
import fails because two operators have no schema. With the schemas declared, datasets, transforms and models work.
"""

from __future__ import annotations

import contextlib
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import torch


def torchvision_datasets() -> ModuleType:
    """Return ``torchvision.datasets``, with any build of torch."""
    return _import("torchvision.datasets")


def torchvision_transforms() -> ModuleType:
    """Return ``torchvision.transforms.v2``, with any build of torch."""
    return _import("torchvision.transforms.v2")


def declare_operators() -> None:
    """Declare what torchvision's import needs and a CPU build of torch lacks; do nothing where its operators load."""
    if not _operators_load():
        for name in ("nms", "qnms"):
            with contextlib.suppress(RuntimeError):  # already declared
                torch.library.define(
                    f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )


def _import(module: str) -> ModuleType:
    declare_operators()
    return import_module(module)


@cache
def _operators_load() -> bool:
    """Return True if torchvision's compiled operators load. Loading them after declaring schemas ends the process."""
    found = find_spec("torchvision")
    if found is None:
        return True  # the import that follows raises the error
    (folder,) = found.submodule_search_locations or ("",)
    try:
        for library in Path(folder).glob("_C.*"):
            torch.ops.load_library(str(library))
    except OSError:
        return False
    return True
