"""The registry of the named choices that a recipe composes into a method, one axis each (hwnas.search.axes).

distribution    samples drawn over the operations of every edge
runs            the candidates that are computed for a draw
learning        the rule by which logits and weights learn from batches
regulariser     a term added to the logits' loss besides the budgets' penalty
selection       the rule by which the final architecture is chosen
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
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
    """Return a class decorator that lets recipes name the class ``name`` at ``axis``."""

    def add(choice: T) -> T:
        CHOICES[axis][name] = choice
        return choice

    return add


def build(axis: str, choice: Choice, *arguments: Any) -> Any:
    """Build a recipe's choice from ``arguments`` and the options that the recipe gives it.

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
