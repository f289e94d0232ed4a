"""What readers of foreign tables find in them: lines that are understood, and why others are not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hwnas.tables.importers.blocks import Block

N = r"(\d{1,6})"  # a size in a key


@dataclass(frozen=True)
class Found:
    """One line that is understood; ``latency`` is in the file's unit."""

    line: str
    block: Block
    height: int
    width: int
    latency: float


@dataclass
class Reading:
    """``refused`` is by line why it is not understood, ``unused`` how many lines have a field that no table of ours
    has, ``unknown`` the same of fields whose meaning is not known. ``precision`` is the data type that the file states.
    """

    found: list[Found] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    precision: str | None = None

    def add(self, line: str, understand: Callable[[], tuple[Block, int, int]], latency: object) -> None:
        """Keep a line, or why it is not understood."""
        try:
            block, height, width = understand()
            number = as_latency(latency)
            if min(height, width, block.in_channels, block.out_channels, block.stride) < 1:
                raise ValueError("a size in it is 0")
            self.found.append(Found(line, block, height, width, number))
        except ValueError as error:
            self.refused[line] = str(error)


def as_latency(value: object) -> float:
    """Raises ValueError for anything but a finite number that is not negative."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{str(value)[:40]!r} is no latency")
    return number
