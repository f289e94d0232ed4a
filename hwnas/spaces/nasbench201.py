"""The NAS-Bench-201 space (Dong & Yang, ICLR 2020): 5 operations, 6 edges, 15,625 architectures.

Network: stem, three stages of cells, residual blocks of stride 2 between them, batch norm, pooling, classifier.
"""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.literals import closing_bracket, parse_literal
from hwnas.spaces.build import Layout, NetworkStage
from hwnas.spaces.builtin_operations import RESIDUAL_REDUCTION
from hwnas.spaces.cell import NONE, Cell
from hwnas.spaces.notation import find_written, format_cell, read_cell
from hwnas.spaces.space import SearchSpace, Setting
from hwnas.text import shorten

OPERATIONS = (NONE, "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELL = Cell(
    num_inputs=1,
    num_nodes=3,
    edges=((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)),
    outputs=(3,),
)
LAYOUT = Layout(
    operations={op: op for op in OPERATIONS},
    cells={"cell": CELL},
    stages=(
        NetworkStage("cell"),
        NetworkStage("cell", 2, reduction=RESIDUAL_REDUCTION),
        NetworkStage("cell", 4, reduction=RESIDUAL_REDUCTION),
    ),
    head="norm_relu_pool_linear",
)
EXAMPLE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def parse_cells(text: str) -> tuple[tuple[str, ...], ...]:
    """Parse ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``, also within a log line, or its lists of (operation, node) pairs.

    Raises HwnasError for any other text.
    """
    operations = read_cell(CELL, find_written(("cell",), _of_lists(text) or text))
    if operations is None:
        raise HwnasError(f"not a NAS-Bench-201 architecture: {shorten(text, 120)!r}", f"write it like '{EXAMPLE}'")
    return (operations,)


def _of_lists(text: str) -> str | None:
    """Return the notation for ``[(('op', 0),), (('op', 0), ('op', 1)), …]``, a list of pairs a node, or None."""
    start = text.find("[")
    end = closing_bracket(text, start) if start >= 0 and "~" not in text else None
    try:
        nodes = parse_literal(text[start : end + 1]) if end else []
        return "+".join("|" + "".join(f"{op}~{source}|" for op, source in node) for node in nodes) or None
    except (TypeError, ValueError):
        return None


def format_cells(cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
    """Return the NAS-Bench-201 string, which always names all edges."""
    return format_cell(CELL, cells[0])


NASBENCH201 = SearchSpace(
    name="nasbench201",
    operations=OPERATIONS,
    cells={"cell": CELL},
    settings={"cifar": Setting(channels=16, depth=5)},
    search_setting="cifar",
    published_setting=lambda text: "cifar",
    macs_convention="conv_linear",
    parse_cells=parse_cells,
    format_cells=format_cells,
    build_network=LAYOUT.network,
    published={},
)
