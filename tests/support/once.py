"""Files that are expensive to make, made once for all processes of a test run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a test run that all its processes share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own  # pytest-xdist: a folder for each process


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return the file ``name``, which ``make`` writes in the first process that asks; the others wait for it.

    If ``make`` fails or skips, the next process that asks tries again.
    """
    folder = shared_folder(factory)
    with (folder / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name).exists():
            make(folder / f"new-{name}")
            (folder / f"new-{name}").rename(folder / name)
    return folder / name
