"""Figures as SVG: the colours of the page, and what makes a file's picture fit to stand in a page.

A figure is drawn in the light colours. Within a page these become CSS variables, so that a figure follows the page's
theme, and what a pointer or the keyboard can reach is marked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from hwnas.text import printable

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
FONT = "Verdana, DejaVu Sans, sans-serif"  # wide ones: within a page, whose own font is used, no text is cut off

INK, MUTED, GRID, PAPER = "#1b1f24", "#5b6570", "#dde2e8", "#fefefe"
# Okabe and Ito's colours, which the colour-blind can tell apart, darker where white paper asks for it.
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
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK[1:].partition("}")[0])


@dataclass(frozen=True)
class Figure:
    """A picture and its numbers. ``name`` is its files' stem, ``svg`` the file, ``data`` what it shows, as JSON.

    ``narrow`` is another shape for phones, where there is one; ``wide`` pictures scroll sideways there. ``in_page`` is
    false of what would make the page too large: it is a file alone. ``by_keyboard`` is false where another figure's
    links lead to the same places, so that the keyboard reaches each once.
    """

    name: str
    caption: str
    svg: str
    data: Any
    narrow: str = ""
    wide: bool = False
    in_page: bool = True
    by_keyboard: bool = True


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour of the palette for each name, in turn."""
    return {name: PALETTE[number % len(PALETTE)] for number, name in enumerate(names)}


def element(tag: str, parent: ElementTree.Element | None = None, text: str = "", **attributes: Any) -> Any:
    """A new SVG element; ``stroke_width`` is written ``stroke-width``."""
    named = {key.replace("_", "-"): printable(str(value)) for key, value in attributes.items()}
    made = (
        ElementTree.Element(f"{{{SVG}}}{tag}", named)
        if parent is None
        else ElementTree.SubElement(parent, f"{{{SVG}}}{tag}", named)
    )
    made.text = printable(text) or None
    return made


def to_text(root: ElementTree.Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def as_file(svg: str) -> str:
    """A chart as a file of its own: without links, which lead nowhere there, and without what shows nothing."""
    root = ElementTree.fromstring(svg)
    _prune(root)
    for node in root.iter():
        node.attrib.pop(XLINK, None)
    return to_text(root)


def in_page(svg: str, prefix: str, label: str, by_keyboard: bool = True) -> str:
    """A chart to stand in a page: ids begin with ``prefix``, colours are the theme's, ``label`` tells what it is.

    Marks that say something get the class ``tip``; links lead to places in the page alone, ``by_keyboard`` or not.
    """
    root = ElementTree.fromstring(svg)
    _prune(root)
    for node in root.iter():
        kept = {key: _restyled(key, value, prefix) for key, value in node.attrib.items()}
        if link := kept.pop(XLINK, None):
            kept["href"] = "#" + link.rpartition("#")[2]
            if not by_keyboard:
                kept["tabindex"] = "-1"
        if "aria-label" in kept and kept.get("aria-roledescription") not in ("axis", "legend", "title"):
            kept["class"] = "tip"
            kept["role"] = "img"
        for key in ("aria-roledescription", "font-family"):
            kept.pop(key, None)
        node.attrib.clear()
        node.attrib.update(kept)
    root.attrib.update({"class": "figure", "role": "group", "aria-label": printable(label)})
    return to_text(root)


def _restyled(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key in ("fill", "stroke"):
        value = _VARIABLES.get(value.lower(), value)
    if key in ("fill", "stroke", "clip-path", "mask"):
        return re.sub(r"url\(#", f"url(#{prefix}", value)
    return value


def _prune(root: ElementTree.Element) -> None:
    """Leave out what Vega writes for its own use, and digits that nobody can see."""
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag.rpartition("}")[2]
            empty_path = tag == "path" and not child.get("fill") and not child.get("stroke")
            if child.get("display") == "none" or (empty_path and child.get("class") in ("background", "foreground")):
                parent.remove(child)
    for node in root.iter():
        if node is not root:
            for key in ("class", "pointer-events", "stroke-miterlimit"):
                node.attrib.pop(key, None)
        if node.get("opacity") == "1":
            del node.attrib["opacity"]
        if node.get("role") == "graphics-object":
            for key in ("role", "aria-roledescription"):
                node.attrib.pop(key, None)
        for key in ("d", "transform"):
            if key in node.attrib:
                node.set(key, re.sub(r"-?\d+\.\d{2,}", _rounded, node.attrib[key]))


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".rstrip("0").rstrip(".")
