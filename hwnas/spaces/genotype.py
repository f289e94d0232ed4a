"""Read DARTS genotypes as programs print them and people paste them.

A log line or a program around the genotype is left out. These are read:

* ``Genotype(normal=[('op', 0), …], normal_concat=…, reduce=…, reduce_concat=…)``, also with the fields in this order
  without their names, and the same fields as ``name = value``, as a dictionary or as JSON;
* pairs in one list, or grouped by node (pt.darts, XAutoDL); a third number in a pair is a weight, and is left out;
* architectures that NNI exports as JSON: ``normal/op_2_0`` with ``normal/input_2_0`` (from version 2), and
  ``normal_n2_p0`` with ``normal_n2_switch`` (version 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hwnas.literals import Call, closing_bracket, parse_literal

KINDS = ("normal", "reduce")
FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
FIELD = re.compile(r"\b(normal|normal_concat|reduce|reduce_concat)['\"]?\s*[=:]\s*(?=[\[(]|[\w.]+\()")
NNI_KEY = re.compile(r"(?:.*/)?(normal|reduce)/(op|input)_(\d+)_(\d+)")
NNI_1_KEY = re.compile(r"(normal|reduce)_n(\d+)_(?:p(\d+)|switch)")
NNI_1_OPERATIONS = {
    "maxpool": "max_pool_3x3",
    "avgpool": "avg_pool_3x3",
    "skipconnect": "skip_connect",
    "sepconv3x3": "sep_conv_3x3",
    "sepconv5x5": "sep_conv_5x5",
    "dilconv3x3": "dil_conv_3x3",
    "dilconv5x5": "dil_conv_5x5",
}
STRAIGHT = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "\u200b": None, "\ufeff": None})
Pair = tuple[str, int]


@dataclass(frozen=True)
class WrittenCell:
    """The (operation, input) pairs of a cell as written.

    ``nodes`` has the number of pairs of each node where they are grouped, else None; ``concat`` the nodes that are the
    cell's output, or None where the text does not give them.
    """

    pairs: tuple[Pair, ...]
    nodes: tuple[int, ...] | None = None
    concat: tuple[int, ...] | None = None


def read_genotype(text: str) -> dict[str, WrittenCell]:
    """Return the cells of the one genotype in a text. Raises ValueError, in words for a person, for any other text."""
    text = _straight(text)
    found = list(_genotypes(text))
    if not found:
        raise ValueError("it has no Genotype(…) and no object with the keys normal and reduce")
    if any(other != found[0] for other in found):
        raise ValueError(f"it holds {len(found)} genotypes: give one at a time")
    return found[0]


def _straight(text: str) -> str:
    """Return a text without typographic quotes, escaped quotes and spaces that are not plain ones."""
    text = re.sub(r"\\(['\"])", r"\1", text.translate(STRAIGHT)).replace("\\n", " ")
    return re.sub(r"[^\S\n]", " ", text)


def _genotypes(text: str) -> Iterator[dict[str, WrittenCell]]:
    if calls := list(re.finditer(r"\w*Genotype\w*\s*\(", text)):
        for call in calls:
            yield _cells(parse_literal(_bracketed(text, call.start(), call.end() - 1)))
        return
    start = text.find("{")
    while start >= 0:
        end = closing_bracket(text, start)
        part = text[start : (len(text) if end is None else end + 1)]
        if "normal" in part:
            yield _cells(parse_literal(_bracketed(text, start, start)))
        start = text.find("{", start + len(part))
    if "{" not in text and (fields := list(FIELD.finditer(text))):
        written = {field[1]: _bracketed(text, field.end(), _opening(text, field.end())) for field in fields}
        if len(written) < len(fields):
            raise ValueError("it has a field twice: give one genotype at a time")
        yield _cells({name: parse_literal(value) for name, value in written.items()})


def _opening(text: str, start: int) -> int:
    found = re.compile(r"[\[(]").search(text, start)
    return found.start() if found else len(text)


def _bracketed(text: str, start: int, bracket: int) -> str:
    """Return the text from ``start`` to the bracket that closes the one at ``bracket``."""
    end = closing_bracket(text, bracket)
    if end is None:
        raise ValueError("it is cut off, or its brackets do not match")
    return text[start : end + 1]


def _cells(value: Any) -> dict[str, WrittenCell]:
    fields = _fields(value)
    for name, content in fields.items():
        known = name in FIELDS or content in (None, "", [], {})
        if not known and (isinstance(value, Call) or isinstance(content, list | dict | Call)):
            raise ValueError(f"its field {name[:40]} is not one of a DARTS genotype")
    if lacking := [kind for kind in KINDS if fields.get(kind) in (None, [], "")]:
        raise ValueError(f"it is without its {' and '.join(lacking)} cell{'s' * (len(lacking) > 1)}")
    return {kind: _cell(kind, fields[kind], fields.get(f"{kind}_concat")) for kind in KINDS}


def _fields(value: Any) -> dict[str, Any]:
    """Return {field: value} of a parsed genotype, which may be within other objects."""
    if isinstance(value, Call):
        if len(value.arguments) > len(FIELDS) or set(FIELDS[: len(value.arguments)]) & set(value.keywords):
            raise ValueError("it gives more fields than normal, normal_concat, reduce and reduce_concat")
        return dict(zip(FIELDS, value.arguments, strict=False)) | value.keywords
    content = {str(key): inner for key, inner in value.items()} if isinstance(value, dict) else {}
    if any(NNI_KEY.fullmatch(key) for key in content):
        return _nni_fields(content)
    if any(NNI_1_KEY.fullmatch(key) for key in content):
        return _nni_1_fields(content)
    if set(KINDS) & set(content):
        return content
    inner = [item for item in content.values() if isinstance(item, dict | Call)]
    if len(inner) != 1:
        raise ValueError("it has no object with the keys normal and reduce")
    return _fields(inner[0])


def _cell(kind: str, written: Any, concat: Any) -> WrittenCell:
    if not isinstance(written, list) or not all(isinstance(item, list) for item in written):
        raise ValueError(f"its {kind} cell is not a list of (operation, input) pairs")
    if not (concat is None or (isinstance(concat, list) and all(type(node) is int for node in concat))):
        raise ValueError(f"{kind}_concat is not a list of nodes")
    outputs = None if concat is None else tuple(concat)
    if not all(node and all(isinstance(pair, list) for pair in node) for node in written):
        return WrittenCell(tuple(_pair(kind, item) for item in written), None, outputs)
    pairs = tuple(_pair(kind, item) for node in written for item in node)
    return WrittenCell(pairs, tuple(map(len, written)), outputs)


def _pair(kind: str, item: list[Any]) -> Pair:
    """Return (operation, input) of a pair, which may be the other way round and may have a weight."""
    pair = item[:2] if len(item) == 3 and isinstance(item[2], float) else item
    if len(pair) == 2 and isinstance(pair[1], str):
        pair = pair[::-1]
    if len(pair) == 2 and all(type(part) is int for part in pair):
        raise ValueError(f"its {kind} cell numbers its operations: write their names")
    if len(pair) != 2 or not isinstance(pair[0], str) or type(pair[1]) is not int:
        shown = ", ".join(map(str, item))[:60]
        raise ValueError(f"({shown}) in its {kind} cell is not a pair of an operation and an input")
    return pair[0], pair[1]


def _nni_fields(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the cells of {normal/op_2_0: operation, normal/input_2_0: input, …}, the inputs possibly in lists."""
    parts: dict[str, dict[tuple[int, int], dict[str, Any]]] = {kind: {} for kind in KINDS}
    for key, value in content.items():
        if found := NNI_KEY.fullmatch(key):
            first = value[0] if isinstance(value, list) and len(value) == 1 else value
            parts[found[1]].setdefault((int(found[3]), int(found[4])), {})[found[2]] = first
    cells: dict[str, list[Any]] = {}
    for kind, pairs in parts.items():
        nodes: dict[int, list[Any]] = {}
        for (node, number), pair in sorted(pairs.items()):
            if set(pair) != {"op", "input"}:
                lacking = "input" if "op" in pair else "op"
                raise ValueError(f"it lacks {kind}/{lacking}_{node}_{number}")
            nodes.setdefault(node, []).append([pair["op"], pair["input"]])
        cells[kind] = list(nodes.values())
    return cells


def _nni_1_fields(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return the cells of {normal_n2_p0: operation, normal_n2_switch: [its chosen keys], …}."""
    cells: dict[str, dict[int, list[Any]]] = {kind: {} for kind in KINDS}
    for key, op in content.items():
        found = NNI_1_KEY.fullmatch(key)
        if not found:
            continue
        kind, node, source = found[1], int(found[2]), found[3]
        chosen = content.get(f"{kind}_n{node}_switch")
        if source is None or op in ([], None) or (isinstance(chosen, list) and key not in chosen):
            continue
        if not isinstance(op, str):
            raise ValueError(f"{key} numbers its operation: write its name")
        cells[kind].setdefault(node, []).append([NNI_1_OPERATIONS.get(op, op), int(source)])
    return {kind: [pairs for _, pairs in sorted(nodes.items())] for kind, nodes in cells.items()}
