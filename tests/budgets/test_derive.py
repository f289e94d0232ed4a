"""Derivation's promise, against brute force: small random spaces, tables, logits and budgets."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hwnas.budgets import derive as derivation
from hwnas.budgets import pareto as pareto_sets
from hwnas.budgets.budget import Budget, binding_limit, preview
from hwnas.budgets.derive import cheapest, derive, derive_best, largest, ranked
from hwnas.budgets.infeasible import conflicting_limits, least_under_others
from hwnas.budgets.pareto import APART, pareto
from hwnas.cost.model import Array, CostModel, build_cost_models
from hwnas.errors import HwnasError
from hwnas.spaces import (
    Architecture,
    SearchSpace,
    SizedSpace,
)
from hwnas.spaces.encoding import ENUMERABLE, decode, encode
from support.small_spaces import (
    EVERY,
    KINDS,
    METRICS,
    SETTINGS,
    SPACES,
    obeys,
    plain_scores,
    random_logits,
    random_table,
    setting_of,
)
from support.spaces import NB201
from support.tables import make_table


@dataclass(frozen=True)
class Case:
    """A question, and every architecture with its score and costs to answer it from."""

    space: SearchSpace
    models: dict[str, CostModel]
    log_p: dict[str, Array]
    bounds: dict[str, float]
    inputs_per_node: int | None
    scores: Array
    costs: dict[str, Array]
    allowed: NDArray[np.bool_]

    @property
    def limits(self) -> dict[str, tuple[CostModel, float]]:
        return {metric: (self.models[metric], bound) for metric, bound in self.bounds.items()}

    @property
    def kept(self) -> NDArray[np.bool_]:
        return self.allowed & np.logical_and.reduce([self.costs[m] <= b for m, b in self.bounds.items()])

    def row(self, architecture: Architecture) -> int:
        """Its place among all architectures."""
        (row,) = np.flatnonzero((EVERY[self.space.name] == encode(self.space, [architecture])).all(axis=1))
        return int(row)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    name, kind = draw(st.sampled_from(sorted(SPACES))), draw(st.sampled_from(KINDS))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    space, choices = SPACES[name], EVERY[name]
    models = build_cost_models(random_table(name, kind, generator), SizedSpace(space, setting_of(name)))
    log_p = random_logits(space, generator, draw(st.sampled_from([0.05, 0.5, 5.0])))
    rule = draw(st.sampled_from([None, None, 1, 2]))
    costs = {metric: model.predict_many(choices) for metric, model in models.items()}
    fine = obeys(name, rule)
    assume(fine.any())  # in nasbench201 a node cannot have two inputs and one
    metrics = draw(st.lists(st.sampled_from(sorted(models)), min_size=1, max_size=3, unique=True))
    bounds = {metric: float(np.quantile(costs[metric][fine], draw(st.floats(0, 0.9)))) for metric in metrics}
    return Case(space, models, log_p, bounds, rule, plain_scores(space, log_p, choices), costs, fine)


@pytest.fixture(params=[ENUMERABLE, 0], ids=["enumeration", "integer program"])
def method(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small spaces solved in either way."""
    for module in (derivation, pareto_sets):
        monkeypatch.setattr(module, "ENUMERABLE", request.param)


EITHER_WAY = settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.mark.slow
@pytest.mark.usefixtures("method")
@EITHER_WAY
@given(case=cases())
def test_the_derived_architecture_is_within_every_budget_and_the_most_probable(case: Case) -> None:
    arguments = (case.space, case.log_p, case.limits, case.inputs_per_node)
    if not case.kept.any():
        with pytest.raises(HwnasError, match="no architecture"):
            derive(*arguments)
        return
    row = case.row(derive(*arguments))
    assert case.kept[row]
    assert case.scores[row] == pytest.approx(case.scores[case.kept].max(), abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("method")
@EITHER_WAY
@given(case=cases(), number=st.integers(1, 12))
def test_the_best_few_are_those_of_brute_force(case: Case, number: int) -> None:
    assume(case.kept.any())
    found = derive_best(case.space, case.log_p, case.limits, case.inputs_per_node, number)
    rows = [case.row(architecture) for architecture in found]
    assert len(set(rows)) == len(rows) == min(number, case.kept.sum())
    assert case.kept[rows].all()
    best = -np.sort(-case.scores[case.kept])[:number]
    np.testing.assert_allclose(case.scores[rows], best, atol=1e-6)


@pytest.mark.usefixtures("method")
def test_where_nothing_is_within_the_limits_none_is_ranked() -> None:
    space, sizes = NB201, SETTINGS["nasbench201"]
    model = build_cost_models(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))["latency_ms"]
    log_p = random_logits(space, np.random.default_rng(0), 1.0)
    least = model.predict(cheapest(model))
    assert model.predict(next(ranked(space, log_p, {"latency_ms": (model, least)}, None))) == least
    assert not list(ranked(space, log_p, {"latency_ms": (model, least * 0.999)}, None))


@pytest.mark.slow
@pytest.mark.usefixtures("method")
@EITHER_WAY
@given(case=cases(), metric=st.sampled_from(METRICS))
def test_the_cheapest_is_the_cheapest(case: Case, metric: str) -> None:
    assume(case.kept.any())
    found = cheapest(case.models[metric], case.limits, case.inputs_per_node)
    assert case.kept[case.row(found)]
    assert case.models[metric].predict(found) == pytest.approx(case.costs[metric][case.kept].min(), rel=1e-7)


@pytest.mark.slow
@pytest.mark.usefixtures("method")
@EITHER_WAY
@given(case=cases())
def test_the_largest_has_the_greatest_sum_over_live_edges(case: Case) -> None:
    """The sums have terms of both signs."""
    assume(case.kept.any())
    params = case.models["params"]
    cells = {
        kind: replace(cost, edges=case.log_p[kind] - case.log_p[kind].mean()) for kind, cost in params.cells.items()
    }
    model = replace(params, cells=cells)
    found = encode(case.space, [largest(model, case.limits, case.inputs_per_node)])
    assert case.kept[case.row(decode(case.space, found[0]))]
    choices = EVERY[next(name for name, space in SPACES.items() if space is case.space)]
    live = replace(model, dead_edges_are_free=True)
    assert live.predict_many(found)[0] == pytest.approx(live.predict_many(choices[case.kept]).max(), abs=1e-6)


def best_by_cost(case: Case, metric: str, rows: Sequence[int] | NDArray[np.intp]) -> dict[float, float]:
    """Return the best score for every cost: sums in another order differ by their rounding, and so do equal costs."""
    best: dict[float, float] = {}
    largest = case.costs[metric][rows].max()
    for row in rows:
        cost = round(float(case.costs[metric][row] / largest), 9)
        best[cost] = max(best.get(cost, -np.inf), round(float(case.scores[row]), 7))
    return best


def brute_force_pareto(case: Case, metric: str) -> NDArray[np.intp]:
    """Rows of kept architectures that none beats: as probable and cheaper, or as cheap and more probable."""
    rows = np.flatnonzero(case.kept)
    rows = rows[np.lexsort((-case.scores[rows], case.costs[metric][rows]))]
    ahead = np.concatenate([[-np.inf], np.maximum.accumulate(case.scores[rows])[:-1]])
    return rows[case.scores[rows] > ahead]


@pytest.mark.slow
@EITHER_WAY
@given(case=cases(), metric=st.sampled_from(METRICS))
def test_the_pareto_set_is_that_of_brute_force(case: Case, metric: str) -> None:
    assume(case.kept.any())
    found = pareto(case.space, case.log_p, case.models[metric], case.limits, case.inputs_per_node)
    wanted = brute_force_pareto(case, metric)
    assert found.whole
    rows = [case.row(point.architecture) for point in found.points]
    assert case.kept[rows].all()
    np.testing.assert_allclose([p.cost for p in found.points], case.costs[metric][rows])
    np.testing.assert_allclose([p.worth for p in found.points], case.scores[rows])
    assert best_by_cost(case, metric, rows) == best_by_cost(case, metric, wanted)


@pytest.mark.slow
@settings(max_examples=8, deadline=None)
@given(case=cases(), metric=st.sampled_from(METRICS), points=st.sampled_from([None, 2, 5, 40]))
def test_the_swept_pareto_set_is_exact_and_leaves_out_nothing_that_it_does_not_admit(
    case: Case, metric: str, points: int | None
) -> None:
    assume(case.kept.any())
    with pytest.MonkeyPatch.context() as patch:
        for module in (derivation, pareto_sets):
            patch.setattr(module, "ENUMERABLE", 0)
        found = pareto(case.space, case.log_p, case.models[metric], case.limits, case.inputs_per_node, points)
    costs, log_p = (np.array([getattr(p, name) for p in found.points]) for name in ("cost", "worth"))
    assert (np.diff(costs) > 0).all()
    assert (np.diff(log_p) > 0).all()
    assert points is None or len(costs) <= points
    assert found.whole or points is not None
    cost, kept = case.costs[metric], case.kept
    apart = APART * np.abs(cost[kept]).max()
    for point in found.points:
        row = case.row(point.architecture)
        assert kept[row]
        assert point.worth == pytest.approx(case.scores[kept & (cost <= cost[row])].max(), abs=1e-6)
    assert log_p[-1] == pytest.approx(case.scores[kept].max(), abs=1e-6)  # both ends are there
    assert costs[0] <= cost[kept].min() + apart
    if found.whole:
        for row in brute_force_pareto(case, metric):
            as_good = (costs <= cost[row] + 2 * apart) & (log_p >= case.scores[row] - 1e-6)
            assert as_good.any()


@pytest.mark.slow
@pytest.mark.usefixtures("method")
@EITHER_WAY
@given(case=cases())
def test_limits_that_contradict_each_other_are_named_with_what_can_be_had(case: Case) -> None:
    """The conflict is minimal, with the exact minimum of each metric under the others."""
    least = conflicting_limits(case.limits, case.inputs_per_node)
    assert (not least) == case.kept.any()
    if not least:
        reach = least_under_others(case.limits, case.inputs_per_node)
        assert all(reach[metric] <= bound for metric, bound in case.bounds.items())
        return
    within = {m: case.costs[m] <= case.bounds[m] for m in least}
    assert not np.logical_and.reduce([case.allowed, *within.values()]).any()
    for metric, value in least.items():
        others = np.logical_and.reduce([case.allowed, *(kept for m, kept in within.items() if m != metric)])
        assert others.any()
        assert value == pytest.approx(case.costs[metric][others].min(), rel=1e-7)
        assert value > case.bounds[metric]


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(case=cases())
def test_the_binding_limit_is_the_one_whose_removal_gains_most(case: Case) -> None:
    previews = preview(case.models)
    found = binding_limit(previews, Budget("", case.bounds))
    within = {m: case.costs[m] <= bound for m, bound in case.bounds.items()}  # the preview counts every architecture
    everyone = np.ones(len(case.scores), dtype=bool)
    share = {
        m: np.logical_and.reduce([everyone, *(kept for other, kept in within.items() if other != m)]).mean()
        for m in within
    }
    now = np.logical_and.reduce(list(within.values())).mean()
    if found is None:
        assert max(share.values()) == now
    else:
        assert share[found[0]] == pytest.approx(found[1]) == pytest.approx(max(share.values()))
        assert found[1] > now


def test_rewrites_are_counted_by_the_integer_program() -> None:
    """With nodes that copy and free ReLUs, a budget equal to the cost of an architecture admits it."""
    generator = np.random.default_rng(5)
    space, name = SPACES["all edges"], "all edges"
    model = build_cost_models(random_table(name, "both", generator), SizedSpace(space, setting_of(name)))["latency_ms"]
    rows = np.flatnonzero(obeys(name, None))
    for row in generator.choice(rows, 25):
        choice = EVERY[name][row]
        wanted = {
            kind: np.where(np.arange(3) == choice[5 * number : 5 * number + 5, None], 0.0, -1.0)
            for number, kind in enumerate(space.cells)
        }
        cost = float(model.predict_many(choice[None])[0])
        found = next(derivation._integer_program(space, wanted, None, {"latency_ms": (model, cost)}, None))
        assert encode(space, [found])[0].tolist() == choice.tolist()


def test_nothing_that_highs_prints_is_taken_for_results(capfd: pytest.CaptureFixture[str]) -> None:
    with derivation._silent():
        os.write(1, b"HighsMipSolverData")
    os.write(1, b"results")
    assert capfd.readouterr().out == "results"
