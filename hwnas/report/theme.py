"""Colours and fonts of the report's pages and figures, for the light and the dark theme."""

from __future__ import annotations

from collections.abc import Iterable

FONT = "Verdana, DejaVu Sans, sans-serif"  # wide fonts, so that no text is cut off in the page's own font

INK, MUTED, GRID, PAPER = "#1b1f24", "#5b6570", "#dde2e8", "#fefefe"
# The colours of Okabe and Ito, which are distinct for the colour-blind, darker where white paper needs it.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a67c00", "#56b4e9", "#7f6fd6", "#8a5a44")
GREY = "#9aa3ad"

LIGHT = {"ink": INK, "muted": MUTED, "grid": GRID, "paper": PAPER, "grey": GREY} | {
    f"c{number}": colour for number, colour in enumerate(PALETTE)
}
DARK = {"ink": "#e6e9ed", "muted": "#a3adb8", "grid": "#343b44", "paper": "#14181d", "grey": "#6c7681"} | {
    f"c{number}": colour
    for number, colour in enumerate(
        ("#4aa8e0", "#ff8a4c", "#2fc79b", "#e59bc3", "#e0b040", "#8fd0ff", "#a99bf5", "#c9957b")
    )
}


def colours(names: Iterable[str]) -> dict[str, str]:
    """Return a colour of the palette for each name; the colours repeat after the last one."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}
