"""Pictures as PNG or SVG files, in one style. They are written atomically; the same numbers give the same file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hwnas.errors import HwnasError
from hwnas.files import atomic_path
from hwnas.imports import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
COLOURS = ("#d62728", "#ff7f0e", "#1f77b4", "#9467bd", "#17becf", "#8c564b", "#2ca02c", "#7f7f7f")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")  # a star marks the derived architecture
DASHES = ("-", "--", ":", "-.")


def require_picture(out: Path) -> None:
    """Raise HwnasError when a file name does not end in a picture's suffix or matplotlib is not installed."""
    if out.suffix not in SUFFIXES:
        raise HwnasError(f"{out.name!r} does not end in the suffix of a picture", f"use {' or '.join(SUFFIXES)}")
    require_extra("matplotlib", "report", "drawing pictures")


def can_draw(log: Callable[[str], None]) -> bool:
    """Return whether matplotlib is installed; if not, log one line that names the extra to install.

    For pictures that a command draws besides its results.
    """
    try:
        require_extra("matplotlib", "report", "drawing pictures")
    except HwnasError as error:
        log(f"no pictures are drawn: {error}")
        return False
    return True


@contextmanager
def style() -> Iterator[None]:
    """Apply the style of all pictures; draw and save inside. Letters that the font lacks become boxes, silently.

    Raises HwnasError when matplotlib is not installed.
    """
    require_extra("matplotlib", "report", "drawing pictures")
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "hwnas", "font.size": 8}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def colours_and_markers(number: int) -> list[tuple[str, str]]:
    """Return a colour and a marker for each of ``number`` budgets or targets; they repeat."""
    return [(COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i in range(number)]


def colours_and_dashes(number: int) -> list[tuple[str, str]]:
    """Return a colour and dashes for each of ``number`` lines; the dashes change where the colours repeat."""
    return [(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]) for i in range(number)]


def without_frame(axis: Axes) -> None:
    """Remove the top and right sides of the frame."""
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: Figure, out: Path) -> None:
    """Write a figure. Raises HwnasError when the suffix is not that of a picture or the folder cannot be written."""
    require_picture(out)
    with atomic_path(out) as temporary:
        metadata = {"Date": None} if out.suffix == ".svg" else {}
        figure.savefig(temporary, format=out.suffix[1:], dpi=150, metadata=metadata)
