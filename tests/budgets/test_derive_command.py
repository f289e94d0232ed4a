"""Derivation by the command line: of a finished search, for other budgets, Pareto sets, previews, contradictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from hwnas.cli import app
from hwnas.cost.model import build_cost_models
from hwnas.files import shipped, write_json
from hwnas.recipe import read_recipe
from hwnas.spaces import (
    Setting,
    SizedSpace,
    get_space,
)
from hwnas.spaces.darts import is_top2
from hwnas.tables.io import write_table
from hwnas.tables.schema import CellCosts, LatencyTable
from hwnas.training.checkpoint import Checkpoint
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.small_spaces import EVERY, counted, obeys, random_edge_costs, setting_of
from support.spaces import NB201
from support.tables import make_table


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real search of nasbench201 for two budgets, an epoch long."""
    folder = tmp_path_factory.mktemp("searched")
    write_table(folder / "table.json", make_table(SizedSpace(NB201, setting_of("nasbench201"))))
    small = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 1)
    asked = ("--child-epochs", 0, "--batch-size", 32, "--budget", "mild", "--budget", "aggressive,80%-params")
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
    recipe = read_recipe("snas-short", {"inputs_per_node": 2}).model_dump(mode="json") | {"finalists": None}
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


@pytest.mark.usefixtures("pictures")
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


@pytest.mark.slow
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


@pytest.mark.usefixtures("pictures")
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
