"""The named choices that a recipe composes into a method, one axis each, and how a new one is added.

distribution    what is drawn over an edge's operations
runs            which candidates run for a draw
learning        how logits and weights learn from batches
regulariser     what is added to the logits' loss besides the budgets' penalty
selection       how the architecture is taken in the end
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from hwnas.errors import HwnasError
from hwnas.recipe import Choice
from hwnas.validation import first_problem

CHOICES: dict[str, dict[str, Callable[..., Any]]] = {
    "distribution": {},
    "runs": {},
    "learning": {},
    "regulariser": {},
    "selection": {},
}
T = TypeVar("T", bound=Callable[..., Any])


def register(axis: str, name: str) -> Callable[[T], T]:
    """A class decorator: ``name`` can then stand in a recipe at ``axis``."""

    def keep(choice: T) -> T:
        CHOICES[axis][name] = choice
        return choice

    return keep


def build(axis: str, choice: Choice, *arguments: Any) -> Any:
    """The choice of a recipe, made with ``arguments`` and the options that the recipe gives it.

    Raises HwnasError for an unknown name or option, or a value out of range.
    """
    known = CHOICES[axis]
    if choice.name not in known:
        raise HwnasError(f"unknown {axis} {choice.name!r}", f"use one of {', '.join(sorted(known))}")
    make = known[choice.name]
    try:
        inspect.signature(make).bind(*arguments, **choice.options)
    except TypeError as error:
        raise HwnasError(f"{axis} {choice.name}: {error}", "see its page in docs/methods") from None
    try:
        return make(*arguments, **choice.options)
    except ValidationError as error:
        raise HwnasError(f"{axis} {choice.name}: {first_problem(error)}", "change the recipe") from None


def load_plugin(path: Path) -> None:
    """Run a Python file of the user's own that registers choices. Raises HwnasError when it cannot be run."""
    if not path.is_file():
        raise HwnasError(f"plugin {path} does not exist", "give the path of a Python file")
    spec = importlib.util.spec_from_file_location(f"hwnas_plugin_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise HwnasError(f"plugin {path} is not a Python file", "give the path of a .py file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up the names in annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise HwnasError(f"plugin {path} failed: {said}", "fix the file") from error
