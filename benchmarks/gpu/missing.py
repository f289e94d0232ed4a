"""Print the carried wheels of packages that this Python lacks; the first argument is their folder. Standard library."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def missing(folder: Path) -> list[Path]:
    """Return the wheels for this Python, or for any, whose packages are not installed."""
    here = f"cp{sys.version_info.major}{sys.version_info.minor}"
    found = []
    for wheel in sorted(folder.glob("*.whl")):
        name, _, tags = wheel.stem.partition("-")
        python = tags.split("-")[-3]
        if not _installed(name) and (here in python.split(".") or "py3" in python.split(".")):
            found.append(wheel)
    return found


def _installed(name: str) -> bool:
    try:
        version(name.replace("_", "-"))
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    print(*missing(Path(sys.argv[1])), sep="\n")
