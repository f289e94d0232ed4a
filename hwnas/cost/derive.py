"""Derivation: the most probable architecture that keeps every limit, as a small integer program.

    maximise    sum over e, o of z[e, o] * log p(o | e)
    subject to  C_m(z) <= B_m for every limited metric m, and the space's rules

solved exactly with HiGHS (through scipy). The cost is that of the deployed network: an edge is paid for only if it lies
on a path from an input to an output, a node with n live inputs pays n - 1 additions, and what the runtime shares is
paid once.

A runtime's rewrites have exceptions that the program leaves out (hwnas.cost.model knows them all): a node that merely
passes its input on shares with that input, a ReLU that alone reads a convolution is free, the order of additions
matters. Every result is checked against the exact cost. Spaces that can be enumerated are enumerated instead.

Peak memory (hwnas.cost.peak) is no sum. Where a result is over its limit, what makes it so is cut off: choices on some
edges of a cell, with every operation that is as bad there, that are too much whatever the other edges are. So the
first result within all limits is the most probable one.

Binary z choose operations; the continuous variables below take their least feasible values, which for binary z are the
exact ones:

    f[n] >= u[e] + f[source] - 1         node n is reached from an input (u[e] = 1 - z[e, none])
    b[n] >= u[e] + b[target] - 1         node n is needed by an output
    y[e, o] >= z[e, o] + f + b - 2       the operation runs
    t[n] >= sum of y into n - 1, t >= 0  additions
    a[n] >= sum of y that do not fuse, into n, - 1, a >= 0      those of them that are no convolution's
    s[n, p] >= y[e, o]                   a shared piece that an edge out of n needs (ReLU, pooling), paid once
    g[e] <= u[e], a unit flow            every cell has a path from an input to an output
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from hwnas.cost.metrics import Metric
from hwnas.cost.model import ENUMERABLE, Array, CostModel, decode, every_choice, live_edges
from hwnas.cost.peak import Cover, PeakModel
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, Architecture, Cell, SearchSpace

Limits = Mapping[str, tuple[Metric, float]]
LEAST_LOG_PROBABILITY = -60.0


class NoneWithinError(HwnasError):
    """No architecture keeps the limits."""


@dataclass
class _Program:
    """Rows of a linear program under construction: each is coefficients by column, and its bounds."""

    rows: list[dict[int, float]] = field(default_factory=list)
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    columns: int = 0
    binary: list[int] = field(default_factory=list)
    unbounded: list[int] = field(default_factory=list)  # the others lie between 0 and 1

    def variables(self, count: int, binary: bool = False, unbounded: bool = False) -> np.ndarray:
        block = np.arange(self.columns, self.columns + count)
        self.columns += count
        if unbounded:
            self.unbounded += block.tolist()
        if binary:
            self.binary += block.tolist()
        return block

    def add(self, row: dict[int, float], lower: float = -np.inf, upper: float = np.inf) -> None:
        self.rows.append(row)
        self.lower.append(lower)
        self.upper.append(upper)


@dataclass(frozen=True)
class _CellVariables:
    choose: np.ndarray  # z [E, K]
    runs: np.ndarray  # y [E, K]
    additions: np.ndarray  # t [nodes]


def derive(
    space: SearchSpace, log_probability: Mapping[str, Array], limits: Limits, inputs_per_node: int | None = None
) -> Architecture:
    """The most probable architecture within all limits.

    ``log_probability[kind]`` is [E, K]; ``limits[metric]`` a cost model and its bound. ``inputs_per_node`` = 2 is
    DARTS's rule (exactly two edges other than ``none`` into every node); None keeps every edge's own choice, as SNAS.

    Raises HwnasError when no architecture keeps the limits.
    """
    for kind, values in log_probability.items():
        if np.isnan(values).any():
            raise HwnasError(f"the logits of cell {kind} hold NaN", "lower the learning rates and search again")
    score = {kind: np.maximum(values, LEAST_LOG_PROBABILITY) for kind, values in log_probability.items()}
    return _solve(space, score, None, limits, inputs_per_node)


def cheapest(model: Metric, limits: Limits | None = None) -> Architecture:
    """The architecture of least cost that keeps ``limits``. Raises HwnasError when there is none."""
    return _solve(model.space, None, model, limits or {}, None)


def _solve(
    space: SearchSpace,
    score: Mapping[str, Array] | None,
    least: Metric | None,
    limits: Limits,
    inputs_per_node: int | None,
) -> Architecture:
    if space.num_architectures <= ENUMERABLE:
        return _enumerate(space, score, least, limits, inputs_per_node)
    if isinstance(least, PeakModel):
        return _lowest_peak(least, limits, inputs_per_node)
    return _integer_program(space, score, least, limits, inputs_per_node)


def _lowest_peak(model: PeakModel, limits: Limits, inputs_per_node: int | None) -> Architecture:
    """One whose peak is as low as any could be, else one after the other with a lower peak until there is none."""
    own = limits.get(model.metric, (model, np.inf))[1]

    def within(bound: float) -> Architecture:
        at_most = {**limits, model.metric: (model, min(bound, own))}
        return _integer_program(model.space, None, None, at_most, inputs_per_node)

    try:
        return within(model.floor_bytes)
    except NoneWithinError:
        best = _integer_program(model.space, None, None, limits, inputs_per_node)
    while True:
        try:
            best = within(model.predict(best) - 1)
        except NoneWithinError:
            return best


def _enumerate(
    space: SearchSpace,
    score: Mapping[str, Array] | None,
    least: Metric | None,
    limits: Limits,
    inputs_per_node: int | None,
) -> Architecture:
    choices = every_choice(space)
    value, allowed, start = np.zeros(len(choices)), np.ones(len(choices), dtype=bool), 0
    for kind, cell in space.cells.items():
        chosen = choices[:, start : start + len(cell.edges)]
        start += len(cell.edges)
        used = chosen != space.operations.index(NONE)
        allowed &= live_edges(cell, used).any(axis=1)
        if inputs_per_node is not None:
            allowed &= np.all([used[:, cell.edges_into(n)].sum(axis=1) == inputs_per_node for n in cell.inner_nodes], 0)
        if score is not None:
            value += score[kind][np.arange(len(cell.edges)), chosen].sum(axis=1)
    for model, bound in limits.values():
        allowed &= model.predict_many(choices) <= bound
    if least is not None:
        value = -least.predict_many(choices)
    if not allowed.any():
        raise _none_within(space, limits)
    return decode(space, choices[np.where(allowed, value, -np.inf).argmax()])


def _none_within(space: SearchSpace, limits: Limits) -> HwnasError:
    names = ", ".join(f"{metric} <= {bound:.6g}" for metric, (_, bound) in limits.items())
    text = f"no architecture of space {space.name} keeps {names or 'the rules'}"
    return NoneWithinError(text, "give a larger budget")


def _integer_program(
    space: SearchSpace,
    score: Mapping[str, Array] | None,
    least: CostModel | None,
    limits: Limits,
    inputs_per_node: int | None,
) -> Architecture:
    program = _Program()
    cells = {kind: _add_cell(program, space, cell, inputs_per_node) for kind, cell in space.cells.items()}
    objective: dict[int, float] = {}
    if score is not None:
        for kind, variables in cells.items():
            objective.update(zip(variables.choose.ravel().tolist(), (-score[kind]).ravel().tolist(), strict=True))
    if least is not None:
        objective = _cost_row(program, least, cells)
    peaks = [(model, bound) for model, bound in limits.values() if isinstance(model, PeakModel)]
    _add_covers(program, cells, [cover for model, bound in peaks for cover in model.known_covers(bound)])
    for metric, (model, bound) in limits.items():
        if isinstance(model, PeakModel):
            continue  # it is no sum over edges: covers keep it
        row = _cost_row(program, model, cells)
        size = max(abs(bound), 1e-12)
        # One part in 10^9 above the bound is let in here and judged exactly below: HiGHS works to a tolerance.
        program.add({c: v / size for c, v in row.items()}, upper=(bound - model.base) / size + 1e-9)
        if not np.isfinite(bound):
            raise HwnasError(f"the limit on {metric} is not a finite number")

    tried = 0
    while True:
        choices = _optimum(program, objective, cells)
        if choices is None:
            raise _none_within(space, limits)
        architecture = decode(space, choices)
        if all(model.predict(architecture) <= bound for model, bound in limits.values()):
            return architecture
        tried += 1  # over the bound by what the program leaves out: cut this one off and go on
        if tried > 1000:
            raise HwnasError(
                "too many of the most probable architectures are over the budget by less than the program sees",
                "give a slightly smaller or larger one",
            )
        covers = [cover for model, bound in peaks for cover in model.find_covers(choices, bound)]
        if covers:
            _add_covers(program, cells, covers)
            continue
        chosen = _chosen_columns(cells, choices)
        program.add(dict.fromkeys(chosen, 1.0), upper=len(chosen) - 1)


def _add_covers(program: _Program, cells: Mapping[str, _CellVariables], covers: list[Cover]) -> None:
    """Not all choices of a cover at once."""
    for cover in covers:
        choose = cells[cover.kind].choose
        row = {int(choose[e, o]): 1.0 for e, operations in cover.choices for o in operations}
        program.add(row, upper=len(cover.choices) - 1)


def _add_cell(program: _Program, space: SearchSpace, cell: Cell, inputs_per_node: int | None) -> _CellVariables:
    edges, operations = len(cell.edges), len(space.operations)
    choose = program.variables(edges * operations, binary=True).reshape(edges, operations)
    runs = program.variables(edges * operations).reshape(edges, operations)
    nodes = cell.num_inputs + cell.num_nodes
    reached, needed = program.variables(nodes), program.variables(nodes)
    additions, flow = program.variables(cell.num_nodes, unbounded=True), program.variables(edges)
    used = [o for o, op in enumerate(space.operations) if op != NONE]

    for e, (source, target) in enumerate(cell.edges):
        taken = dict.fromkeys(choose[e, used].tolist(), 1.0)
        program.add(dict.fromkeys(choose[e].tolist(), 1.0), 1, 1)
        program.add({reached[target]: 1, reached[source]: -1, **dict.fromkeys(taken, -1.0)}, lower=-1)
        program.add({needed[source]: 1, needed[target]: -1, **dict.fromkeys(taken, -1.0)}, lower=-1)
        program.add({flow[e]: 1, **dict.fromkeys(taken, -1.0)}, upper=0)
        for o in used:
            row = {runs[e, o]: 1, choose[e, o]: -1, reached[source]: -1, needed[target]: -1}
            program.add({int(c): float(v) for c, v in row.items()}, lower=-2)
    for node in range(cell.num_inputs):
        program.add({reached[node]: 1}, lower=1)
    for node in cell.outputs:
        program.add({needed[node]: 1}, lower=1)
    for number, node in enumerate(cell.inner_nodes):
        into, out = cell.edges_into(node), cell.edges_from(node)
        columns = runs[np.ix_(into, used)].ravel().tolist()
        program.add({additions[number]: 1, **dict.fromkeys(columns, -1.0)}, lower=-1)
        passes_on = {int(flow[e]): -1.0 for e in out}
        arrives = {int(flow[e]): 1.0 for e in into}
        program.add({**arrives, **passes_on}, lower=0, upper=np.inf if node in cell.outputs else 0)
        if inputs_per_node is not None:
            program.add(
                dict.fromkeys(choose[np.ix_(into, used)].ravel().tolist(), 1.0), inputs_per_node, inputs_per_node
            )
    leaves = [e for e, (source, _) in enumerate(cell.edges) if source < cell.num_inputs]
    program.add({int(flow[e]): 1.0 for e in leaves}, 1, 1)
    return _CellVariables(choose, runs, additions)


def _cost_row(program: _Program, model: CostModel, cells: Mapping[str, _CellVariables]) -> dict[int, float]:
    """The coefficients of a metric, and the variables that only this metric needs."""
    row: dict[int, float] = {}
    for kind, variables in cells.items():
        cost, cell = model.cells[kind], model.space.cells[kind]
        columns = variables.runs if model.dead_edges_are_free else variables.choose
        row.update(zip(columns.ravel().tolist(), cost.edges.ravel().tolist(), strict=True))
        for column, always in zip(variables.choose.ravel().tolist(), cost.always.ravel().tolist(), strict=True):
            row[column] = row.get(column, 0.0) + always
        if model.dead_edges_are_free:
            row.update(dict.fromkeys(variables.additions.tolist(), cost.fused_addition))
        elif cost.fused_addition:
            row.update(dict.fromkeys(_additions(program, model, cell, columns), cost.fused_addition))
        if cost.addition > cost.fused_addition:
            plain = program.variables(cell.num_nodes, unbounded=True)
            for number, node in enumerate(cell.inner_nodes):
                into = [int(columns[e, o]) for e in cell.edges_into(node) for o in _adding(model, kind, e)]
                program.add({int(plain[number]): 1.0, **dict.fromkeys(into, -1.0)}, lower=-1)
            row.update(dict.fromkeys(plain.tolist(), cost.addition - cost.fused_addition))
        shared: dict[tuple[int, int], int] = {}
        for e, o in np.argwhere(cost.piece >= 0).tolist():
            at = (cell.edges[e][0], int(cost.piece[e, o]))
            if at not in shared:
                shared[at] = int(program.variables(1)[0])
                row[shared[at]] = cost.pieces[e, at[1]]
            program.add({shared[at]: 1.0, int(columns[e, o]): -1.0}, lower=0)
    return {column: value for column, value in row.items() if value}


def _additions(program: _Program, model: CostModel, cell: Cell, columns: np.ndarray) -> list[int]:
    """How often each node adds, counting every edge that ``columns`` [E, K] choose: t[n] >= sum into n - 1, t >= 0."""
    used = [o for o, op in enumerate(model.space.operations) if op != NONE]
    block = program.variables(cell.num_nodes, unbounded=True)
    for number, node in enumerate(cell.inner_nodes):
        into = columns[np.ix_(cell.edges_into(node), used)].ravel().tolist()
        program.add({int(block[number]): 1.0, **dict.fromkeys(into, -1.0)}, lower=-1)
    return block.tolist()


def _adding(model: CostModel, kind: str, edge: int) -> list[int]:
    """The operations of an edge whose result takes an addition of its own."""
    fuses = model.cells[kind].fuses[edge]
    return [o for o, op in enumerate(model.space.operations) if op != NONE and not fuses[o]]


def _optimum(
    program: _Program, objective: Mapping[int, float], cells: Mapping[str, _CellVariables]
) -> np.ndarray | None:
    costs = np.zeros(program.columns)
    costs[list(objective)] = list(objective.values())
    size = np.abs(costs).max() or 1.0
    integrality = np.zeros(program.columns)
    integrality[program.binary] = 1
    at = [(r, c, v) for r, row in enumerate(program.rows) for c, v in row.items()]
    rows, columns, values = (np.array(x) for x in zip(*at, strict=True))
    matrix = csr_array((values, (rows, columns)), shape=(len(program.rows), program.columns))
    upper = np.ones(program.columns)
    upper[program.unbounded] = np.inf
    result = milp(
        costs / size,
        constraints=LinearConstraint(matrix, program.lower, program.upper),
        integrality=integrality,
        bounds=Bounds(0, upper),
        options={"mip_rel_gap": 0.0},
    )
    if result.x is None:
        return None
    return np.concatenate([result.x[variables.choose].argmax(axis=1) for variables in cells.values()])


def _chosen_columns(cells: Mapping[str, _CellVariables], choices: np.ndarray) -> list[int]:
    columns: list[int] = []
    start = 0
    for variables in cells.values():
        edges = len(variables.choose)
        columns += variables.choose[np.arange(edges), choices[start : start + edges]].tolist()
        start += edges
    return columns
