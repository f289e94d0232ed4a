"""Describe the machine of a session: Python, torch, the GPU, its driver, and the packages that hwnas needs."""

from __future__ import annotations

import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from profilers import nvidia_smi

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def describe_machine() -> dict[str, Any]:
    """Return a description for every record; a torch that does not import is described by its error."""
    found = {"python": platform.python_version(), "processor": platform.machine(), "packages": packages()}
    return {**found, **_torch(), "gpu": nvidia_smi.read(0)}


def packages() -> dict[str, str | None]:
    """Return the versions of the packages that hwnas needs; None for one that is missing."""
    needed = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    names = [requirement.partition(">")[0].strip() for requirement in needed]
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _torch() -> dict[str, Any]:
    try:
        import torch

        about: dict[str, Any] = {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(), "devices": []}
        for number in range(torch.cuda.device_count()):
            found = torch.cuda.get_device_properties(number)
            about["devices"].append({"name": found.name, "memory_bytes": found.total_memory})
        return about
    except Exception as error:  # the record must state it, not end there
        return {"torch_error": f"{type(error).__name__}: {error}"}
