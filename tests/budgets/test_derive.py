"""Derivation's promise, against brute force: small random spaces, tables, logits and budgets."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner

from hwnas.budgets import derive as derivation
from hwnas.budgets import pareto as pareto_sets
from hwnas.budgets.budget import Budget, binding_limit, preview
from hwnas.budgets.derive import LEAST_LOG_PROBABILITY, cheapest, derive, derive_best, ranked
from hwnas.budgets.infeasible import conflicting_limits, least_under_others
from hwnas.budgets.pareto import APART, pareto
from hwnas.cli import app
from hwnas.cost.fusion import pieces
from hwnas.cost.model import Array, CostModel, build_cost_models
from hwnas.errors import HwnasError
from hwnas.files import shipped, write_json
from hwnas.recipe import read_recipe
from hwnas.spaces import (
    NONE,
    Architecture,
    Cell,
    CellInstance,
    FixedModule,
    Network,
    SearchSpace,
    Setting,
    SizedSpace,
    Workload,
    get_space,
)
from hwnas.spaces.darts import is_top2
from hwnas.spaces.encoding import ENUMERABLE, encode, every_choice
from hwnas.tables.io import write_table
from hwnas.tables.schema import CellCosts, Correction, EdgeCosts, Entry, LatencyTable
from hwnas.training.checkpoint import Checkpoint
from support.command import Run, assert_one_clear_line
from support.tables import make_table

METRICS = ("latency_ms", "macs", "params")
NB201 = get_space("nasbench201")
SETTINGS = {"nasbench201": Setting(channels=4, depth=1, height=16, width=16)}
TINY_CELL = Cell(num_inputs=2, num_nodes=2, edges=((0, 2), (1, 2), (0, 3), (1, 3), (2, 3)), outputs=(2, 3))
TINIER_CELL = Cell(num_inputs=2, num_nodes=2, edges=((0, 2), (1, 2), (1, 3), (2, 3)), outputs=(2, 3))
CELLS = {  # small spaces like DARTS: 3 operations, two kinds of cell
    "skip and conv": (TINIER_CELL, (NONE, "skip_connect", "nor_conv_3x3")),
    "pool and conv": (TINIER_CELL, (NONE, "max_pool_3x3", "sep_conv_3x3")),
    "convs": (TINIER_CELL, (NONE, "nor_conv_1x1", "dil_conv_3x3")),
    "all edges": (TINY_CELL, (NONE, "skip_connect", "sep_conv_3x3")),  # 59,049 architectures
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
    """Check cell by cell for a path from an input to an output, and for the number of inputs of every node."""
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
            fine.append(any(live) and (inputs_per_node is None or all(n == inputs_per_node for n in inputs)))
        allowed &= np.array(fine)[number.ravel()]
    return allowed


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
        (choice,) = encode(self.space, [architecture])
        k = len(self.space.operations)
        return int(choice @ k ** np.arange(len(choice) - 1, -1, -1))


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
    np.testing.assert_allclose([p.log_probability for p in found.points], case.scores[rows])
    same = lambda costs, scores: sorted(set(zip(np.round(costs / costs.max(), 9), np.round(scores, 7), strict=True)))  # noqa: E731
    assert same(case.costs[metric][rows], case.scores[rows]) == same(case.costs[metric][wanted], case.scores[wanted])


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
    costs, log_p = (np.array([getattr(p, name) for p in found.points]) for name in ("cost", "log_probability"))
    assert (np.diff(costs) > 0).all()
    assert (np.diff(log_p) > 0).all()
    assert points is None or len(costs) <= points
    assert found.whole or points is not None
    cost, kept = case.costs[metric], case.kept
    apart = APART * np.abs(cost[kept]).max()
    for point in found.points:
        row = case.row(point.architecture)
        assert kept[row]
        assert point.log_probability == pytest.approx(case.scores[kept & (cost <= cost[row])].max(), abs=1e-6)
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


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real search of nasbench201 for two budgets, an epoch long."""
    folder = tmp_path_factory.mktemp("searched")
    write_table(folder / "table.json", make_table(SizedSpace(NB201, setting_of("nasbench201"))))
    small = ("--data", "digits?size=16", "--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 1)
    asked = ("--child-epochs", 0, "--batch-size", 256, "--budget", "mild", "--budget", "aggressive,80%-params")
    arguments = ("search", "--table", folder / "table.json", *small, *asked, "--out", folder / "run")
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return folder / "run"


def darts_run(folder: Path) -> Path:
    """Write the files of a search of darts that derivation reads, with DARTS's rule of two inputs a node."""
    space, setting = get_space("darts"), Setting(channels=4, depth=3, height=16, width=16, pool_norm=True)
    place = folder / "90pct"
    place.mkdir(parents=True)
    write_table(folder / "table.json", make_table(SizedSpace(space, setting)))
    logits = {kind: torch.randn(14, 8, generator=torch.Generator().manual_seed(1)) for kind in space.cells}
    log_p = {kind: torch.log_softmax(values.double(), dim=-1) for kind, values in logits.items()}
    Checkpoint(folder / "checkpoint.pt", "d").save({"log_probability": [log_p]})
    recipe = read_recipe("snas-short", {"inputs_per_node": 2}).model_dump(mode="json")
    manifest = {"digest": "d", "budgets": ["90%"], "tables": {"table": ""}, "recipe": recipe, "space": "darts"}
    manifest |= {
        "setting": asdict(setting),
        "data": "digits",
        "data_fingerprint": "",
        "versions": {},
        "started": "",
        "verify": False,
    }
    write_json(folder / "manifest.json", manifest)
    content = {"space": "darts", "setting": asdict(setting), "architecture": "DARTS_V2"}
    content |= {"device": "table", "table": "table.json", "data": "digits"}
    write_json(place / "architecture.json", {**content, "budget": {"text": "90%", "limits": {"latency_ms": 1e3}}})
    return folder


@pytest.mark.slow
def test_the_best_of_a_search_is_what_it_derived_and_the_others_follow(run: Run, searched: Path) -> None:
    printed = json.loads(run("derive", searched, "--top", 4, "--json").stdout)["targets"]
    assert [t["budget"] for t in printed] == ["mild", "aggressive,80%-params"]
    for target, folder in zip(printed, ("mild", "aggressive_80pct-params"), strict=True):
        content = json.loads((searched / folder / "architecture.json").read_text())
        found = target["architectures"]
        assert found[0]["architecture"] == content["architecture"]
        assert found[0]["latency_ms"] == pytest.approx(content["costs"]["latency_ms"])
        assert target["limits"] == content["budget"]["limits"]
        assert len({a["architecture"] for a in found}) == 4
        scores = [a["log_probability"] for a in found]
        assert scores == sorted(scores, reverse=True)
        for metric, bound in target["limits"].items():
            assert all(a[metric] <= bound for a in found)
    shown = run("derive", searched, "--top", 4)
    assert shown.exit_code == 0, shown.output
    assert all(a["architecture"] in shown.stdout for t in printed for a in t["architectures"])
    one = json.loads(run("derive", searched / "mild", "--json").stdout)["targets"]
    assert [len(t["architectures"]) for t in one] == [1]


@pytest.mark.slow
def test_other_budgets_than_those_of_the_search_are_derived_for(run: Run, searched: Path) -> None:
    arguments = ("derive", searched / "mild", "--budget", "30%", "--budget", "70%-macs,50%", "--json")
    printed = json.loads(run(*arguments).stdout)["targets"]
    assert [(t["probabilities"], t["budget"]) for t in printed] == [("mild", "30%"), ("mild", "70%-macs,50%")]
    for target in printed:
        (found,) = target["architectures"]
        assert all(found[metric] <= bound for metric, bound in target["limits"].items())


@pytest.mark.slow
def test_the_pareto_set_of_a_search_is_printed_and_drawn(run: Run, searched: Path, tmp_path: Path) -> None:
    for metric, picture in (("latency", "p.png"), ("params", "p.svg")):
        arguments = ("derive", searched, "--pareto", metric, "--plot", tmp_path / picture, "--json")
        printed = json.loads(run(*arguments).stdout)
        assert (tmp_path / picture).stat().st_size > 5_000
        name = {"latency": "latency_ms"}.get(metric, metric)
        assert printed["metric"] == name
        for target in printed["targets"]:
            assert target["whole"]
            costs, log_p = ([p[key] for p in target["points"]] for key in (name, "log_probability"))
            assert costs == sorted(costs)
            assert log_p == sorted(log_p)
    svg = (tmp_path / "p.svg").read_text()
    for words in ("parameters, thousands", "log probability", "search for mild", "derived by the search"):
        assert f"<!-- {words}" in svg
    limited = json.loads(run("derive", searched / "mild", "--pareto", "macs", "--budget", "40%", "--json").stdout)
    bound = limited["limits"]["latency_ms"]
    assert all(p["latency_ms"] <= bound for p in limited["targets"][0]["points"])
    assert "log p against macs within latency_ms <=" in run(
        "derive", searched / "mild", "--pareto", "macs", "--budget", "40%"
    ).stdout.replace("\n", " ")


@pytest.mark.slow
def test_darts_is_derived_by_its_rules_and_says_when_points_are_left_out(run: Run, tmp_path: Path) -> None:
    folder = darts_run(tmp_path / "run")
    first = run("derive", folder, "--top", 3, "--budget", "40%", "--json")
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)["targets"][0]
    space = get_space("darts")
    for described in found["architectures"]:
        architecture = space.parse(described["architecture"])
        assert is_top2(architecture.cells)
        assert described["latency_ms"] <= found["limits"]["latency_ms"]
    arguments = ("derive", folder, "--pareto", "macs", "--points", 3)
    printed = json.loads(run(*arguments, "--json").stdout)["targets"][0]
    assert printed["whole"] is False
    assert len(printed["points"]) == 3
    shown = run(*arguments)
    assert "there may be more between them" in shown.stdout
    # Within the rule of two inputs a node less can be had than the space allows.
    least = json.loads(run("derive", folder, "--pareto", "latency", "--points", 2, "--json").stdout)["targets"][0]
    reach = least["points"][0]["latency_ms"]
    tight = run("derive", folder, "--budget", f"{reach * 0.999}ms")
    assert_one_clear_line(tight, "cannot be met", f"{reach:.4g} ms")


@pytest.mark.slow
def test_derive_refuses_what_means_nothing(run: Run, searched: Path, tmp_path: Path) -> None:
    assert_one_clear_line(run("derive", tmp_path), "no finished search", "hwnas search")
    assert_one_clear_line(run("derive", searched, "--top", 0), "--top", "at least 1")
    assert_one_clear_line(run("derive", searched, "--pareto", "beauty"), "beauty", "latency, macs, params")
    assert_one_clear_line(run("derive", searched, "--pareto", "macs", "--points", 1), "--points")
    assert_one_clear_line(run("derive", searched, "--pareto", "macs", "--top", 2), "--top")
    assert_one_clear_line(run("derive", searched, "--points", 3), "--points belongs to --pareto")
    assert_one_clear_line(run("derive", searched, "--pareto", "macs", "--plot", "p.gif"), "p.gif", ".png")
    assert_one_clear_line(run("derive", searched, "--budget", "1us"), "cannot be met", "between .* ms and .* ms")
    copy = tmp_path / "copy"
    shutil.copytree(searched, copy)
    (copy / "checkpoint.pt").write_bytes(b"nothing")
    assert_one_clear_line(run("derive", copy), "checkpoint.pt")
    (copy / "checkpoint.pt").unlink()
    assert_one_clear_line(run("derive", copy), "checkpoint.pt", "run the search again")
    assert not (copy / "checkpoint.pt").exists()


SMALL = ("--channels", 4, "--cells", 1, "--input", "3x16x16")


def test_preview_names_limits_that_contradict_each_other(run: Run, table_file: Path) -> None:
    models = build_cost_models(
        make_table(SizedSpace(NB201, setting_of("nasbench201"))), SizedSpace(NB201, setting_of("nasbench201"))
    )
    costs = {m: model.predict_many(EVERY["nasbench201"])[obeys("nasbench201", None)] for m, model in models.items()}
    quick = np.quantile(costs["latency_ms"], 0.3)
    # The fewest parameters among architectures that are slow enough to be told from the quick ones.
    least = {m: c.min() for m, c in costs.items()}
    fewest = costs["params"][costs["latency_ms"] <= least["latency_ms"] * 1.0001].min()
    preview_of = ("space", "preview", "--table", table_file, *SMALL)
    budget = f"{quick}ms,{fewest:.0f}params"
    fine = run(*preview_of, "--budget", budget)
    assert fine.exit_code == 0, fine.output
    assert "its limits can be met together: under the others latency_ms to" in fine.stdout
    assert "binds: without that limit" in fine.stdout
    facts = json.loads(run(*preview_of, "--budget", budget, "--json").stdout)["budgets"][0]
    kept = {"latency_ms": costs["params"] <= round(fewest), "params": costs["latency_ms"] <= quick}
    for metric, value in facts["least_under_the_others"].items():
        assert value == pytest.approx(costs[metric][kept[metric]].min())
    assert facts["share_without_it"] > facts["share_of_architectures"]


def contradictory_table() -> LatencyTable:
    """Edge costs by which the operation without parameters is slow, and the one with parameters quick."""
    shape = (6, 5)
    live, params = np.zeros(shape), np.zeros(shape, dtype=int)
    live[:, 1:], params[:, 1:] = 5.0, 10
    live[:, 3], params[:, 3] = 0.5, 1000
    cell = CellCosts(
        live_ms=live.tolist(), always_ms=np.zeros(shape).tolist(), error_ms=np.zeros(shape).tolist(),
        macs=(params * 100).tolist(), params=params.tolist(),
    )  # fmt: skip
    costs = random_edge_costs(NB201, np.random.default_rng(0)).model_copy(update={"cells": {"cell": cell}})
    key = SizedSpace(NB201, setting_of("nasbench201")).key
    return counted("nasbench201").model_copy(update={"version": 2, "edge_costs": {key: costs}})


@pytest.mark.slow
def test_contradictory_budgets_are_one_line_with_what_can_be_had(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "t.json", contradictory_table())
    preview_of = ("space", "preview", "--table", tmp_path / "t.json", *SMALL)
    result = run(*preview_of, "--budget", "2ms,500params,1M-macs")
    # One edge from the input to the output is all it takes: 1.5 ms with 1,010 parameters, or 6 ms with 20.
    assert_one_clear_line(result, "latency_ms <= 2 ms and params <= 500 params contradict each other")
    assert_one_clear_line(result, "latency_ms goes down to 6 ms, params goes down to 1.01 k params")
    both = run(*preview_of, "--budget", "2ms", "--budget", "500params")
    assert both.exit_code == 0, both.output
    assert "all budgets together: no architecture keeps all of them: latency_ms <= 2 ms and params" in both.stdout
    printed = json.loads(run(*preview_of, "--budget", "2ms", "--budget", "500params", "--json").stdout)
    assert printed["contradiction_of_all_budgets"] == pytest.approx({"latency_ms": 6.0, "params": 1010})
    fine = run(*preview_of, "--budget", "2ms", "--budget", "1500params")
    assert "all budgets together: one architecture can keep them all" in fine.stdout


@pytest.mark.slow
@pytest.mark.parametrize("budgets", [[], ["mild", "60%,50%-macs", "70%-params"]])
def test_preview_draws_the_space_and_what_budgets_allow(run: Run, tmp_path: Path, budgets: list[str]) -> None:
    table = shipped("latency_tables") / "published-pixel3.json"
    asked = [word for budget in budgets for word in ("--budget", budget)]
    result = run("space", "preview", "--table", table, *asked, "--plot", tmp_path / "p.svg")
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith(f"drawn into {tmp_path / 'p.svg'}")
    svg = (tmp_path / "p.svg").read_text()
    for words in ("predicted latency, ms", "multiply-accumulates, millions", "architectures a hexagon, of 15,625"):
        assert f"<!-- {words}" in svg
    for budget in budgets:
        assert f"<!-- {budget}: " in svg
    refused = run("space", "preview", "--table", table, "--plot", tmp_path / "p.pdf")
    assert_one_clear_line(refused, "p.pdf", ".svg")
