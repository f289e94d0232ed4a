"""Metrics: their names, and one that devices measure besides latency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hwnas.budgets.budget import limits_of, parse_budget, preview
from hwnas.budgets.derive import cheapest, derive
from hwnas.budgets.infeasible import least_under_others
from hwnas.budgets.pareto import pareto
from hwnas.budgets.plot import plot_spread, unit_of
from hwnas.cost.build import build_metrics, joint_models, register_measured, unregister_measured
from hwnas.cost.metric import (
    BYTE_UNITS,
    BYTES,
    LATENCY,
    MACS,
    MEMORY_ACCESS,
    METRICS,
    PEAK_MEMORY,
    Metric,
    register_metric,
)
from hwnas.cost.model import CostModel, network_model
from hwnas.errors import HwnasError
from hwnas.recipe import read_recipe
from hwnas.search.objective import Objective
from hwnas.search.search import Search
from hwnas.spaces import SizedSpace
from hwnas.spaces.encoding import every_choice
from hwnas.tables.schema import LatencyTable
from support.command import Run
from support.searches import FEW
from support.spaces import NB201, SMALL
from support.tables import make_table

SIZED = SizedSpace(NB201, SMALL["nasbench201"])
TABLES = {name: make_table(SIZED, seed) for seed, name in enumerate(("phone", "server"))}
ENERGY = Metric("energy", "mJ", measured=True, short="energy", label="energy", units={"uJ": 1e-3, "mJ": 1.0, "J": 1e3})


def energy_model(table: LatencyTable, sized: SizedSpace) -> CostModel:
    """Return a cost model that is no multiple of latency."""
    energies = {
        entry.workload: SimpleNamespace(energy_mj=0.5 * entry.latency_ms + 1e-6 * entry.macs) for entry in table.entries
    }
    return network_model(sized, ENERGY, energies, "energy_mj")


@pytest.fixture
def energy() -> Iterator[None]:
    register_measured(ENERGY, energy_model)
    yield
    unregister_measured(ENERGY)


@pytest.mark.parametrize("name", ["latency_ms", "latency_ms@phone", "macs", "memory_access_bytes", "energy_mj@a.b"])
def test_names_read_back(name: str, energy: None) -> None:
    metric = Metric.parse(name)
    assert metric.name == name
    assert metric.on(None).name == name.partition("@")[0]
    assert Metric.parse(metric.on("x").name) == metric.on("x")


def test_a_metric_says_what_it_is() -> None:
    phone = LATENCY.on("phone")
    assert (phone.quantity, phone.unit, phone.device, phone.measured) == ("latency", "ms", "phone", True)
    assert (phone.title, phone.option) == ("latency@phone", "latency@phone")
    assert phone.derived("bound").name == "bound_ms@phone"
    assert (MEMORY_ACCESS.unit, PEAK_MEMORY.option, PEAK_MEMORY.name) == (BYTES, "peak-memory", "peak_activation_bytes")
    assert (MACS.exact(2.0), LATENCY.exact(2.5)) == (2, 2.5)
    assert [MACS.format(n) for n in (12, 3e4, 2.5e6)] == ["12 macs", "30 k macs", "2.5 M macs"]
    assert (LATENCY.format(1.23456), MEMORY_ACCESS.format(2.5e6)) == ("1.235 ms", "2.5 MB")
    assert Metric.parse("strange_thing@phone") == Metric("strange_thing", device="phone")
    assert Metric.parse("strange_thing").format(0.25) == "0.25 strange_thing"


def test_a_taken_name_or_unit_is_refused() -> None:
    """Metrics in bytes share their units."""
    register_metric(LATENCY)
    for metric in (
        Metric("latency", "us", short="latency"),
        Metric("duration", "ms", short="duration", units={"ms": 1.0}),
    ):
        with pytest.raises(HwnasError, match="is taken"):
            register_metric(metric)
    memory = Metric("resident_memory", BYTES, measured=True, short="resident-memory", units=BYTE_UNITS)
    register_metric(memory)
    del METRICS[memory.name]
    assert list(METRICS) == ["latency_ms", "macs", "params", "memory_access_bytes", "peak_activation_bytes"]


@pytest.mark.slow
def test_a_registered_metric_is_previewed_limited_and_derived(energy: None, tmp_path: Path) -> None:
    costs = build_metrics(TABLES["phone"], SIZED)
    assert list(costs)[:2] == ["latency_ms", "energy_mj"]
    previews, choices = preview(costs), every_choice(NB201)
    spread = previews["energy_mj"]
    assert spread.exact
    assert parse_budget("60%-energy", previews).limits == {"energy_mj": 0.6 * spread.greatest}
    assert parse_budget("mild-energy", previews).limits == {"energy_mj": spread.percentile(75)}
    bound = spread.percentile(50)
    for text in (f"{bound!r}mJ", f"{bound * 1e3!r}uJ", f"{bound * 1e-3!r} J"):
        assert parse_budget(text, previews).limits["energy_mj"] == pytest.approx(bound)
    with pytest.raises(HwnasError, match="cannot be met: energy_mj of this space lies between"):
        parse_budget(f"{spread.least * 500!r}uJ", previews)

    budget = parse_budget("moderate-energy,mild,80%-params", previews)
    assert list(budget.limits) == ["energy_mj", "latency_ms", "params"]
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(5), 6))
    limits = limits_of(previews, budget)
    derived = derive(NB201, {"cell": log_p}, limits)
    assert all(model.predict(derived) <= limit for model, limit in limits.values())
    within = np.logical_and.reduce([model.predict_many(choices) <= limit for model, limit in limits.values()])
    assert (
        costs["energy_mj"].predict(cheapest(costs["energy_mj"]))
        <= costs["energy_mj"].predict_many(choices[within]).min()
    )
    assert set(least_under_others(limits)) == set(budget.limits)
    found = pareto(NB201, {"cell": log_p}, costs["energy_mj"], {}, None)
    assert found.metric == "energy_mj"
    assert len(found.points) > 1
    assert unit_of("energy_mj@phone", 0.05).label == "energy on phone, µJ"
    plot_spread(previews, [budget], "energy", tmp_path / "spread.svg")


def test_a_registered_metric_is_limited_on_each_device(energy: None) -> None:
    joint = joint_models({name: build_metrics(table, SIZED) for name, table in TABLES.items()})
    assert list(joint)[:4] == ["latency_ms@phone", "energy_mj@phone", "latency_ms@server", "energy_mj@server"]
    previews = preview(joint)
    budget = parse_budget("50%-energy@phone,mild@server", previews)
    assert list(budget.limits) == ["energy_mj@phone", "latency_ms@server"]
    assert budget.devices == ["phone", "server"]
    assert joint["energy_mj@server"].predict_many(every_choice(NB201)[-1:]) != joint["energy_mj@phone"].predict_many(
        every_choice(NB201)[-1:]
    )
    with pytest.raises(HwnasError, match="does not say on which device"):
        parse_budget("50%-energy", previews)


def test_a_search_keeps_a_registered_metric_in_its_loss(energy: None) -> None:
    costs = build_metrics(TABLES["phone"], SIZED)
    budget = parse_budget("25%-energy,mild", preview(costs))
    recipe = read_recipe("snas-short", {"batch_size": 16, "logits_warm_up": 0.0, "penalty.warm_up": 0.0})
    search = Search(SIZED, [Objective("phone", budget, costs)], FEW, recipe)
    for _ in range(3):
        search.take_step()
    assert list(search.targets[0].expected) == ["latency_ms", "energy_mj", "macs", "params", "memory_access_bytes"]
    assert costs["energy_mj"].predict(search.evaluator.choose(search.targets[0])) <= budget.limits["energy_mj"]


def test_commands_show_a_registered_metric(energy: None, run: Run, table_file: Path, tmp_path: Path) -> None:
    sizes = ("--channels", 4, "--cells", 1, "--input", "3x16x16")
    shown = run("space", "preview", "--table", table_file, *sizes, "--budget", "60%-energy,mild")
    assert shown.exit_code == 0, shown.output
    assert "energy_mj <= " in shown.stdout
    (tmp_path / "cells.txt").write_text(NB201.format(cheapest(build_metrics(TABLES["phone"], SIZED)["energy_mj"])))
    predicted = run("table", "predict", table_file, "--architectures", tmp_path / "cells.txt", *sizes)
    assert predicted.exit_code == 0, predicted.output
    assert " mJ" in predicted.stdout


def test_a_limit_that_nothing_predicts_is_refused() -> None:
    with_energy = SimpleNamespace(text="1mJ", limits={"energy_mj": 1.0})
    with pytest.raises(HwnasError, match="energy_mj, which nothing here predicts"):
        limits_of(preview(build_metrics(TABLES["phone"], SIZED)), with_energy)  # type: ignore[arg-type]
