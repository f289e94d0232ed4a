"""The parsed lines of another project's table, and the reasons why other lines are refused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hwnas.tables.importers.blocks import Block
from hwnas.tables.schema import NOT_KNOWN

N = r"(\d{1,6})"  # a size in a key


@dataclass(frozen=True)
class ParsedLine:
    """One line of the file; ``latency`` is in the file's unit."""

    line: str
    block: Block
    height: int
    width: int
    latency: float


@dataclass
class ParsedFile:
    """A parsed file. ``refused`` is {line: reason}.

    ``unused`` counts the lines with a known field that our tables do not have, ``unknown`` those with an unknown field.
    ``precision`` is the data type that the file states, ``unit`` that of its latencies, and ``usual_unit`` the one that
    the project's own files have. ``statistic`` says what its latencies are of the readings.
    """

    lines: list[ParsedLine] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    precision: str | None = None
    unit: str | None = None
    usual_unit: str | None = None
    statistic: str = NOT_KNOWN

    def add(self, line: str, understand: Callable[[], tuple[Block, int, int]], latency: object) -> None:
        """Add a line, or the reason why it is refused: a ValueError of ``understand`` or a bad number."""
        try:
            block, height, width = understand()
            number = as_latency(latency)
            if min(height, width, block.in_channels, block.out_channels, block.stride) < 1:
                raise ValueError("a size in it is 0")
            self.lines.append(ParsedLine(line, block, height, width, number))
        except ValueError as error:
            self.refused[line] = str(error)


def as_latency(value: object) -> float:
    """Return a latency. Raises ValueError unless it is a finite number of at least 0."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{str(value)[:40]!r} is not a latency")
    return number
