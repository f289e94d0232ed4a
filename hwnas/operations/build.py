"""Build the torch module of a workload."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from hwnas.spaces import Workload
from hwnas.spaces.operation import operation_of


def build_operation(workload: Workload | None, affine: bool = True) -> nn.Module:
    """Build the module of a workload; None is the identity. ``affine`` gives its batch norms trainable factors.

    Raises HwnasError for an operation that is not registered.
    """
    module = operation_of(workload).module if workload else None
    if workload is None or module is None:
        return nn.Identity()
    build = _function(module) if isinstance(module, str) else module
    return build(workload, affine)


@cache
def _function(path: str) -> Any:
    """The object that ``package.module:NAME`` names."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def randomise(module: nn.Module) -> nn.Module:
    """Draw weights that keep activations at a steady size in a long chain, so that no zeros or denormals are timed."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return module
