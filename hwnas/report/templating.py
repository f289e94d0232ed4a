"""Render Jinja templates; every value from a file is escaped, and invisible characters are shown as question marks."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from hwnas.imports import require_extra
from hwnas.text import printable

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def _environment() -> Environment:
    require_extra("jinja2", "report", "writing a report")
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    def finalize(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        return "\n".join(map(printable, str(value).split("\n")))

    environment = Environment(
        loader=PackageLoader("hwnas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=finalize,
    )
    environment.filters["json"] = lambda value: escape(json.dumps(value, indent=2, sort_keys=True))
    return environment


def render(template: str, **content: Any) -> str:
    """Return a file of ``templates/`` filled with ``content``. Raises HwnasError when jinja2 is not installed."""
    return _environment().get_template(template).render(**content)


@cache
def template_text(name: str) -> str:
    """Return a file of ``templates/`` as it is."""
    return (resources.files("hwnas.report") / "templates" / name).read_text(encoding="utf-8")
