"""Fit a picture, drawn as SVG in the light colours, into a page or into a file."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from hwnas.report.theme import LIGHT
from hwnas.text import printable

SVG = "http://www.w3.org/2000/svg"
XLINK = "{http://www.w3.org/1999/xlink}href"
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}

ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", XLINK[1:].partition("}")[0])


def as_file(svg: str) -> str:
    """Return a picture as a file: without links, which work in the page alone, and without invisible elements."""
    root = ElementTree.fromstring(svg)
    _prune(root)
    for node in root.iter():
        node.attrib.pop(XLINK, None)
    return ElementTree.tostring(root, encoding="unicode")


def in_page(svg: str, prefix: str, label: str, by_keyboard: bool = True) -> str:
    """Return a picture as part of a page, with ``prefix`` in front of its ids and the theme's colours as CSS variables.

    ``label`` is its accessible name. Marks with a description get the class ``tip``. Links are limited to the page;
    without ``by_keyboard`` the Tab key skips them.
    """
    root = ElementTree.fromstring(svg)
    _prune(root)
    for node in root.iter():
        attributes = {key: _restyled(key, value, prefix) for key, value in node.attrib.items()}
        if link := attributes.pop(XLINK, None):
            attributes["href"] = "#" + link.rpartition("#")[2]
            if not by_keyboard:
                attributes["tabindex"] = "-1"
        if "aria-label" in attributes and attributes.get("aria-roledescription") not in ("axis", "legend", "title"):
            attributes["class"] = "tip"
            attributes["role"] = "img"
        for key in ("aria-roledescription", "font-family"):
            attributes.pop(key, None)
        node.attrib.clear()
        node.attrib.update(attributes)
    root.attrib.update({"class": "figure", "role": "group", "aria-label": printable(label)})
    return ElementTree.tostring(root, encoding="unicode")


def _restyled(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key in ("fill", "stroke"):
        value = _VARIABLES.get(value.lower(), value)
    if key in ("fill", "stroke", "clip-path", "mask"):
        return re.sub(r"url\(#", f"url(#{prefix}", value)
    return value


def _prune(root: ElementTree.Element) -> None:
    """Remove the attributes and empty elements that Vega writes for its own use, and round coordinates."""
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
