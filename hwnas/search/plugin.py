"""Plug-ins: Python files of the user's own that register choices."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.search.methods import register_builtin


def load_plugin(path: Path) -> None:
    """Run a user's Python file; what it registers replaces a built-in choice of the same name.

    Raises HwnasError where the file is missing or fails.
    """
    register_builtin()
    if not path.is_file():
        raise HwnasError(f"plugin {path} does not exist", "give the path of a Python file")
    spec = importlib.util.spec_from_file_location(_module_name(path), path)
    if spec is None or spec.loader is None:
        raise HwnasError(f"plugin {path} is not a Python file", "give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up the names in annotations there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise HwnasError(f"plugin {path} failed: {reason}", "fix the file") from error


def require_plugin(path: Path | None) -> None:
    """Load a plug-in, if one is named, in a process that has not loaded it yet."""
    if path and _module_name(path) not in sys.modules:
        load_plugin(path)


def _module_name(path: Path) -> str:
    return f"hwnas_plugin_{path.stem}"
