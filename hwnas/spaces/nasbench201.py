"""The NAS-Bench-201 space (Dong & Yang, ICLR 2020): 5 operations, 6 edges, 15,625 architectures.

Stem, three stages of equal cells with a residual block of stride 2 between them, batch norm, pooling, classifier.
"""

from __future__ import annotations

import re

from hwnas.errors import HwnasError
from hwnas.spaces.space import NONE, Cell, CellPlace, FixedPart, Network, SearchSpace, Setting, Workload

OPERATIONS = (NONE, "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELL = Cell(
    num_inputs=1,
    num_nodes=3,
    edges=((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)),
    outputs=(3,),
)
FREE = (NONE, "skip_connect")
EXAMPLE = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def parse_cells(text: str) -> tuple[tuple[str, ...], ...]:
    """Read ``|op~0|+|op~0|op~1|+|op~0|op~1|op~2|``. Raises HwnasError when it is anything else."""
    nodes = text.split("+")
    operations: list[str] = []
    for number, node in enumerate(nodes, start=1):
        found = re.findall(r"([^|~]+)~(\d+)\|", node)
        if [int(source) for _, source in found] != list(range(number)) or node != "|" + "".join(
            f"{op}~{source}|" for op, source in found
        ):
            raise _malformed(text)
        operations += [op for op, _ in found]
    if len(nodes) != CELL.num_nodes:
        raise _malformed(text)
    return (tuple(operations),)


def _malformed(text: str) -> HwnasError:
    shown = text if len(text) < 120 else text[:117] + "..."
    return HwnasError(f"not a NAS-Bench-201 architecture: {shown!r}", f"write it like '{EXAMPLE}'")


def format_cells(cells: tuple[tuple[str, ...], ...], all_edges: bool = True) -> str:
    """The NAS-Bench-201 string of one cell's operations; it always names all edges."""
    nodes = (
        "|" + "".join(f"{cells[0][e]}~{CELL.edges[e][0]}|" for e in CELL.edges_into(node)) for node in CELL.inner_nodes
    )
    return "+".join(nodes)


def build_network(setting: Setting) -> Network:
    """Stem, then ``depth`` cells at each of three resolutions with 1, 2 and 4 times the channels."""
    channels, height, width = setting.channels, setting.height, setting.width
    parts: list[FixedPart | CellPlace] = [
        FixedPart("stem", Workload("stem_conv_3x3", setting.image_channels, channels, height, width), (-1,))
    ]
    for stage in range(3):
        if stage:
            reduction = Workload("residual_reduction", channels, 2 * channels, height, width, 2)
            parts.append(FixedPart(f"reduction{stage}", reduction, (len(parts) - 1,)))
            channels, height, width = 2 * channels, (height + 1) // 2, (width + 1) // 2
        candidates = {op: None if op in FREE else Workload(op, channels, channels, height, width) for op in OPERATIONS}
        for _ in range(setting.depth):
            parts.append(
                CellPlace(
                    kind="cell",
                    preprocess=(None,),
                    candidates=(candidates,) * len(CELL.edges),
                    node_sum=Workload("sum", channels, channels, height, width),
                    concat=None,
                    inputs=(len(parts) - 1,),
                )
            )
    head = Workload("norm_relu_pool_linear", channels, setting.classes, height, width)
    parts.append(FixedPart("head", head, (len(parts) - 1,)))
    return Network(setting, tuple(parts))


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
    build_network=build_network,
    published={},
)
