"""Spaces so small that every architecture can be listed, with random tables and logits."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import LEAST_LOG_PROBABILITY
from hwnas.cost.fusion import pieces
from hwnas.cost.model import Array
from hwnas.spaces import (
    NONE,
    Cell,
    CellInstance,
    FixedModule,
    Network,
    SearchSpace,
    Setting,
    SizedSpace,
    Workload,
)
from hwnas.spaces.encoding import every_choice
from hwnas.tables.schema import CellCosts, Correction, EdgeCosts, Entry, LatencyTable
from support.spaces import NB201
from support.tables import make_table

METRICS = ("latency_ms", "macs", "params")
SETTINGS = {"nasbench201": Setting(channels=4, depth=1, height=16, width=16)}
TINY_CELL = Cell(num_inputs=2, num_nodes=2, edges=((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), outputs=(2, 3))
TINIER_CELL = Cell(num_inputs=2, num_nodes=2, edges=((0, 2), (1, 2), (1, 3), (2, 3)), outputs=(2, 3))
CELLS = {  # small spaces like DARTS: 3 operations, two kinds of cell
    "skip and conv": (TINIER_CELL, (NONE, "skip_connect", "nor_conv_3x3")),
    "pool and conv": (TINIER_CELL, (NONE, "max_pool_3x3", "sep_conv_3x3")),
    "convs": (TINIER_CELL, (NONE, "nor_conv_1x1", "dil_conv_3x3")),
    "all edges": (TINY_CELL, (NONE, "skip_connect", "sep_conv_3x3")),  # 59,049 architectures
    "no empty node": (replace(TINIER_CELL, least_inputs=1), (NONE, "skip_connect", "conv_3x1_1x3")),
}


def build_tiny(setting: Setting, cell: Cell, operations: tuple[str, ...]) -> Network:
    """A normal cell, a reduction cell, a normal cell; every cell reads the part before it twice."""
    c, size = setting.channels, setting.height
    parts: list[FixedModule | CellInstance] = [FixedModule("stem", Workload("stem_conv_3x3", 3, c, size, size), (-1,))]
    width = c
    for kind in ("normal", "reduce", "normal"):
        stride = 2 if kind == "reduce" else 1
        before = Workload("nor_conv_1x1", width, c, size, size)
        small = size // stride

        def candidates(source: int, stride: int = stride, size: int = size, small: int = small) -> dict:
            step, side = (stride, size) if source < 2 else (1, small)
            timed: dict[str, Workload | None] = {op: Workload(op, c, c, side, side, step) for op in operations[1:]}
            if "skip_connect" in timed:
                timed["skip_connect"] = Workload("factorized_reduce", c, c, side, side, 2) if step == 2 else None
            return {NONE: None, **timed}

        parts.append(
            CellInstance(
                kind=kind,
                preprocess=(before, before),
                candidates=tuple(candidates(source) for source, _ in cell.edges),
                node_sum=Workload("sum", c, c, small, small),
                concat=Workload("concat", c, 2 * c, small, small),
                inputs=(len(parts) - 1, len(parts) - 1),
            )
        )
        width, size = 2 * c, small
    parts.append(FixedModule("head", Workload("pool_linear", width, 10, size, size), (len(parts) - 1,)))
    return Network(setting, tuple(parts))


def tiny(name: str) -> SearchSpace:
    cell, operations = CELLS[name]
    return SearchSpace(
        name=name,
        operations=operations,
        cells=dict.fromkeys(("normal", "reduce"), cell),
        settings={"tiny": Setting(channels=4, depth=3, height=8, width=8)},
        search_setting="tiny",
        published_setting=lambda text: "tiny",
        macs_convention="fvcore",
        parse_cells=lambda text: tuple(tuple(cell.split()) for cell in text.split("+")),
        format_cells=lambda cells, all_edges: "+".join(map(" ".join, cells)),
        build_network=lambda setting: build_tiny(setting, cell, operations),
        published={},
    )


SPACES = {"nasbench201": NB201, **{name: tiny(name) for name in CELLS}}
KINDS = ("plain", "share", "fuse", "both", "edges")
EVERY = {name: every_choice(space) for name, space in SPACES.items()}


def setting_of(name: str) -> Setting:
    return SETTINGS.get(name) or SPACES[name].settings["tiny"]


@cache
def counted(name: str) -> LatencyTable:
    """A table with the pieces that rewrites need beside every workload."""
    space, setting = SPACES[name], setting_of(name)
    table = make_table(SizedSpace(space, setting))
    more = [Entry(**{**table.entries[0].model_dump(), **asdict(w)}) for w in pieces(SizedSpace(space, setting).network)]
    return table.model_copy(update={"entries": [*table.entries, *more]})


def random_table(name: str, kind: str, generator: np.random.Generator) -> LatencyTable:
    """Latencies at random. ``kind``: plain, rewrites (share, fuse, both; factors at random), or edges (edge costs)."""
    space, table = SPACES[name], counted(name)
    key = SizedSpace(space, setting_of(name)).key
    if kind == "edges":
        return table.model_copy(update={"version": 2, "edge_costs": {key: random_edge_costs(space, generator)}})
    entries = [e.model_copy(update={"latency_ms": float(generator.uniform(0.001, 0.1))}) for e in table.entries]
    rewrites = {"plain": [], "share": ["share"], "fuse": ["fuse"], "both": ["share", "fuse"]}[kind]
    factors = {n: float(generator.uniform(0.3, 2)) for n in ("conv", "pool", "relu", "sum", "skip")}
    factors["fused_sum"] = float(generator.uniform(0, 1.2)) * factors["sum"]
    offset_ms = float(generator.uniform(-0.05, 0.05))
    fit = Correction(offset_ms=offset_ms, scale=1.1, factors=factors, rewrites=rewrites, networks=9)
    return table.model_copy(update={"entries": entries, "correction": {key: fit}})


def random_edge_costs(space: SearchSpace, generator: np.random.Generator) -> EdgeCosts:
    """Return random edge costs; those of live edges may be slightly negative, as in fitted tables."""
    used = np.array([op != NONE for op in space.operations], dtype=float)
    cells = {}
    for kind, cell in space.cells.items():
        shape = (len(cell.edges), len(space.operations))
        cells[kind] = CellCosts(
            live_ms=(generator.uniform(-0.02, 1, shape) * used).tolist(),
            always_ms=(generator.uniform(-0.01, 0.1, shape) * used).tolist(),
            error_ms=np.zeros(shape).tolist(),
            macs=(generator.integers(0, 50, shape) * used.astype(int) * 1000).tolist(),
            params=(generator.integers(0, 50, shape) * used.astype(int)).tolist(),
        )
    size = 1 + 2 * space.num_edges * (len(space.operations) - 1)
    return EdgeCosts(
        operations=list(space.operations), base_ms=1.0, base_macs=5000, base_params=10, cells=cells,
        covariance=[[0.0] * row for row in range(1, size + 1)],
        scatter_ms=0.0, scatter_share=0.01, degrees_of_freedom=5, measurements=9,
    )  # fmt: skip


def random_logits(space: SearchSpace, generator: np.random.Generator, concentration: float) -> dict[str, Array]:
    """log p of every edge; small concentrations make them certain, and some as good as impossible."""
    return {
        kind: np.log(generator.dirichlet(np.full(len(space.operations), concentration), len(cell.edges)) + 1e-30)
        for kind, cell in space.cells.items()
    }


def plain_scores(space: SearchSpace, log_p: dict[str, Array], choices: NDArray[np.intp]) -> Array:
    """Sum of log p over the edges of all cells."""
    table = np.maximum(np.concatenate([log_p[kind] for kind in space.cells]), LEAST_LOG_PROBABILITY)
    return np.asarray([table[e, choices[:, e]] for e in range(len(table))]).sum(axis=0)


@cache
def obeys(name: str, inputs_per_node: int | None) -> NDArray[np.bool_]:
    """Check cell by cell for a path from an input to an output, and for the number of inputs of every node.

    In ``no empty node`` that number is never 0.
    """
    space, choices = SPACES[name], EVERY[name]
    allowed, start = np.ones(len(choices), dtype=bool), 0
    for cell in space.cells.values():
        used = choices[:, start : start + len(cell.edges)] != 0  # none comes first
        start += len(cell.edges)
        ways, number = np.unique(used, axis=0, return_inverse=True)
        fine = []
        for way in ways:
            live = cell.live_edges(tuple("op" if u else NONE for u in way))
            inputs = [sum(way[e] for e in cell.edges_into(node)) for node in cell.inner_nodes]
            ruled = inputs_per_node is None or all(n == inputs_per_node for n in inputs)
            fine.append(any(live) and ruled and (min(inputs) > 0 or name != "no empty node"))
        allowed &= np.array(fine)[number.ravel()]
    return allowed
