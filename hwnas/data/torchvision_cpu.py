"""Importing torchvision beside a CPU build of torch.

torchvision's wheels are built against CUDA; beside a CPU torch their compiled operators do not load, and the import
fails because two of them have no schema. With the schemas declared, datasets, transforms and models work.
"""

from __future__ import annotations

import contextlib
from importlib import import_module
from types import ModuleType

import torch


def torchvision_datasets() -> ModuleType:
    """``torchvision.datasets``, importable whatever the torch build."""
    return _import("torchvision.datasets")


def torchvision_transforms() -> ModuleType:
    """``torchvision.transforms.v2``, importable whatever the torch build."""
    return _import("torchvision.transforms.v2")


def _import(module: str) -> ModuleType:
    for schema in (
        "torchvision::nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "torchvision::qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        if not hasattr(torch.ops.torchvision, schema.split("::")[1].split("(")[0]):
            with contextlib.suppress(RuntimeError):  # declared already
                torch.library.define(schema.split("(")[0], "(" + schema.split("(", 1)[1])
    return import_module(module)
