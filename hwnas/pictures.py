"""Pictures: one style, PNG or SVG, written whole or not at all; the same numbers give the same file."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError
from hwnas.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")


def require_picture(out: Path) -> None:
    """Raise HwnasError when a file's name does not end like a picture's."""
    if out.suffix not in SUFFIXES:
        raise HwnasError(f"cannot tell a kind of picture from {out.name!r}", f"let it end in {' or '.join(SUFFIXES)}")


@contextmanager
def style() -> Iterator[None]:
    """How pictures look; draw and save inside of it. Letters that the font lacks become boxes, without a warning."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "hwnas", "font.size": 8}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def save(figure: Figure, out: Path) -> None:
    """Write a figure. Raises HwnasError when ``out`` is no picture's name or its folder cannot be written."""
    require_picture(out)
    with atomic_path(out) as temporary:
        metadata = {"Date": None} if out.suffix == ".svg" else {}
        figure.savefig(temporary, format=out.suffix[1:], dpi=150, metadata=metadata)
