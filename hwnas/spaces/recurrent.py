"""Spaces of recurrent cells for words: that of AdvantageNAS (3 nodes, 6 edges) and that of DARTS (8 nodes, 36 edges).

A network reads one word at a time: its embedding and the state after the word before give node 0 of the cell, every
edge updates the node that it leaves through a gate (hwnas.spaces.recurrent_operations), a node is the mean of its
edges, and the mean of all later nodes is both the next state and what the decoder scores words from. A cell, table or
budget is thus about one word. The decoder's weights are the embedding of the words, too.

Differences from DARTS (Liu et al., ICLR 2019): a candidate has weights of its own on every edge, where all edges into a
node share them there; where a node has several edges it is their mean, not their sum, which grows from word to word.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from hwnas.errors import HwnasError
from hwnas.literals import closing_bracket, parse_literal
from hwnas.spaces.cell import NONE, Cell
from hwnas.spaces.notation import Notation
from hwnas.spaces.recurrent_operations import ACTIVATIONS, BLEND, DECODER, EMBEDDING, MEAN, STATE, highway
from hwnas.spaces.space import HIDDEN, CellInstance, FixedModule, Network, SearchSpace, Setting, Workload
from hwnas.text import shorten

OPERATIONS = (NONE, *ACTIVATIONS)
PTB_WORDS = 10_000  # of the Penn Treebank's vocabulary

Cells = tuple[tuple[str, ...], ...]

# Published cells of the DARTS code.
DARTS_V1 = (
    "Genotype(recurrent=[('relu', 0), ('relu', 1), ('tanh', 2), ('relu', 3), ('relu', 4), ('identity', 1),"
    " ('relu', 5), ('relu', 1)], concat=range(1, 9))"
)
DARTS_V2 = (
    "Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), ('tanh', 2), ('sigmoid', 5),"
    " ('tanh', 3), ('relu', 5)], concat=range(1, 9))"
)


def _cell(nodes: int) -> Cell:
    return Cell(
        num_inputs=1,
        num_nodes=nodes,
        edges=tuple((source, target) for target in range(1, nodes + 1) for source in range(target)),
        outputs=tuple(range(1, nodes + 1)),
        recurrent=True,
    )


def _network(name: str, cell: Cell, setting: Setting) -> Network:
    """Return the network of one step. Raises HwnasError for sizes that such a network does not have."""
    image = setting.image_channels, setting.height, setting.width
    if setting.depth != 1:
        raise HwnasError(f"networks of space {name} have one cell, not {setting.depth}", "leave out the number")
    if image != (1, 1, 1) or not setting.words:
        raise HwnasError(
            f"space {name} reads words, not images of {'x'.join(map(str, image))}",
            "leave out the shape; --channels sets the size of the vectors of words",
        )
    size = setting.channels
    candidates: dict[str, Workload | None] = {a: Workload(highway(a), size, size, 1, 1) for a in ACTIVATIONS}
    instance = CellInstance(
        kind="cell",
        preprocess=(None,),
        candidates=({NONE: None, **candidates},) * len(cell.edges),
        node_sum=Workload(BLEND, size, size, 1, 1),
        concat=Workload(f"{MEAN}{len(cell.outputs)}", size, size, 1, 1),
        inputs=(1,),
    )
    parts = (
        FixedModule("embedding", Workload(EMBEDDING, 1, size, 1, 1), (-1,)),
        FixedModule("state", Workload(STATE, size, size, 1, 1), (0, HIDDEN)),
        instance,
        FixedModule("decoder", Workload(DECODER, size, setting.classes, 1, 1), (2,)),
    )
    return Network(setting, parts)


def _parse(notation: Notation, text: str) -> Cells:
    """Parse ``|op~0|+|op~0|op~1|…``, which names all edges, or a genotype with one edge a node, as of DARTS.

    Raises HwnasError for any other text.
    """
    start = text.find("[")
    if "recurrent" not in text or start < 0:
        return notation.parse(text)
    cell, end = notation.cells["cell"], closing_bracket(text, start)
    try:
        pairs = parse_literal(text[start : end + 1]) if end else []
        chosen = {(int(source), node): op for node, (op, source) in enumerate(pairs, 1)}
    except (TypeError, ValueError):
        chosen = {}
    if len(chosen) != cell.num_nodes or not set(chosen) <= set(cell.edges):
        example = f"Genotype(recurrent=[('tanh', 0), …], concat=range(1, {cell.num_nodes + 1}))"
        raise HwnasError(
            f"not an architecture of space {notation.space}: {shorten(text, 120)!r}",
            f'write it like "{example}", with {cell.num_nodes} pairs of an operation and an earlier node',
        )
    return (tuple(chosen.get(edge, NONE) for edge in cell.edges),)


def _format(notation: Notation, cells: Cells, all_edges: bool = False) -> str:
    """Return the genotype of a cell with one edge a node, unless ``all_edges``; of any other cell all edges."""
    cell = notation.cells["cell"]
    chosen = [(op, *edge) for op, edge in zip(cells[0], cell.edges, strict=True) if op != NONE]
    one_each = [target for _, _, target in chosen] == list(cell.inner_nodes)
    if all_edges or not one_each:
        return notation.format(cells)
    pairs = ", ".join(f"({op!r}, {source})" for op, source, _ in chosen)
    return f"Genotype(recurrent=[{pairs}], concat=range(1, {cell.num_nodes + 1}))"


def _space(name: str, nodes: int, units: int, published: Mapping[str, str]) -> SearchSpace:
    """Return a space of cells with this number of nodes; ``units`` is the size of the published networks' vectors."""
    cell = _cell(nodes)
    notation = Notation(name, {"cell": cell}, ACTIVATIONS[0])
    sizes = {"small": 64, "ptb": units}
    return SearchSpace(
        name=name,
        operations=OPERATIONS,
        cells={"cell": cell},
        settings={key: Setting(size, 1, 1, 1, 1, PTB_WORDS, stem="words") for key, size in sizes.items()},
        search_setting="small",
        published_setting=lambda text: "ptb",
        macs_convention="fvcore",
        parse_cells=partial(_parse, notation),
        format_cells=partial(_format, notation),
        build_network=partial(_network, name, cell),
        published=published,
    )


RECURRENT = _space("recurrent", 3, 300, {})
RECURRENT_DARTS = _space("recurrent-darts", 8, 850, {"DARTS_V1": DARTS_V1, "DARTS_V2": DARTS_V2})
