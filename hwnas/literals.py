"""Parse values written in Python or JSON: numbers, text, lists, dictionaries. Nothing is evaluated."""

from __future__ import annotations

import ast
import json
import re
import warnings
from dataclasses import dataclass, field
from typing import Any

LONGEST = 200_000
MOST_NUMBERS = 1_000  # of a range
CONSTANTS = {"null": None, "true": True, "false": False}  # those of JSON; Python's are none of the names
TOKENS = re.compile(r"[\[\](){}]|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"")
PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass  # not frozen, and so no key of a dictionary
class Call:
    """A call that stands for no list or number: ``Genotype(normal=[], …)``. ``name`` is without its module."""

    name: str
    arguments: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)


def closing_bracket(text: str, start: int) -> int | None:
    """Return the index of the bracket that closes the one at ``start``, or None. Quoted brackets do not count."""
    waiting: list[str] = []
    for token in TOKENS.finditer(text, start):
        character = token[0]
        if character in PAIRS:
            waiting.append(PAIRS[character])
        elif len(character) == 1 and character != waiting.pop():
            return None
        if not waiting:
            return token.start()
    return None


def open_brackets(text: str) -> int:
    """Return how many brackets of a text are not closed in it; negative where more are closed than opened."""
    tokens = [token[0] for token in TOKENS.finditer(text)]
    return sum(token in PAIRS for token in tokens) - sum(token in PAIRS.values() for token in tokens)


def parse_literal(text: str) -> Any:
    """Parse one value of Python or JSON. Tuples, arrays and ranges become lists, numbers of numpy and torch numbers.

    Raises ValueError, in words for a person, for anything else.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (json.JSONDecodeError, RecursionError):
        pass
    if len(text) > LONGEST:
        raise ValueError(f"it is longer than {LONGEST:,} characters")
    try:
        with warnings.catch_warnings():  # Python warns of backslashes in text
            warnings.simplefilter("ignore")
            tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise ValueError(f"a bracket, comma or quote is missing or misplaced{_near(error)}") from None
    except (ValueError, RecursionError, MemoryError):
        raise ValueError("it is nested too deeply, or not text") from None
    try:
        return _value(tree.body)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _near(error: SyntaxError) -> str:
    line = (error.text or "").rstrip("\n")
    part = line[max((error.offset or 1) - 1, 0) :][:30].strip()
    return f" near {part!r}" if part else ""


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, str | int | float | None):
        return node.value
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict) and all(node.keys):
        keys = [_value(key) for key in node.keys if key]
        try:
            return _object(list(zip(map(_as_key, keys), map(_value, node.values), strict=True)))
        except TypeError:
            raise ValueError("a key of it is neither text nor numbers") from None
    if isinstance(node, ast.Name) and node.id in CONSTANTS:
        return CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        number = _value(node.operand)
        if isinstance(number, int | float):
            return -number
    if isinstance(node, ast.Call):
        return _called(node)
    raise ValueError(f"it holds {ast.unparse(node)[:40]!r}, which is no name in quotes, number or list")


def _object(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("it has a key twice")
    return content


def _as_key(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _called(node: ast.Call) -> Any:
    """Return the value that a call stands for. Nothing is called."""
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    arguments = [_value(argument) for argument in node.args]
    first = arguments[0] if arguments else None
    if name in ("list", "tuple", "array", "asarray", "tensor") and isinstance(first, list):
        return first
    if name in ("range", "arange"):
        return _range(arguments)
    if re.fullmatch(r"u?int\d*|float\d*|str_?|tensor", name) and isinstance(first, int | float | str):
        return first
    keywords = {keyword.arg: _value(keyword.value) for keyword in node.keywords if keyword.arg}
    if len(keywords) < len(node.keywords):
        raise ValueError("it holds '**', whose values are not in it")
    if name in ("dict", "OrderedDict"):
        return _dictionary(first, keywords)
    return Call(name, tuple(arguments), keywords)


def _range(bounds: list[Any]) -> list[int]:
    try:
        numbers = range(*bounds)
    except (TypeError, ValueError):
        raise ValueError("it holds a range without valid bounds") from None
    return list(numbers[:MOST_NUMBERS])


def _dictionary(first: Any, keywords: dict[str, Any]) -> dict[Any, Any]:
    if isinstance(first, dict):
        return first | keywords
    if first is None:
        return keywords
    if isinstance(first, list) and all(isinstance(item, list) and len(item) == 2 for item in first):
        return {str(key): value for key, value in first} | keywords
    raise ValueError("it holds a dictionary without keys")
