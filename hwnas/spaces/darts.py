"""The DARTS space (Liu et al., ICLR 2019), also that of SNAS (Xie et al., ICLR 2019): 8 operations, 14 edges a cell.

There are two kinds of cell. Each has two inputs (the outputs of the two cells before it, brought to its channels) and
four nodes, whose concatenation is its output. Edges that leave the inputs of a reduction cell have stride 2.
"""

from __future__ import annotations

from hwnas.errors import HwnasError
from hwnas.spaces.build import NetworkBuilder, add_stem
from hwnas.spaces.cell import NONE, Cell
from hwnas.spaces.genotype import KINDS, WrittenCell, read_genotype
from hwnas.spaces.space import Network, SearchSpace, Setting
from hwnas.text import shorten

OPERATIONS = (
    NONE,
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
CELL = Cell(
    num_inputs=2,
    num_nodes=4,
    edges=tuple((source, target) for target in range(2, 6) for source in range(target)),
    outputs=(2, 3, 4, 5),
)
INPUTS_PER_NODE = 2  # of the top-2 form

# Published cells, as facts to test against and to name on the command line.
DARTS_V1 = (
    "Genotype(normal=[('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 0), ('sep_conv_3x3', 1),"
    " ('skip_connect', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('skip_connect', 2)], normal_concat=[2, 3, 4, 5],"
    " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 0),"
    " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('avg_pool_3x3', 0)],"
    " reduce_concat=[2, 3, 4, 5])"
)
DARTS_V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),"
    " ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],"
    " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1),"
    " ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)],"
    " reduce_concat=[2, 3, 4, 5])"
)
SNAS_MODERATE = (
    "Genotype(normal=[('dil_conv_5x5', 0), ('skip_connect', 1), ('sep_conv_3x3', 0), ('skip_connect', 1), ('none', 2),"
    " ('skip_connect', 0), ('none', 3), ('none', 2), ('skip_connect', 1), ('sep_conv_3x3', 0), ('dil_conv_5x5', 1),"
    " ('none', 4), ('none', 3), ('none', 2)], normal_concat=range(2, 6),"
    " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('sep_conv_5x5', 0), ('none', 2), ('dil_conv_5x5', 1),"
    " ('none', 3), ('none', 2), ('sep_conv_5x5', 0), ('sep_conv_5x5', 1), ('none', 4), ('none', 3), ('none', 2),"
    " ('sep_conv_5x5', 0), ('sep_conv_5x5', 1)], reduce_concat=range(2, 6))"
)


def parse_cells(text: str, free: bool = False) -> tuple[tuple[str, ...], ...]:
    """Parse ``Genotype(normal=[...], normal_concat=..., reduce=[...], reduce_concat=...)`` or another form of it.

    A cell is a list of (operation, input) pairs: two for each node, or one for every edge; hwnas.spaces.genotype lists
    the forms. With ``free``, nodes whose pairs are in a list of their own have any number of them.

    Raises HwnasError for anything else. The text is parsed, never evaluated.
    """
    return tuple(_parse_cell(kind, cell, free) for kind, cell in _written_cells(text).items())


def _written_cells(text: str) -> dict[str, WrittenCell]:
    try:
        return read_genotype(text)
    except ValueError as error:
        raise HwnasError(
            f"not a DARTS genotype: {shorten(' '.join(text.split()), 80)!r}: {error}",
            "write it like \"Genotype(normal=[('sep_conv_3x3', 0), ...], reduce=[...])\" or name one: DARTS_V2",
        ) from None


def _parse_cell(kind: str, written: WrittenCell, free: bool) -> tuple[str, ...]:
    concat, pairs, nodes = written.concat, written.pairs, written.nodes
    if concat is not None and sorted(concat) != list(CELL.outputs):
        raise HwnasError(
            f"{kind}_concat must be nodes 2 to 5, not {list(concat)}", "only that cell output is in the space"
        )
    inputs = tuple(len(CELL.edges_into(node)) for node in CELL.inner_nodes)
    grouped = nodes is not None and free and len(nodes) == CELL.num_nodes
    if nodes not in (None, (INPUTS_PER_NODE,) * CELL.num_nodes, inputs) and not grouped:
        numbers = "" if free else f" with two inputs each, or with all {', '.join(map(str, inputs))}"
        raise HwnasError(
            f"the {kind} cell has nodes with {', '.join(map(str, nodes or ()))} inputs",
            f"give {CELL.num_nodes} nodes{numbers}",
        )
    if grouped:
        targets = [node for node, number in zip(CELL.inner_nodes, nodes or (), strict=True) for _ in range(number)]
    elif len(pairs) == INPUTS_PER_NODE * CELL.num_nodes:
        targets = [node for node in CELL.inner_nodes for _ in range(INPUTS_PER_NODE)]
    elif len(pairs) == len(CELL.edges):
        targets = [target for _, target in CELL.edges]
    else:
        lists = ", or a list of pairs for each node" * free
        raise HwnasError(
            f"the {kind} cell has {len(pairs)} edges", f"give 8 (two for each node) or all 14, 'none' among them{lists}"
        )
    operations: dict[tuple[int, int], str] = {}
    for (op, source), target in zip(pairs, targets, strict=True):
        if (source, target) not in CELL.edges or (source, target) in operations:
            raise HwnasError(
                f"node {target} of the {kind} cell cannot take input {source} here",
                f"give each input from 0 to {target - 1} at most once",
            )
        operations[source, target] = op
    return tuple(operations.get(edge, NONE) for edge in CELL.edges)


def is_top2(cells: tuple[tuple[str, ...], ...]) -> bool:
    """Return whether every node of every cell has exactly two inputs, as DARTS derives them."""
    return all(
        sum(cell[e] != NONE for e in CELL.edges_into(node)) == INPUTS_PER_NODE
        for cell in cells
        for node in CELL.inner_nodes
    )


def evaluation_setting(text: str) -> str:
    """Return the setting of the published network for a genotype in this form.

    DARTS trains the top-2 form with bare pooling, SNAS the all-edges form with a batch norm after every pooling.
    """
    cells = _written_cells(text).values()
    return "snas-cifar" if any(len(cell.pairs) == len(CELL.edges) for cell in cells) else "cifar"


def format_cells(cells: tuple[tuple[str, ...], ...], all_edges: bool = False) -> str:
    """Return the genotype: in top-2 form where every node has two inputs, else, or with ``all_edges``, in full."""
    top2 = is_top2(cells) and not all_edges
    fields = []
    for kind, cell in zip(KINDS, cells, strict=True):
        pairs = [(op, source) for op, (source, _) in zip(cell, CELL.edges, strict=True) if op != NONE or not top2]
        fields += [f"{kind}={pairs}", f"{kind}_concat=range(2, 6)"]
    return f"Genotype({', '.join(fields)})"


def build_network(setting: Setting, operations: tuple[str, ...] = OPERATIONS) -> Network:
    """Return a network of ``depth`` cells; those at one and two thirds are reductions that double the channels."""
    builder = NetworkBuilder(setting, {op: op for op in operations})
    channels = setting.channels
    add_stem(builder, channels if setting.stem == "imagenet" else 3 * channels)
    for index in range(setting.depth):
        reduction = index in {setting.depth // 3, 2 * setting.depth // 3}
        channels *= 1 + reduction
        builder.cell("reduce" if reduction else "normal", CELL, channels, 1 + reduction)
    head = "window_pool_linear" if setting.stem == "imagenet" else "pool_linear"  # as the published networks have it
    builder.fixed("head", head, setting.classes)
    return builder.network()


DARTS = SearchSpace(
    name="darts",
    operations=OPERATIONS,
    cells=dict.fromkeys(KINDS, CELL),
    settings={
        "search": Setting(channels=16, depth=8, pool_norm=True),
        "cifar": Setting(channels=36, depth=20),
        "snas-cifar": Setting(channels=36, depth=20, pool_norm=True),
        "imagenet-mobile": Setting(channels=48, depth=14, height=224, width=224, classes=1000, stem="imagenet"),
    },
    search_setting="search",
    published_setting=evaluation_setting,
    macs_convention="fvcore",
    parse_cells=parse_cells,
    format_cells=format_cells,
    build_network=build_network,
    published={"DARTS_V1": DARTS_V1, "DARTS_V2": DARTS_V2, "SNAS_MODERATE": SNAS_MODERATE},
)
