"""Hardware-aware neural architecture search: measured latency tables, budgets that hold, ONNX out.

The functions of this package are the steps of the workflow; ``hwnas.api`` documents them:

    import hwnas

    table = hwnas.profile("cpu.json", device="cpu", space="nasbench201")
    print(hwnas.preview(table, budgets=["moderate"]).describe())
    targets = hwnas.search(table, "runs/a", budgets=["moderate"])
    hwnas.verify("runs/a")

Every function is imported on first use, so ``import hwnas`` is fast and does not import torch. Errors that the user can
fix are raised as ``HwnasError``.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.api import (
        convert,
        derive,
        derive_accuracy,
        derive_pareto,
        evaluate,
        export,
        forecast_profile,
        get_space,
        preview,
        profile,
        prune,
        quantize,
        read_table,
        report,
        search,
        train,
        verify,
    )

__all__ = [
    "HwnasError",
    "__version__",
    "convert",
    "derive",
    "derive_accuracy",
    "derive_pareto",
    "evaluate",
    "export",
    "forecast_profile",
    "get_space",
    "preview",
    "profile",
    "prune",
    "quantize",
    "read_table",
    "report",
    "search",
    "train",
    "verify",
]
__version__ = "0.1.0"


class _Package(ModuleType):
    """The package ``hwnas``: loads the functions of ``hwnas.api`` on first use.

    ``search``, ``export`` and ``report`` are functions and subpackages at once: each of these subpackages becomes
    callable when it is imported, and a call runs the function of the same name.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'hwnas' has no attribute {name!r}")
        from importlib import import_module

        if name in ("search", "export", "report"):
            return import_module(f"hwnas.{name}")
        return getattr(import_module("hwnas.api"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("search", "export", "report") and isinstance(value, ModuleType):
            value.__class__ = _CallablePackage
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


class _CallablePackage(ModuleType):
    """A subpackage that can be called as the function of the same name in ``hwnas.api``."""

    @property
    def __wrapped__(self) -> Any:
        from importlib import import_module

        return getattr(import_module("hwnas.api"), self.__name__.rpartition(".")[2])

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.__wrapped__(*arguments, **options)


sys.modules[__name__].__class__ = _Package
