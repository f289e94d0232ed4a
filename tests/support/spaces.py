"""The built-in spaces of cells for images, small sizes of them, and random architectures."""

from __future__ import annotations

from hypothesis import strategies as st

from hwnas.spaces import SPACES, Architecture, Cell, Setting, get_space

CELL_SPACES = {name: s for name, s in SPACES.items() if not (s.is_chain or s.is_recurrent)}
# For tests of what does not depend on the operations, and takes long: supernets, searches.
SEARCH_SPACES = {name: CELL_SPACES[name] for name in ("nasbench201", "darts")}
NB201, DARTS = get_space("nasbench201"), get_space("darts")
SMALL = {
    "nasbench201": Setting(channels=4, depth=1, height=16, width=16),
    "darts": Setting(channels=4, depth=3, height=16, width=16, pool_norm=True),
    "darts-extended": Setting(channels=4, depth=3, height=16, width=16, pool_norm=True),
}
ALL_CONV = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|"


def architectures(name: str) -> st.SearchStrategy[Architecture]:
    """Return a strategy that draws architectures of a space uniformly."""
    space = CELL_SPACES[name]
    drawn = [st.tuples(*[st.sampled_from(space.operations)] * len(cell.edges)) for cell in space.cells.values()]
    cells = [
        operations.filter(lambda ops, cell=cell: not cell.refuse(ops)) if cell.least_inputs else operations
        for operations, cell in zip(drawn, space.cells.values(), strict=True)
    ]
    return st.builds(lambda *chosen: space.architecture(chosen), *cells)


def live_by_paths(cell: Cell, operations: tuple[str, ...]) -> tuple[bool, ...]:
    """Return for every edge whether it is live, by listing every path from an input to an output."""
    live: set[int] = set()

    def walk(node: int, path: list[int]) -> None:
        if node in cell.outputs:
            live.update(path)
        for e in cell.edges_from(node):
            if operations[e] != "none":
                walk(cell.edges[e][1], [*path, e])

    for node in range(cell.num_inputs):
        walk(node, [])
    return tuple(e in live for e in range(len(cell.edges)))
