"""Helpers that read and check the page of a report."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from support.chromium import find_chromium
from support.command import Run

EVIL = "<img src=x onerror=window.hacked=1>"
SCRIPT = "<script>window.hacked=1</script>"

needs_browser = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here: make browser")


def report(run: Run, *folders: Path, out: Path) -> dict[str, Any]:
    result = run("report", *folders, "--out", out, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout)


class Page(HTMLParser):
    """A parsed page: its tags with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def check_pictures(folder: Path) -> set[str]:
    """Check that every figure is an SVG, PNG and JSON file, without links and not blank; return the names."""
    pictures = sorted(folder.glob("*.svg"))
    for picture in pictures:
        root = ElementTree.parse(picture).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not root.findall(".//*[@{http://www.w3.org/1999/xlink}href]")
        with Image.open(picture.with_suffix(".png")) as image:
            assert image.size == (2 * int(root.get("width", "0")), 2 * round(float(root.get("height", "0"))))
            assert len(image.convert("RGB").getcolors(1 << 24) or []) > 2  # it is not blank
        assert picture.with_suffix(".json").exists()
    return {picture.stem for picture in pictures}


def check_tame(page: Page) -> None:
    """Check that the page has no script but its own, and requests nothing."""
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert not {"img", "iframe", "object", "embed", "form"} & set(tags)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "xlink:href"):
            assert re.match(r"#|data:,$", attributes.get(name) or "#"), (tag, attributes)
