"""Format text: names from untrusted files, words of shell commands, labels of bounded length, numbers, tables."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def printable(text: str) -> str:
    """Return ``text`` with a question mark for every character that moves a cursor or is invisible."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def shorten(text: str, longest: int) -> str:
    """Return ``text`` with at most ``longest`` characters; a longer one ends in three dots."""
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def quoted(value: object) -> str:
    """Return a path or other text as one word of a shell command, quoted where the shell needs it."""
    return shlex.quote(str(value))


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: "1 line", "3 lines"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def describe_quality(accuracy: float | None, perplexity: float | None = None, digits: int = 1) -> str:
    """Return a perplexity, where there is one, or an accuracy in percent: "perplexity 212.4", "91.3%", "nan"."""
    return "perplexity " * (perplexity is not None) + quality_number(accuracy, perplexity, digits)


def quality_number(accuracy: float | None, perplexity: float | None = None, digits: int = 1) -> str:
    """Return a perplexity, where there is one, or an accuracy in percent, without its name: "212.4", "91.3%", "nan"."""
    if perplexity is not None:
        return f"{perplexity:,.{digits}f}" if perplexity < 1e6 else f"{perplexity:.2g}"
    return "nan" if accuracy is None else f"{accuracy:.{digits}%}"


def duration(seconds: float) -> str:
    """Return a time as text: "40 s", "2 min 5 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole >= 7200:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole} s" if whole < 100 else f"{whole // 60} min {whole % 60} s"


def about(seconds: float) -> str:
    """Return a time as rounded text, for estimates: "40 s", "6 min", "3 h"."""
    if seconds < 95:
        return f"{max(1, round(seconds / 10)) * 10} s"
    return f"{round(seconds / 60)} min" if seconds < 100 * 60 else f"{round(seconds / 3600):,} h"


def first_few(names: list[str], number: int = 6) -> str:
    """Return the first names separated by commas, and how many more there are."""
    return ", ".join(names[:number]) + (f" and {len(names) - number} more" if len(names) > number else "")


def format_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, the first to the left, under a title, followed by an empty line.

    rich.Table is not used: it takes a millisecond for each row and wraps long cells, which spoils text in logs.
    """
    widths = [max(len(row[number]) for row in (columns, *rows)) for number in range(len(columns))]
    lines = [f"{title}\n"] if title else []
    for row in (columns, ["─" * width for width in widths], *rows):
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines) + "\n"


def short_number(value: float) -> str:
    """Return a number with three significant digits, without an exponent between 0.001 and 100,000."""
    if 0.001 <= abs(value) < 100_000 or value == 0:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        return f"{value:.{digits}f}" if value else "0"
    return f"{value:.0e}"
