"""Derivation: find the most probable architecture that meets every limit, by a small integer program.

    maximise    sum over e, o of z[e, o] * log p(o | e)
    subject to  C_m(z) <= B_m for every limited metric m, and the space's rules

solved exactly with HiGHS (through scipy). The cost is that of the deployed network: an edge is paid for only if it lies
on a path from an input to an output, a node with n live inputs pays n - 1 additions, and what the runtime shares is
paid once.

The cost in the program may be slightly below the exact cost (hwnas.cost.model; rewrites next to dead edges, HiGHS's
tolerance), never above. Every result is checked against the exact cost and cut off if it is over a bound. Spaces that
can be enumerated are enumerated instead.

Peak memory (hwnas.cost.peak) is no sum. Where a result is over its limit, its cause is cut off, too: choices on some
edges of a cell that exceed the limit whatever the other edges are, with every operation that needs as much there.

Binary z choose operations; the continuous variables below take their least feasible values, which for binary z are the
exact ones:

    f[n] >= u[e] + f[source] - 1         node n is reached from an input (u[e] = 1 - z[e, none])
    b[n] >= u[e] + b[target] - 1         node n is needed by an output
    y[e, o] >= z[e, o] + f + b - 2       the operation runs
    t[n] >= sum of y into n - 1, t >= 0  additions
    g[e] <= u[e], a unit flow            every cell has a path from an input to an output
    sum of u into n >= least inputs      where the space asks for them
    z[e, skip] <= z[next e, skip]        of a stage of layers the last ones are skipped
    sum of x[e, ·] = z                   the choices of a layer and of the widths around it, together

and those of hwnas.budgets.integer_program for a runtime's rewrites.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from heapq import heappop, heappush
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.integer_program import (
    CellVariables,
    IntegerProgram,
    addition_rows,
    joint_choices,
    live_rows,
    offer_rows,
    shared_rows,
)
from hwnas.calibration.design_matrix import connected
from hwnas.cost.build import CostFunction
from hwnas.cost.model import Array, CostModel
from hwnas.cost.peak import Cover, PeakModel
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, Architecture, Cell, SearchSpace
from hwnas.spaces.encoding import ENUMERABLE, decode, encode, every_choice, possible, without_dead_edges

Limits = Mapping[str, tuple[CostFunction, float]]
LEAST_LOG_PROBABILITY = -60.0
MOST_REJECTED = 1_000
OBJECTIVE_SIZE = 1e3  # of the largest coefficient: HiGHS stops within 1e-6 of the optimum


def derive(
    space: SearchSpace, log_probability: Mapping[str, Array], limits: Limits, inputs_per_node: int | None = None
) -> Architecture:
    """Return the most probable architecture within all limits.

    ``log_probability[kind]`` is [E, K]; ``limits[metric]`` is a metric's model and its bound. ``inputs_per_node`` = 2
    is DARTS's rule (exactly two edges other than ``none`` into every node); None sets no rule, as in SNAS.

    Raises HwnasError when no architecture meets the limits.
    """
    return derive_best(space, log_probability, limits, inputs_per_node, 1)[0]


def derive_best(
    space: SearchSpace,
    log_probability: Mapping[str, Array],
    limits: Limits,
    inputs_per_node: int | None,
    number: int,
) -> list[Architecture]:
    """Return the ``number`` most probable architectures within all limits, best first, or all where there are fewer.

    The other arguments are those of ``derive``. Raises HwnasError when no architecture meets the limits.
    """
    found = list(islice(ranked(space, log_probability, limits, inputs_per_node), number))
    if not found:
        raise _none_within(space, limits)
    return found


def ranked(
    space: SearchSpace, log_probability: Mapping[str, Array], limits: Limits, inputs_per_node: int | None
) -> Iterator[Architecture]:
    """Yield every architecture within all limits, the most probable first.

    The arguments are those of ``derive``. Raises HwnasError for NaN, for a limit that is not finite, and when too many
    of the most probable are over a limit by less than the program resolves.
    """
    yield from _ranked(space, clipped(log_probability), None, limits, inputs_per_node)


def cheapest(model: CostFunction, limits: Limits | None = None, inputs_per_node: int | None = None) -> Architecture:
    """Return the architecture of least cost that meets ``limits``. Raises HwnasError when there is none."""
    found = next(_ranked(model.space, None, model, limits or {}, inputs_per_node), None)
    if found is None:
        raise _none_within(model.space, limits or {})
    return found


def largest(model: CostModel, limits: Limits, inputs_per_node: int | None = None) -> Architecture:
    """Return the architecture within ``limits`` whose live edges have the greatest sum, such as that of MACs.

    Its dead edges are ``none`` where rules and limits allow that.

    Raises HwnasError when there is none, and ValueError for a model that is not a sum over edges.
    """
    if any(cost.addition or cost.fused_addition or (cost.piece >= 0).any() for cost in model.cells.values()):
        raise ValueError(f"{model.metric} is not a sum over edges")
    negated = {
        kind: replace(
            cost,
            edges=-cost.edges,
            always=-cost.always,
            couplings=tuple(replace(coupling, values=-coupling.values) for coupling in cost.couplings),
        )
        for kind, cost in model.cells.items()
    }
    least = replace(model, cells=negated, base=-model.base, dead_edges_are_free=True)
    return without_dead(cheapest(least, limits, inputs_per_node), model.space, limits, inputs_per_node)


def without_dead(
    architecture: Architecture, space: SearchSpace, limits: Limits, inputs_per_node: int | None
) -> Architecture:
    """Return the architecture with ``none`` on its dead edges, or as it is where rules or limits forbid that."""
    choices = without_dead_edges(space, encode(space, [architecture]))
    allowed = follows_rules(space, choices, inputs_per_node)[0]
    other = decode(space, choices[0])
    return other if allowed and all(model.predict(other) <= bound for model, bound in limits.values()) else architecture


def clipped(log_probability: Mapping[str, Array]) -> dict[str, Array]:
    """Return log p, clipped to at least LEAST_LOG_PROBABILITY. Raises HwnasError for NaN."""
    for kind, values in log_probability.items():
        if np.isnan(values).any():
            raise HwnasError(f"the logits of cell {kind} hold NaN", "lower the learning rates and search again")
    return {kind: np.maximum(values, LEAST_LOG_PROBABILITY) for kind, values in log_probability.items()}


def scores(space: SearchSpace, log_probability: Mapping[str, Array], choices: NDArray[np.intp]) -> Array:
    """Return the clipped log probabilities [N] of the architectures ``choices`` [N, edges of all cells]."""
    table = np.concatenate([clipped(log_probability)[kind] for kind in space.cells])
    return np.asarray(table[np.arange(len(table)), choices].sum(axis=1))


def _ranked(
    space: SearchSpace,
    score: Mapping[str, Array] | None,
    least: CostFunction | None,
    limits: Limits,
    inputs_per_node: int | None,
) -> Iterator[Architecture]:
    """Yield every architecture within the limits, the most probable first, or with ``least`` the cheapest.

    With a peak as ``least`` it yields one architecture.
    """
    if space.num_architectures <= ENUMERABLE:
        return _enumerate(space, score, least, limits, inputs_per_node)
    if isinstance(least, PeakModel):
        return _lowest_peak(least, limits, inputs_per_node)
    return _integer_program(space, score, least, limits, inputs_per_node)


def _enumerate(
    space: SearchSpace,
    score: Mapping[str, Array] | None,
    least: CostFunction | None,
    limits: Limits,
    inputs_per_node: int | None,
) -> Iterator[Architecture]:
    choices = every_choice(space)
    allowed = follows_rules(space, choices, inputs_per_node)
    for model, bound in limits.values():
        allowed &= model.predict_many(choices) <= bound
    choices = choices[allowed]
    value = least.predict_many(choices) if least is not None else -scores(space, score or {}, choices)
    for row in np.argsort(value, kind="stable"):
        yield decode(space, choices[row])


def follows_rules(space: SearchSpace, choices: NDArray[np.intp], inputs_per_node: int | None) -> NDArray[np.bool_]:
    """Return a mask [N] of the architectures of the space with a path through every cell and ``inputs_per_node`` at
    every node.
    """
    allowed = connected(space, choices) & possible(space, choices)
    for kind, chosen in space.by_cell(choices).items():
        cell, used = space.cells[kind], chosen != space.operations.index(NONE)
        if inputs_per_node is not None:
            allowed &= np.all([used[:, cell.edges_into(n)].sum(axis=1) == inputs_per_node for n in cell.inner_nodes], 0)
    return allowed


def _none_within(space: SearchSpace, limits: Limits) -> HwnasError:
    names = ", ".join(f"{metric} <= {bound:.6g}" for metric, (_, bound) in limits.items())
    return HwnasError(f"no architecture of space {space.name} keeps {names or 'the rules'}", "give a larger budget")


def _lowest_peak(model: PeakModel, limits: Limits, inputs_per_node: int | None) -> Iterator[Architecture]:
    """Yield the architecture of the lowest peak."""
    space, own = model.space, limits[model.metric][1] if model.metric in limits else np.inf
    indifferent = {kind: np.zeros((len(cell.edges), len(space.operations))) for kind, cell in space.cells.items()}
    # Minimising another limited cost avoids results just over its limit, which the program cannot resolve.
    other = next((limited for limited, _ in limits.values() if isinstance(limited, CostModel)), None)

    def within(bound: float) -> Architecture | None:
        at_most = {**limits, model.metric: (model, min(bound, own))}
        return next(_integer_program(space, indifferent, other, at_most, inputs_per_node), None)

    lowest = within(model.floor_bytes)
    lower = None if lowest else within(own)
    while lower:
        lowest, lower = lower, within(model.predict(lower) - 1)
    if lowest:
        yield lowest


def _integer_program(
    space: SearchSpace,
    score: Mapping[str, Array] | None,
    least: CostModel | None,
    limits: Limits,
    inputs_per_node: int | None,
) -> Iterator[Architecture]:
    program = IntegerProgram()
    cells = {kind: _add_cell(program, space, cell, inputs_per_node) for kind, cell in space.cells.items()}
    objective: dict[int, float] = {}
    if score is not None:
        for kind, variables in cells.items():
            objective.update(zip(variables.choose.ravel().tolist(), (-score[kind]).ravel().tolist(), strict=True))
    if least is not None:
        objective = _cost_row(program, least, cells)
        for kind, variables in cells.items():
            live_rows(program, least, kind, variables)
    peaks = [(model, bound) for model, bound in limits.values() if isinstance(model, PeakModel)]
    _add_covers(program, cells, [cover for model, bound in peaks for cover in model.known_covers(bound)])
    for metric, (model, bound) in limits.items():
        if isinstance(model, PeakModel):
            continue  # a peak is no sum over edges
        row = _cost_row(program, model, cells)
        size = max(abs(bound), 1e-12)
        # HiGHS works to a tolerance: one part in 10^9 above the bound is allowed here, and checked exactly below.
        program.add({c: v / size for c, v in row.items()}, upper=(bound - model.base) / size + 1e-9)
        if not np.isfinite(bound):
            raise HwnasError(f"the limit on {metric} is not a finite number")

    tolerance = 1e-8 * max((abs(value) for value in objective.values()), default=1.0)
    waiting: list[tuple[float, int, Architecture]] = []  # results found, by their exact objective
    rejected = 0
    while (optimum := _optimum(program, objective, cells)) is not None:
        value, choices = optimum
        architecture, rejected = decode(space, choices), rejected + 1
        if all(model.predict(architecture) <= bound for model, bound in limits.values()):
            one = choices[None]
            worth = -scores(space, score or {}, one) if least is None else least.predict_many(one) - least.base
            heappush(waiting, (float(worth[0]), len(program.rows), architecture))
        # The program underestimates costs: no later result is better than these.
        while waiting and waiting[0][0] <= value + tolerance:
            yield heappop(waiting)[2]
            rejected = 0
        if rejected > MOST_REJECTED:
            raise HwnasError(
                "too many of the most probable architectures are over the budget by less than the program resolves",
                "give a slightly smaller or larger one",
            )
        _add_covers(program, cells, [cover for model, bound in peaks for cover in model.find_covers(choices, bound)])
        chosen = _chosen_columns(space, cells, choices)
        program.add(dict.fromkeys(chosen, 1.0), upper=len(chosen) - 1)
    yield from (architecture for _, _, architecture in sorted(waiting))


def _add_covers(program: IntegerProgram, cells: Mapping[str, CellVariables], covers: Iterable[Cover]) -> None:
    """Forbid the choices of each cover together."""
    for cover in covers:
        choose = cells[cover.kind].choose
        row = {int(choose[e, o]): 1.0 for e, operations in cover.choices for o in operations}
        program.add(row, upper=len(cover.choices) - 1)


def _add_cell(program: IntegerProgram, space: SearchSpace, cell: Cell, inputs_per_node: int | None) -> CellVariables:
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
        if least := max(inputs_per_node or 0, cell.least_inputs):
            inputs = dict.fromkeys(choose[np.ix_(into, used)].ravel().tolist(), 1.0)
            program.add(inputs, least, inputs_per_node or np.inf)
    leaves = [e for e, (source, _) in enumerate(cell.edges) if source < cell.num_inputs]
    program.add({int(flow[e]): 1.0 for e in leaves}, 1, 1)
    offer_rows(program, space, cell, choose)
    return CellVariables(choose, runs, additions, joint_choices(program, cell, space.operations, choose))


def _cost_row(program: IntegerProgram, model: CostModel, cells: Mapping[str, CellVariables]) -> dict[int, float]:
    """Return the coefficients of a metric, after adding the variables that only this metric needs."""
    row: dict[int, float] = {}
    for kind, variables in cells.items():
        cost = model.cells[kind]
        columns = variables.runs if model.dead_edges_are_free else variables.choose
        row.update(zip(columns.ravel().tolist(), cost.edges.ravel().tolist(), strict=True))
        for column, always in zip(variables.choose.ravel().tolist(), cost.always.ravel().tolist(), strict=True):
            row[column] = row.get(column, 0.0) + always
        for e, o in np.argwhere(cost.edges < 0).tolist():  # a negative cost counts only where the operation is chosen
            program.add({int(columns[e, o]): 1.0, int(variables.choose[e, o]): -1.0}, upper=0)
        for coupling in cost.couplings:
            joint = variables.joint[coupling.edges[-1]]
            row.update({column: float(coupling.values[chosen]) for chosen, column in joint.items()})
        row |= addition_rows(program, model, kind, variables) | shared_rows(program, model, kind, variables)
    return {column: value for column, value in row.items() if value}


def _optimum(
    program: IntegerProgram, objective: Mapping[int, float], cells: Mapping[str, CellVariables]
) -> tuple[float, np.ndarray] | None:
    """Return the least value of the objective and the operation of every edge there, or None where infeasible."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # half a second, which most spaces do not need
    from scipy.sparse import csr_array

    costs = np.zeros(program.columns)
    costs[list(objective)] = list(objective.values())
    size = (np.abs(costs).max() or 1.0) / OBJECTIVE_SIZE
    integrality = np.zeros(program.columns)
    integrality[program.binary] = 1
    at = [(r, c, v) for r, row in enumerate(program.rows) for c, v in row.items()]
    rows, columns, values = (np.array(x) for x in zip(*at, strict=True))
    matrix = csr_array((values, (rows, columns)), shape=(len(program.rows), program.columns))
    upper = np.ones(program.columns)
    upper[program.unbounded] = np.inf
    with _silent():
        result = milp(
            costs / size,
            constraints=LinearConstraint(matrix, program.lower, program.upper),
            integrality=integrality,
            bounds=Bounds(0, upper),
            options={"mip_rel_gap": 0.0},
        )
    if result.x is None:
        return None
    choices = np.concatenate([result.x[variables.choose].argmax(axis=1) for variables in cells.values()])
    return float(result.fun) * size, choices


@contextmanager
def _silent() -> Iterator[None]:
    """Silence standard output: HiGHS sometimes prints a line there, which would corrupt ``--json`` output."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _chosen_columns(space: SearchSpace, cells: Mapping[str, CellVariables], choices: NDArray[np.intp]) -> list[int]:
    columns: list[int] = []
    for kind, chosen in space.by_cell(choices).items():
        columns += cells[kind].choose[np.arange(len(chosen)), chosen].tolist()
    return columns
