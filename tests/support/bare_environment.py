"""A virtual environment with hwnas from its wheel and the packages that the wheel requires, but no extras."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from support.paths import ROOT


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout into ``folder``."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path) -> Path:
    """Create a virtual environment with the wheel and links to the packages it requires; return its Python."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    (info,) = site.glob("hwnas-*.dist-info")
    for name in required_packages(Distribution.at(info)):
        link_package(distribution(name), site)
    return python


def required_packages(package: Distribution) -> set[str]:
    """Return the names of all packages that a package requires without extras, directly or not."""
    found: set[str] = set()
    waiting = [(requirement, "") for requirement in package.requires or []]
    seen = set(waiting)
    while waiting:
        text, extra = waiting.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            inner = distribution(requirement.name)
        except PackageNotFoundError:  # a package of torch's that this machine does without
            continue
        found.add(requirement.name)
        new = {(text, extra) for text in inner.requires or [] for extra in ("", *requirement.extras)} - seen
        seen |= new
        waiting += new
    return found


def link_package(package: Distribution, site: Path) -> None:
    """Link every file and folder that a package has at the top of its site-packages into ``site``."""
    for name in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
        source, target = Path(str(package.locate_file(name))), site / name
        if source.exists() and not target.exists():
            target.symlink_to(source)
