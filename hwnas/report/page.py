"""Write a report as one page that needs no other file, and its figures and numbers as files.

Values from files are escaped. The page's content security policy allows its own script and no network requests.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.files import atomic_path, write_json, write_text
from hwnas.report.charts import png_of
from hwnas.report.figure import Figure
from hwnas.report.svg import as_file, in_page
from hwnas.report.table_section import table_section
from hwnas.report.templating import render, template_text
from hwnas.report.theme import DARK, LIGHT
from hwnas.tables.schema import LatencyTable, today


def write_page(
    out: Path, folder: Path, text: str, figures: Iterable[Figure], inputs: Mapping[str, str], numbers: Any
) -> list[Path]:
    """Write the page ``text`` to ``out``, and its figures, ``inputs`` and ``numbers`` into ``folder``.

    ``inputs`` are the files, by name, that the commands to reproduce read. Returns the files in ``folder``. Raises
    HwnasError when they cannot be written.
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
    section = table_section(table, name, "")
    write_text(out, render_page("table.html", title=f"hwnas: latency table {name}", section=section))


def render_page(template: str, **content: Any) -> str:
    """Return a page: a template filled with ``content``, the style sheet and the script."""
    from markupsafe import Markup

    counter = iter(range(1_000_000))

    def figure(shown: Figure, narrow: bool = False) -> Markup:
        svg = shown.narrow if narrow else shown.svg
        return Markup(in_page(svg, f"f{next(counter)}-", shown.caption, shown.by_keyboard))

    script = template_text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        template,
        figure=figure,
        style=Markup(_style_sheet()),
        script=Markup(script),
        script_hash=digest,
        made=today(),
        version=__version__,
        **content,
    )


def file_name(text: str) -> str:
    """Return ``text`` as a safe file name: names of devices and budgets come from files."""
    return re.sub(r"[^\w.-]+", "_", text).lstrip(".")[:120]


def _write_figure(folder: Path, figure: Figure) -> list[Path]:
    """Write a figure's SVG, PNG and numbers."""
    stem, svg = file_name(figure.name), as_file(figure.svg)
    files = [folder / f"{stem}.{suffix}" for suffix in ("svg", "png", "json")]
    write_text(files[0], svg)
    with atomic_path(files[1]) as temporary:
        temporary.write_bytes(png_of(svg))
    write_json(files[2], {"caption": figure.caption, "data": figure.data})
    return files


def _style_sheet() -> str:
    """Return the style sheet with the colours of both themes."""
    light, dark = (";".join(f"--{name}:{colour}" for name, colour in theme.items()) for theme in (LIGHT, DARK))
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}\n"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}\n" + template_text("page.css")
    )
