"""Hooks of mkdocs: pages from outside docs/, the reference of the command line, and links that work on disk and site.

On disk a page's links lead to files of the checkout. On the site they lead to the pages made from these files; a link
to any other file, such as a source file, becomes plain text.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = {
    "latency_tables/README.md": "explanation/latency-tables.md",
    "latency_tables/FORMAT.md": "reference/table-format.md",
    "latency_tables/TABLES.md": "reference/shipped-tables.md",
    "profilers/README.md": "reference/profilers.md",
    "benchmarks/README.md": "reference/benchmarks.md",
    "README.md": "index.md",
}
PAGES = {source: site for source, site in OUTSIDE.items() if site != "index.md"}
LINK = re.compile(r"(?<!!)\[((?:`[^`]*`|[^\[\]`])*)\]\(([^)\s#:]+)(#[\w-]+)?\)")
HIDDEN = re.compile(r"<!-- (?:set-up|as tested)\n.*?-->\n", re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    for source, site in PAGES.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / source)))
    files.append(File.generated(config, "reference/cli.md", content=command_line()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    markdown = HIDDEN.sub("", markdown)
    if page.file.abs_src_path is None:
        return markdown
    here = Path(page.file.abs_src_path).parent

    def translate(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        file = Path(os.path.normpath(here / target))
        if not file.is_relative_to(ROOT) or not file.exists():
            return found[0]  # the strict build reports it
        source = file.relative_to(ROOT).as_posix()
        site = OUTSIDE.get(source, source.removeprefix("docs/") if source.startswith("docs/") else None)
        if site is None or not files.get_file_from_path(site):
            return text
        return f"[{text}]({posixpath.relpath(site, posixpath.dirname(page.file.src_uri) or '.')}{anchor or ''})"

    return LINK.sub(translate, markdown)


def command_line() -> str:
    """Return every command with its options, as ``typer utils docs`` writes them."""
    import typer
    from typer.cli import get_docs_for_click

    from hwnas.cli import app

    command = typer.main.get_command(app)
    summarise(command)
    context = typer.Context(command, info_name="hwnas")
    return get_docs_for_click(obj=command, ctx=context, name="hwnas", title="Command line")


def summarise(command: Any) -> None:
    """Set every command's summary to its whole first paragraph, which otherwise is cut off."""
    for inner in getattr(command, "commands", {}).values():
        inner.short_help = (inner.help or "").partition("\n\n")[0]
        summarise(inner)
