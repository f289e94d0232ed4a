"""Print the carried wheels of packages that this Python lacks; the first argument is their folder. Standard library."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def missing(folder: Path) -> list[Path]:
    """Return the wheels for this Python, or for any, whose packages are not installed."""
    return [wheel for wheel in sorted(folder.glob("*.whl")) if _fits(wheel) and not _installed(wheel)]


def _fits(wheel: Path) -> bool:
    python, abi, _ = wheel.stem.split("-")[-3:]
    newest = sys.version_info.minor
    older = [f"cp3{minor}" for minor in range(2, newest + 1)]  # a stable interface fits every later version
    fitting = older if abi == "abi3" else [f"cp3{newest}", "py3"]
    return any(tag in fitting for tag in python.split("."))


def _installed(wheel: Path) -> bool:
    try:
        version(wheel.name.partition("-")[0].replace("_", "-"))
    except PackageNotFoundError:
        return False
    return True


if __name__ == "__main__":
    print(*missing(Path(sys.argv[1])), sep="\n")
