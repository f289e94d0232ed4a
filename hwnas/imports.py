"""Import what is not always there: a user's own objects by import path, and packages of optional extras."""

from __future__ import annotations

import importlib
import os
import re
import sys
from types import ModuleType
from typing import Any

from hwnas.errors import HwnasError

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def import_object(path: str, purpose: str) -> Any:
    """Import the object that ``package.module:NAME`` names, also from the working directory. This runs the module.

    ``purpose`` says in errors what the object is for. Raises HwnasError when the path is malformed, the module fails
    or has no such name.
    """
    if not IMPORT_PATH.fullmatch(path):
        raise HwnasError(f"{purpose} {path!r} is not an import path", "write package.module:NAME")
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise HwnasError(
            f"{purpose} {path}: module {module} cannot be imported: {type(error).__name__}: {error}",
            "fix it, or name its folder in PYTHONPATH",
        ) from error
    if not hasattr(found, name):
        raise HwnasError(f"{purpose} {path}: module {module} has no {name}", "write package.module:NAME")
    return getattr(found, name)


def require_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import and return a module that an optional extra of hwnas installs.

    ``purpose`` opens the error message and is the subject of "needs": "drawing pictures". Raises HwnasError with the
    pip command when the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise HwnasError(
                f"{purpose} needs {module}, which cannot be imported: {error}", f"pip install 'hwnas[{extra}]'"
            ) from error
        raise HwnasError(f"{purpose} needs {module}, which is not installed", f"pip install 'hwnas[{extra}]'") from None
    except ImportError as error:
        raise HwnasError(
            f"{purpose} needs {module}, which cannot be imported: {error}", f"pip install 'hwnas[{extra}]'"
        ) from error
