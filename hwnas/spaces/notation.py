"""Architectures as text in NAS-Bench-201's notation: ``|op~0|+|op~0|op~1|``, an operation and its source node an edge.

With several kinds of cell, each is preceded by its name: ``normal:|op~0|+|op~0|op~1|;reduce:|op~0|+|op~0|op~1|``.
Spaces between the parts are ignored, and so is what surrounds the architecture: quotes, brackets, a log line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwnas.errors import HwnasError
from hwnas.spaces.cell import Cell
from hwnas.text import shorten

_NODE = r"\|(?:\s*[^|~+\s]+\s*~\s*\d+\s*\|)+"
_CELL = rf"{_NODE}(?:\s*\+\s*{_NODE})*"
# The characters next to an architecture that would make it a part of something longer.
_ALONE = r"(?<![\w|+~]){}(?![\w|+~])"


def find_written(kinds: Sequence[str], text: str) -> str:
    """Return the architecture in a text without spaces and surroundings, or the text itself when there is none.

    ``kinds`` are the names of the cells, which the text has when there are several. Raises HwnasError when the text
    holds several architectures.
    """
    cells = [rf"{re.escape(kind)}\s*:\s*{_CELL}" for kind in kinds] if len(kinds) > 1 else [_CELL]
    found = list(re.finditer(_ALONE.format(r"\s*;\s*".join(cells)), text))
    written = list(dict.fromkeys(re.sub(r"\s", "", match[0]) for match in found))
    if len(written) > 1:
        raise HwnasError(f"{shorten(text, 80)!r} holds {len(written)} architectures", "give one at a time")
    rest = text[: found[0].start()] + text[found[-1].end() :] if found else "~"
    return text if "~" in rest else written[0]


def read_cell(cell: Cell, text: str) -> tuple[str, ...] | None:
    """Return the operations of a cell in the order of its edges, or None when the text does not describe this cell."""
    nodes = text.split("+")
    if len(nodes) != cell.num_nodes:
        return None
    operations = [""] * len(cell.edges)
    for node, written in zip(cell.inner_nodes, nodes, strict=True):
        edges = cell.edges_into(node)
        found = re.findall(r"([^|~]+)~(\d+)\|", written)
        if [source for _, source in found] != [str(cell.edges[e][0]) for e in edges]:
            return None
        if written != "|" + "".join(f"{op}~{source}|" for op, source in found):
            return None
        for e, (op, _) in zip(edges, found, strict=True):
            operations[e] = op
    return tuple(operations)


def format_cell(cell: Cell, operations: tuple[str, ...]) -> str:
    """Return the text that ``read_cell`` parses; it names all edges."""
    nodes = (
        "|" + "".join(f"{operations[e]}~{cell.edges[e][0]}|" for e in cell.edges_into(node))
        for node in cell.inner_nodes
    )
    return "+".join(nodes)


@dataclass(frozen=True)
class Notation:
    """The notation of a user's space. ``example`` is the operation that error messages show."""

    space: str
    cells: Mapping[str, Cell]
    example: str

    def parse(self, text: str) -> tuple[tuple[str, ...], ...]:
        """Return the operations of every cell, one an edge. Raises HwnasError for any other text."""
        written = [part.strip() for part in find_written(list(self.cells), text).split(";")]
        if len(self.cells) > 1:
            named = [part.partition(":") for part in written]
            if [kind for kind, _, _ in named] != list(self.cells):
                raise self._malformed(text)
            written = [part for _, _, part in named]
        if len(written) != len(self.cells):
            raise self._malformed(text)
        found = tuple(read_cell(cell, part) for cell, part in zip(self.cells.values(), written, strict=True))
        cells = tuple(operations for operations in found if operations is not None)
        if len(cells) != len(found):
            raise self._malformed(text)
        return cells

    def format(self, cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
        """Return the text of cells given as one operation an edge; it names all edges."""
        parts = [format_cell(cell, chosen) for cell, chosen in zip(self.cells.values(), cells, strict=True)]
        if len(parts) == 1:
            return parts[0]
        return ";".join(f"{kind}:{part}" for kind, part in zip(self.cells, parts, strict=True))

    def _malformed(self, text: str) -> HwnasError:
        example = self.format(tuple((self.example,) * len(cell.edges) for cell in self.cells.values()))
        return HwnasError(
            f"not an architecture of space {self.space}: {shorten(text, 120)!r}", f"write it like '{example}'"
        )
