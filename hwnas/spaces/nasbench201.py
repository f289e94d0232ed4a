"""The NAS-Bench-201 space (Dong & Yang, ICLR 2020): 5 operations, 6 edges, 15,625 architectures.

Network: stem, three stages of cells, residual blocks of stride 2 between them, batch norm, pooling, classifier.
"""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.spaces.build import Layout, NetworkStage
from hwnas.spaces.builtin_operations import RESIDUAL_REDUCTION
from hwnas.spaces.notation import format_cell, read_cell
from hwnas.spaces.space import NONE, Cell, SearchSpace, Setting

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
    """Parse ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``. Raises HwnasError for any other text."""
    operations = read_cell(CELL, text)
    if operations is None:
        raise _malformed(text)
    return (operations,)


def _malformed(text: str) -> HwnasError:
    shown = text if len(text) < 120 else text[:117] + "..."
    return HwnasError(f"not a NAS-Bench-201 architecture: {shown!r}", f"write it like '{EXAMPLE}'")


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
