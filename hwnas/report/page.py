"""A report as one page that needs nothing else, and its figures and numbers as files.

Everything that comes from a file is escaped; the page's own policy lets nothing run but its own script, and nothing be
fetched.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.files import atomic_path, write_json, write_text
from hwnas.report.charts import png_of
from hwnas.report.svg import DARK, LIGHT, Figure, as_file, in_page
from hwnas.report.table_section import table_part
from hwnas.tables.schema import LatencyTable, today
from hwnas.text import printable


def write_page(
    out: Path, folder: Path, text: str, figures: Iterable[Figure], inputs: Mapping[str, str], numbers: Any
) -> list[Path]:
    """Write the page ``text`` to ``out``, and into ``folder`` its figures, ``inputs`` (what the commands to reproduce
    read, by file name) and ``numbers``. Returns the files in ``folder``.

    Raises HwnasError when they cannot be written.
    """
    written = [file for figure in figures for file in _write_figure(folder, figure)]
    for name, content in inputs.items():
        write_text(folder / name, content)
        written.append(folder / name)
    write_json(folder / "report.json", {"hwnas": __version__, **numbers})
    write_text(out, text)
    return [*written, folder / "report.json"]


def write_table_page(table: LatencyTable, name: str, out: Path) -> None:
    """Write a page that shows a latency table. Raises HwnasError when the folder cannot be written."""
    write_text(out, render("table.html", title=f"hwnas: latency table {name}", part=table_part(table, name, "")))


def _write_figure(folder: Path, figure: Figure) -> list[Path]:
    """A figure's SVG, PNG and numbers."""
    stem, svg = file_name(figure.name), as_file(figure.svg)
    files = [folder / f"{stem}.{suffix}" for suffix in ("svg", "png", "json")]
    write_text(files[0], svg)
    with atomic_path(files[1]) as temporary:
        temporary.write_bytes(png_of(svg))
    write_json(files[2], {"caption": figure.caption, "data": figure.data})
    return files


def file_name(text: str) -> str:
    """``text`` as a file's name: names of devices and budgets come from files."""
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".")[:120]


def render(template: str, **content: Any) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    counter = iter(range(1_000_000))

    def figure(shown: Figure, narrow: bool = False) -> Markup:
        svg = shown.narrow if narrow else shown.svg
        return Markup(in_page(svg, f"f{next(counter)}-", shown.caption, shown.by_keyboard))

    def finalize(value: Any) -> Any:
        """What hides or moves letters is shown as a question mark."""
        return value if isinstance(value, Markup) else "".join(c if c == "\n" else printable(c) for c in str(value))

    environment = Environment(
        loader=PackageLoader("hwnas.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=finalize,
    )  # fmt: skip
    environment.globals["figure"] = figure
    environment.filters["json"] = lambda value: escape(json.dumps(value, indent=2, sort_keys=True))
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        style=Markup(_style()), script=Markup(script), script_hash=digest, made=today(), version=__version__, **content
    )


def _style() -> str:
    """The style sheet, with the colours of both themes."""
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in theme.items()) for theme in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n" + _part("page.css")
    )


@cache
def _part(name: str) -> str:
    return (resources.files("hwnas.report") / "templates" / name).read_text(encoding="utf-8")
