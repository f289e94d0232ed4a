"""A figure of the report: a picture and the numbers that it shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A picture and its numbers. ``name`` is the stem of its files, ``svg`` the picture, ``data`` its numbers as JSON.

    ``narrow`` is the picture for phones, where it has another shape there; ``wide`` pictures scroll sideways instead.
    ``in_page`` is false for a figure that would make the page too large and is only written as a file. ``by_keyboard``
    is false where another figure has the same links, so that the keyboard reaches each link once.
    """

    name: str
    caption: str
    svg: str
    data: Any
    narrow: str = ""
    wide: bool = False
    in_page: bool = True
    by_keyboard: bool = True
