"""Objects of the user's own, named by an import path: ``package.module:NAME``."""

from __future__ import annotations

import importlib
import os
import re
import sys
from typing import Any

from hwnas.errors import HwnasError

IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def import_object(path: str, what: str) -> Any:
    """What ``package.module:NAME`` names; modules in the working folder are found, too. The module is run.

    Raises HwnasError, in which ``what`` says what was asked for, when there is none or its module fails.
    """
    if not IMPORT_PATH.fullmatch(path):
        raise HwnasError(f"{what} {path!r} is not an import path", "write package.module:NAME")
    module, _, name = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise HwnasError(
            f"{what} {path}: module {module} cannot be imported: {type(error).__name__}: {error}",
            "fix it, or name its folder in PYTHONPATH",
        ) from error
    if not hasattr(found, name):
        raise HwnasError(f"{what} {path}: module {module} has no {name}", "write package.module:NAME")
    return getattr(found, name)
