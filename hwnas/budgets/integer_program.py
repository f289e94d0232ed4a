"""An integer program under construction, with the rows for the savings of a runtime's rewrites.

For binary z and h, the rows for the rewrites (hwnas.cost.fusion) equal the costs of hwnas.cost.model:

    h[e] <= z[e, copy], 1 - y of any other edge into the node      the node is the tensor of e's source
    q[n, p] >= y[e, o] out of n, q[m, p] + h[n, m] - 1             piece p is needed of node n's tensor
    k[n] >= y of what reads n and is no ReLU, k[m] + h[n, m] - 1   n's tensor itself is kept
    r[n] <= 1 - k[n], and 0 unless a convolution wrote n           the ReLU of n is free
    s[n, p] >= q[n, p] - sum of h into n - r[n]                    the piece is paid for

They ignore dead edges in the conditions on r. The cost may therefore come out too low, never too high: no architecture
within a budget is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations, pairwise, product

import numpy as np

from hwnas.cost.model import RELU, CostModel
from hwnas.spaces import NONE, Cell, SearchSpace
from hwnas.spaces.builtin_operations import SKIP

Row = dict[int, float]


@dataclass
class IntegerProgram:
    """Rows of an integer program under construction: coefficients by column, and bounds of the sum."""

    rows: list[Row] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    columns: int = 0
    binary: list[int] = field(default_factory=list)
    unbounded: list[int] = field(default_factory=list)  # the others lie between 0 and 1

    def variables(self, count: int, binary: bool = False, unbounded: bool = False) -> np.ndarray:
        """Add columns and return their indices."""
        block = np.arange(self.columns, self.columns + count)
        self.columns += count
        if unbounded:
            self.unbounded += block.tolist()
        if binary:
            self.binary += block.tolist()
        return block

    def add(self, row: Row, lower: float = -np.inf, upper: float = np.inf) -> None:
        self.rows.append(row)
        self.lower.append(lower)
        self.upper.append(upper)


@dataclass(frozen=True)
class CellVariables:
    """Columns of one cell kind, named as in hwnas.budgets.derive."""

    choose: np.ndarray  # z [E, K]
    runs: np.ndarray  # y [E, K]
    additions: np.ndarray  # t [nodes]
    joint: Mapping[int, Mapping[tuple[int, ...], int]]  # x by edge that reads others, and operations of these and it


def total(*terms: tuple[Iterable[int], float]) -> Row:
    """Return the row of a sum of groups of columns, each with its coefficient."""
    row: Row = {}
    for columns, coefficient in terms:
        for column in columns:
            row[int(column)] = row.get(int(column), 0.0) + coefficient
    return row


def offer_rows(program: IntegerProgram, space: SearchSpace, cell: Cell, choose: np.ndarray) -> None:
    """Forbid operations that an edge does not offer, and a layer after a skipped one where the last are skipped."""
    for e in range(len(cell.edges)):
        closed = [o for o, op in enumerate(space.operations) if op not in cell.offered(e, space.operations)]
        if closed:
            program.add(dict.fromkeys(choose[e, closed].tolist(), 1.0), upper=0)
    for group in cell.skipped_last:
        skips = choose[list(group), space.operations.index(SKIP)].tolist()
        for before, after in pairwise(skips):
            program.add({before: 1.0, after: -1.0}, upper=0)


def joint_choices(
    program: IntegerProgram, cell: Cell, operations: tuple[str, ...], choose: np.ndarray
) -> dict[int, dict[tuple[int, ...], int]]:
    """Add x for every edge that reads others: 1 for the operations chosen on these and on it, else 0.

    The sum of x over all but one of these edges is the choice z there. For binary z this leaves one solution.
    """
    found: dict[int, dict[tuple[int, ...], int]] = {}
    for e, edges in cell.coupled.items():
        offers = [[operations.index(op) for op in cell.offered(other, operations)] for other in edges]
        together = list(product(*offers))
        found[e] = dict(zip(together, program.variables(len(together)).tolist(), strict=True))
        for axis, (other, offered) in enumerate(zip(edges, offers, strict=True)):
            for o in offered:
                columns = [column for chosen, column in found[e].items() if chosen[axis] == o]
                program.add(total((columns, 1), ([choose[other, o]], -1)), lower=0, upper=0)
    return found


@dataclass(frozen=True)
class _Edges:
    """The columns of one cell's edges by property of their operations: z where a row must be tight, else y."""

    cell: Cell
    used: list[list[int]]  # z of every operation but none
    fusing: list[list[int]]  # z of those that end in a convolution
    runs: list[list[int]]  # y of every operation but none
    runs_plain: list[list[int]]  # y of those that do not end in a convolution


def _edges(model: CostModel, kind: str, variables: CellVariables) -> _Edges:
    runs = variables.runs if model.dead_edges_are_free else variables.choose
    fuses = model.cells[kind].fuses
    ops = [o for o, op in enumerate(model.space.operations) if op != NONE]
    every = range(len(fuses))
    return _Edges(
        model.space.cells[kind],
        used=[[int(variables.choose[e, o]) for o in ops] for e in every],
        fusing=[[int(variables.choose[e, o]) for o in ops if fuses[e, o]] for e in every],
        runs=[[int(runs[e, o]) for o in ops] for e in every],
        runs_plain=[[int(runs[e, o]) for o in ops if not fuses[e, o]] for e in every],
    )


def live_rows(program: IntegerProgram, model: CostModel, kind: str, variables: CellVariables) -> None:
    """Add the rows by which the operations of one cell kind that cost less than nothing run on live edges only.

    Without them, the program would count such operations on dead edges, too, and only the exact check would not.
    """
    cost, cell = model.cells[kind].edges, model.space.cells[kind]
    if not (model.dead_edges_are_free and (cost < 0).any()):
        return
    used = [o for o, op in enumerate(model.space.operations) if op != NONE]
    nodes, edges = cell.num_inputs + cell.num_nodes, len(cell.edges)
    reached, needed = program.variables(nodes).tolist(), program.variables(nodes).tolist()
    arrives, leaves = program.variables(edges).tolist(), program.variables(edges).tolist()
    for e, (source, target) in enumerate(cell.edges):
        for column, end in ((arrives[e], reached[source]), (leaves[e], needed[target])):
            program.add(total(([column], 1), (variables.choose[e, used], -1)), upper=0)
            program.add({column: 1.0, end: -1.0}, upper=0)
            for o in np.flatnonzero(cost[e] < 0):
                program.add({int(variables.runs[e, o]): 1.0, column: -1.0}, upper=0)
    for node in cell.inner_nodes:
        program.add(total(([reached[node]], 1), ([arrives[e] for e in cell.edges_into(node)], -1)), upper=0)
    for node in set(range(nodes)) - set(cell.outputs):
        program.add(total(([needed[node]], 1), ([leaves[e] for e in cell.edges_from(node)], -1)), upper=0)


def addition_rows(program: IntegerProgram, model: CostModel, kind: str, variables: CellVariables) -> Row:
    """Add the rows of the additions of one cell kind, and return their costs.

    Additions that no convolution performs cost more. A node's inputs are added up in order; the first needs no
    addition, and if a convolution wrote it, that convolution adds the second.
    """
    cost = model.cells[kind]
    row = dict.fromkeys(variables.additions.tolist(), min(cost.fused_addition, cost.addition))
    if cost.addition <= cost.fused_addition:
        return row
    edges = _edges(model, kind, variables)
    plain = program.variables(edges.cell.num_nodes, unbounded=True).tolist()
    for number, node in enumerate(edges.cell.inner_nodes):
        into = edges.cell.edges_into(node)
        not_fused = [column for e in into for column in edges.runs_plain[e]]
        program.add(total(([plain[number]], 1), (not_fused, -1)), lower=-1)
        for first, second in combinations(into, 2):  # both are convolutions, with no input before or between them
            others = [c for e in into if e < second and e != first for c in edges.used[e]]
            both = [c for e in (first, second) for c in set(edges.runs[e]) - set(edges.runs_plain[e])]
            program.add(total(([plain[number]], 1), (not_fused, -1), (both, -1), (others, 1)), lower=-2)
    return row | dict.fromkeys(plain, cost.addition - cost.fused_addition)


def shared_rows(program: IntegerProgram, model: CostModel, kind: str, variables: CellVariables) -> Row:
    """Add the rows of the pieces that edges share (each once for a tensor), and return their costs."""
    cost, edges = model.cells[kind], _edges(model, kind, variables)
    if not (cost.piece >= 0).any():
        return {}
    cell = edges.cell
    runs = variables.runs if model.dead_edges_are_free else variables.choose
    passes_on: dict[int, int] = {}  # h, by edge
    for e in np.flatnonzero(cost.copies.any(axis=1)).tolist():
        target = cell.edges[e][1]
        passes_on[e] = int(program.variables(1, binary=True)[0])
        program.add(total(([passes_on[e]], 1), (variables.choose[e, cost.copies[e]], -1)), upper=0)
        for other in set(cell.edges_into(target)) - {e}:
            program.add(total(([passes_on[e]], 1), (edges.runs[other], 1)), upper=1)
    prices: dict[tuple[int, int], float] = {}  # by node and piece
    for e, o in np.argwhere(cost.piece >= 0).tolist():
        at = cell.edges[e][0], int(cost.piece[e, o])
        prices[at] = min(float(cost.pieces[e, at[1]]), prices.get(at, np.inf))
    for e in sorted(passes_on, reverse=True):  # a piece of a node may be a piece of the node that it copies
        source, target = cell.edges[e]
        for piece in [p for node, p in prices if node == target]:
            prices[source, piece] = min(prices[target, piece], prices.get((source, piece), np.inf))
    needed = {at: int(program.variables(1)[0]) for at in prices}  # q
    for e, o in np.argwhere(cost.piece >= 0).tolist():
        program.add({needed[cell.edges[e][0], int(cost.piece[e, o])]: 1.0, int(runs[e, o]): -1.0}, lower=0)
    for e, column in passes_on.items():
        source, target = cell.edges[e]
        for piece in [p for n, p in needed if n == target]:
            program.add({needed[source, piece]: 1.0, needed[target, piece]: -1.0, column: -1.0}, lower=-1)
    free = _free_relus(program, model, kind, edges, runs, passes_on)
    row: Row = {}
    for (node, piece), column in needed.items():
        paid = int(program.variables(1)[0])
        row[paid] = prices[node, piece]
        elsewhere = [passes_on[e] for e in cell.edges_into(node) if e in passes_on]
        elsewhere += [free[node]] if piece == RELU and node in free else []
        program.add(total(([paid], 1), ([column], -1), (elsewhere, 1)), lower=0)
    return row


def _free_relus(
    program: IntegerProgram, model: CostModel, kind: str, edges: _Edges, runs: np.ndarray, passes_on: Mapping[int, int]
) -> dict[int, int]:
    """Add the rows of r by node: a ReLU is free where nothing else reads the output of a convolution."""
    cost, cell = model.cells[kind], edges.cell
    if not (cost.fuses.any() or cost.written.any()):
        return {}
    nodes = cell.num_inputs + cell.num_nodes
    kept, free = program.variables(nodes).tolist(), program.variables(nodes).tolist()
    ops = [o for o, op in enumerate(model.space.operations) if op != NONE]
    for node in range(nodes):
        program.add({kept[node]: 1.0, free[node]: 1.0}, upper=1)
        if node in cell.outputs:
            program.add({kept[node]: 1.0}, lower=1)
        for e in cell.edges_from(node):
            keeps = [o for o in ops if cost.piece[e, o] != RELU and not cost.copies[e, o]]
            program.add(total(([kept[node]], 1), (runs[e, keeps], -1)), lower=0)
            if e in passes_on:
                target = cell.edges[e][1]
                copies = runs[e, cost.copies[e]]
                program.add(total(([kept[node], passes_on[e]], 1), (copies, -1)), lower=0)
                program.add({kept[node]: 1.0, kept[target]: -1.0, passes_on[e]: -1.0}, lower=-1)
    for number in range(cell.num_inputs):  # written by the part before, or by a cell of this kind
        always, alike = cost.written[number].tolist()
        writers = [c for e in cell.edges_into(cell.outputs[-1]) for c in edges.fusing[e]]
        program.add({free[number]: 1.0}, upper=always + alike)
        program.add(total(([free[number]], 1), (writers, -alike)), upper=always)
    for node in cell.inner_nodes:  # the last input is a convolution, or the first of two
        into = cell.edges_into(node)
        program.add(total(([free[node]], 1), ([c for e in into for c in edges.fusing[e]], -1)), upper=0)
        for last in into:
            later = [c for e in into if e > last for c in edges.used[e]]
            earlier = [e for e in into if e < last]
            ends_plain = ([free[node]], 1.0), (edges.runs_plain[last], 1.0), (later, -1.0)
            program.add(total(*ends_plain, ([c for e in earlier for c in edges.fusing[e]], -1)), upper=1)
            for first, second in combinations(earlier, 2):
                program.add(total(*ends_plain, (edges.runs[first] + edges.runs[second], 1)), upper=3)
    return dict(enumerate(free))
