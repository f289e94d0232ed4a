"""Costs, budgets, derivation: against enumeration, brute force and finite differences."""

from __future__ import annotations

import itertools
import json
import shlex
from collections import deque
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwnas.budgets.budget import NAMED, Budget, all_choices, parse_budget, preview, share_within
from hwnas.budgets.derive import derive
from hwnas.calibration.intervals import error_scales
from hwnas.cost import model as cost_model
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.errors import HwnasError
from hwnas.spaces import SPACES, Architecture, SearchSpace, Setting, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode
from hwnas.tables.io import write_table
from hwnas.tables.network_key import choose_network, networks_of, profile_command
from hwnas.tables.schema import Correction, LatencyTable, MeasuredNetwork
from support.command import Run, assert_one_clear_line
from support.spaces import CELL_SPACES, SEARCH_SPACES, SMALL, architectures, live_by_paths
from support.tables import make_table

NB201 = get_space("nasbench201")


@cache
def models(name: str, seed: int = 0) -> dict[str, CostModel]:
    return build_cost_models(
        make_table(SizedSpace(CELL_SPACES[name], SMALL[name]), seed), SizedSpace(CELL_SPACES[name], SMALL[name])
    )


def deployed_latency(architecture: Architecture) -> float:
    """The latency of a deployed network, summed from the table part by part: what the cost model must give."""
    space, sizes = CELL_SPACES[architecture.space], SMALL[architecture.space]
    table = {entry.workload: entry.latency_ms for entry in make_table(SizedSpace(space, sizes)).entries}
    network = SizedSpace(space, sizes).network
    total = sum(table[workload] for workload in network.fixed_workloads())
    for (kind, cell), chosen in zip(space.cells.items(), architecture.cells, strict=True):
        live = live_by_paths(cell, chosen)
        for place in network.cell_instances(kind):
            for e, op in enumerate(chosen):
                workload = place.candidates[e][op]
                total += table[workload] if live[e] and workload else 0.0
            for node in cell.inner_nodes:
                inputs = sum(live[e] for e in cell.edges_into(node))
                total += max(inputs - 1, 0) * table[place.node_sum]
    return total


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_prediction_is_the_sum_over_the_deployed_network(architecture: Architecture) -> None:
    predicted = models(architecture.space)["latency_ms"].predict(architecture)
    assert predicted == pytest.approx(deployed_latency(architecture), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_linear_cost_is_the_prediction_where_nothing_is_dead(architecture: Architecture) -> None:
    space = CELL_SPACES[architecture.space]
    cells = list(zip(space.cells.items(), architecture.cells, strict=True))
    assume(
        all(all(op == "none" or live for op, live in zip(c, cell.live_edges(c), strict=True)) for (_, cell), c in cells)
    )
    assume(
        all(all(any(c[e] != "none" for e in cell.edges_into(n)) for n in cell.inner_nodes) for (_, cell), c in cells)
    )
    model = models(architecture.space)["latency_ms"]
    base, edges = model.linear()
    linear = base
    for (kind, _), chosen in cells:
        linear += sum(edges[kind][e, space.operations.index(op)] for e, op in enumerate(chosen))
    assert linear == pytest.approx(model.predict(architecture), rel=1e-9)


@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
def test_expectation_equals_the_mean_over_samples_of_one_hot_architectures(name: str) -> None:
    space, model = CELL_SPACES[name], models(name)["latency_ms"]
    generator = np.random.default_rng(0)
    probability = {k: generator.dirichlet(np.ones(len(space.operations)), len(c.edges)) for k, c in space.cells.items()}
    exact = float(ExpectedCost(model)({k: torch.from_numpy(p) for k, p in probability.items()}))
    base, edges = model.linear()
    draws = np.full(20_000, base)
    for kind, p in probability.items():
        for e, row in enumerate(p):
            draws += edges[kind][e, generator.choice(len(row), size=len(draws), p=row)]
    assert exact == pytest.approx(draws.mean(), abs=5 * draws.std() / np.sqrt(len(draws)))


@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
def test_expectation_gradient_equals_finite_differences(name: str) -> None:
    space, model = CELL_SPACES[name], models(name)["latency_ms"]
    generator = torch.Generator().manual_seed(0)
    logits = {
        k: torch.randn(len(c.edges), len(space.operations), generator=generator, dtype=torch.float64)
        for k, c in space.cells.items()
    }

    def cost(*values: torch.Tensor) -> torch.Tensor:
        return ExpectedCost(model)({k: v.softmax(-1) for k, v in zip(logits, values, strict=True)})

    assert torch.autograd.gradcheck(cost, tuple(v.requires_grad_() for v in logits.values()))


def test_preview_of_nasbench201_is_the_enumeration() -> None:
    spread = preview(models("nasbench201"))["latency_ms"]
    every = [NB201.architecture((ops,)) for ops in itertools.product(NB201.operations, repeat=6)]
    costs = spread.model.predict_many(encode(NB201, every))
    assert spread.exact
    np.testing.assert_allclose(np.sort(spread.costs), np.sort(costs))
    connected = [c for c, a in zip(costs, every, strict=True) if any(NB201.cells["cell"].live_edges(a.cells[0]))]
    assert spread.least == pytest.approx(min(connected))
    assert spread.greatest == pytest.approx(max(connected))


def test_preview_of_darts_has_exact_ends() -> None:
    for spread in preview(models("darts")).values():
        assert not spread.exact
        assert spread.least <= spread.costs.min() < spread.costs.max() <= spread.greatest
        assert spread.percentile_error(50) > 0


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("4.5ms", "latency_ms", 4.5),
        ("800us", "latency_ms", 0.8),
        ("0.01s", "latency_ms", 10.0),
        ("300M-macs", "macs", 3e8),
        ("2.5M-params", "params", 2.5e6),
        ("1e6 params", "params", 1e6),
    ],
)
def test_absolute_budgets_are_read_in_their_units(text: str, metric: str, bound: float) -> None:
    assert parse_budget(text, preview(models("nasbench201"))).limits == pytest.approx({metric: bound})


def test_named_budgets_are_percentiles_and_shares_are_of_the_greatest() -> None:
    previews = preview(models("nasbench201"))
    for name, percentile in NAMED.items():
        budget = parse_budget(name, previews)
        assert budget.limits["latency_ms"] == pytest.approx(np.percentile(previews["latency_ms"].costs, percentile))
        assert share_within(previews, budget) == pytest.approx(percentile / 100, abs=0.02)  # ties
    assert parse_budget("60%-macs", previews).limits["macs"] == pytest.approx(0.6 * previews["macs"].greatest)
    both = parse_budget("mild, 60%-params", previews)
    assert set(both.limits) == {"latency_ms", "params"}
    assert both.name == "mild_60pct-params"


@pytest.mark.parametrize(
    "text", ["", "fast", "4.5", "4.5 furlongs", "-3ms", "nanms", "0ms", "0.00001ms", "1%", "10params", "mild,1params"]
)
def test_budgets_that_mean_nothing_or_cannot_be_met_are_refused(run: Run, tmp_path: Path, text: str) -> None:
    write_table(tmp_path / "table.json", make_table(SizedSpace(NB201, SMALL["nasbench201"])))
    sizes = ["--channels", 4, "--cells", 1, "--input", "3x16x16"]
    result = run("space", "preview", "--table", tmp_path / "table.json", *sizes, f"--budget={text}")
    assert_one_clear_line(result, "budget|architecture")


def test_preview_command_prints_what_a_budget_allows(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "table.json", make_table(SizedSpace(NB201, SMALL["nasbench201"])))
    sizes = ["--channels", 4, "--cells", 1, "--input", "3x16x16"]
    result = run("space", "preview", "--table", tmp_path / "table.json", *sizes, "--budget", "aggressive", "--json")
    printed = json.loads(result.stdout)
    assert printed["exact"] is True
    assert printed["budgets"][0]["share_of_architectures"] == pytest.approx(0.25, abs=0.02)  # ties
    metric = printed["metrics"]["latency_ms"]
    assert metric["least"] < metric["aggressive"] < metric["moderate"] < metric["mild"] < metric["greatest"]


CHOICES, _ = all_choices(NB201)


@cache
def connected() -> np.ndarray:
    """Return which of CHOICES have a path from input to output."""
    return np.array([any(NB201.cells["cell"].live_edges(decode(NB201, row).cells[0])) for row in CHOICES])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    concentration=st.sampled_from([0.05, 0.3, 1.0, 10.0]),
    quantiles=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    table=st.integers(0, 3),
)
def test_derivation_equals_brute_force(
    seed: int, concentration: float, quantiles: tuple[float, float], table: int
) -> None:
    generator = np.random.default_rng(seed)
    log_p = {"cell": np.log(generator.dirichlet(np.full(5, concentration), 6) + 1e-20)}
    costs = models("nasbench201", table)
    spreads = {metric: costs[metric].predict_many(CHOICES) for metric in ("latency_ms", "params")}
    bounds = {m: float(np.quantile(s[connected()], q)) for (m, s), q in zip(spreads.items(), quantiles, strict=True)}
    kept = connected() & np.logical_and.reduce([spreads[m] <= b for m, b in bounds.items()])
    limits = {m: (costs[m], b) for m, b in bounds.items()}
    if not kept.any():
        with pytest.raises(HwnasError, match="no architecture"):
            derive(NB201, log_p, limits)
        return
    derived = derive(NB201, log_p, limits)
    for metric, bound in bounds.items():
        assert costs[metric].predict(derived) <= bound
    scores = np.maximum(log_p["cell"], -60)[np.arange(6), CHOICES].sum(axis=1)
    found = np.maximum(log_p["cell"], -60)[np.arange(6), encode(NB201, [derived])[0]].sum()
    assert found == pytest.approx(scores[kept].max(), abs=1e-4)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), quantile=st.floats(0.02, 1), top2=st.booleans())
def test_derivation_in_darts_keeps_budget_and_rules(seed: int, quantile: float, top2: bool) -> None:
    space, generator = CELL_SPACES["darts"], np.random.default_rng(seed)
    log_p = {k: np.log(generator.dirichlet(np.full(8, 0.3), 14) + 1e-20) for k in space.cells}
    model = models("darts")["latency_ms"]
    bound = float(np.quantile(preview(models("darts"))["latency_ms"].costs, quantile))
    derived = derive(space, log_p, {"latency_ms": (model, bound)}, inputs_per_node=2 if top2 else None)
    assert model.predict(derived) <= bound
    for cell, chosen in zip(space.cells.values(), derived.cells, strict=True):
        assert any(cell.live_edges(chosen))
        if top2:
            assert all(sum(chosen[e] != "none" for e in cell.edges_into(n)) == 2 for n in cell.inner_nodes)


def test_derivation_without_limits_takes_the_likeliest_operations() -> None:
    log_p = {"cell": np.log(np.random.default_rng(1).dirichlet(np.ones(5), 6))}
    log_p["cell"][:, 0] = -9.0  # no edge prefers none, so the rule of a path binds nothing
    derived = derive(NB201, log_p, {})
    assert list(encode(NB201, [derived])[0]) == log_p["cell"].argmax(axis=1).tolist()


def test_nan_logits_and_hopeless_limits_are_refused() -> None:
    uniform = {"cell": np.zeros((6, 5))}
    with pytest.raises(HwnasError, match="NaN"):
        derive(NB201, {"cell": np.full((6, 5), np.nan)}, {})
    with pytest.raises(HwnasError, match="no architecture"):
        derive(NB201, uniform, {"params": (models("nasbench201")["params"], 10.0)})


def test_budget_names_are_safe_folder_names() -> None:
    assert Budget("../../etc/passwd", {}).name.count("/") == 0


def corrected(*networks: tuple[str, Setting]) -> LatencyTable:
    """A table that says it was made for these networks."""
    fit = Correction(offset_ms=0.5, scale=2.0, networks=10)
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    return table.model_copy(update={"correction": {SizedSpace(SPACES[n], s).key: fit for n, s in networks}})


def test_network_names_read_back() -> None:
    networks = [(name, s) for name, space in SPACES.items() for s in space.settings.values()]
    assert [(sized.space.name, sized.setting) for sized in networks_of(corrected(*networks))] == networks


def test_the_network_meant_is_the_one_said_else_the_tables_own() -> None:
    small, usual = SMALL["nasbench201"], NB201.settings["cifar"]
    assert choose_network(corrected(("nasbench201", small)), None, None) == SizedSpace(NB201, small)
    both = corrected(("nasbench201", small), ("nasbench201", usual))
    assert choose_network(both, None, None) == SizedSpace(NB201, usual)
    assert choose_network(corrected(("darts", SMALL["darts"])), None, None).space.name == "darts"
    assert choose_network(corrected(("nasbench201", small)), None, None, channels=9).setting.channels == 9
    assert choose_network(corrected(("nasbench201", small)), "darts", None) == SizedSpace.named(CELL_SPACES["darts"])
    two = corrected(("nasbench201", small), ("darts", SMALL["darts"]))
    with pytest.raises(HwnasError, match="several networks"):
        choose_network(two, None, None)


def test_correction_scales_what_is_predicted() -> None:
    small = SMALL["nasbench201"]
    plain = build_cost_models(corrected(), SizedSpace(NB201, small))["latency_ms"].predict_many(CHOICES)
    fitted = build_cost_models(corrected(("nasbench201", small)), SizedSpace(NB201, small))["latency_ms"].predict_many(
        CHOICES
    )
    np.testing.assert_allclose(fitted, 0.5 + 2.0 * plain)


@pytest.mark.parametrize(
    ("space", "setting"), [(space, setting) for space in SPACES.values() for setting in space.settings.values()]
)
def test_the_command_that_fills_a_gap_names_that_network(space: SearchSpace, setting: Setting) -> None:
    """The suggested command, parsed as ``hwnas profile`` does, gives the network that was missing."""
    wanted = replace(setting, channels=24, classes=7, height=64, width=48)
    words = shlex.split(profile_command(SizedSpace(space, wanted)).split("`")[1])
    options = dict(zip(words[2::2], words[3::2], strict=True))
    image_channels, height, width = map(int, options["--input"].split("x"))
    depth = int(options["--layers"]) if "--layers" in options else None
    base = space.setting(
        options.get("--setting", space.search_setting), channels=int(options["--channels"]), depth=depth
    )
    assert wanted == replace(
        base,
        classes=int(options["--classes"]), image_channels=image_channels, height=height, width=width,
    )  # fmt: skip


def test_cost_models_are_built_once_for_what_a_table_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal needs them for the prediction and again for its error: neither builds them anew."""
    built: list[str] = []

    def counting(*arguments: object) -> dict[str, CostModel]:
        built.append("models")
        return by_entries(*arguments)  # type: ignore[arg-type]

    by_entries = cost_model._by_entries
    monkeypatch.setattr(cost_model, "_by_entries", counting)
    monkeypatch.setattr(cost_model, "_cached", deque(maxlen=16))
    sized = SizedSpace(NB201, SMALL["nasbench201"])
    table = corrected(("nasbench201", SMALL["nasbench201"]))
    networks = [
        MeasuredNetwork(architecture=NB201.format(decode(NB201, row), True), latency_ms=1.0, error_ms=0.0, fitted=False)
        for row in CHOICES[:40]
    ]
    table = table.model_copy(update={"networks": {sized.key: networks}})
    first = build_cost_models(table, sized)
    assert error_scales(table, sized, CHOICES[:3]) is not None
    again = build_cost_models(table.model_copy(deep=True), SizedSpace(NB201, replace(SMALL["nasbench201"])))
    assert built == ["models"]
    assert again["latency_ms"] is first["latency_ms"]
    changed = table.model_copy(update={"correction": {}})
    assert build_cost_models(changed, sized)["latency_ms"] is not first["latency_ms"]
    build_cost_models(table, sized.resized(depth=2))
    assert built == ["models"] * 3
