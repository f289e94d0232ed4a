"""One network for several devices: derivation against brute force, a search, its verification, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwnas.budgets import derive as derivation
from hwnas.budgets.budget import Budget, limits_of, parse_budget, preview
from hwnas.budgets.derive import derive
from hwnas.budgets.text import targets_of
from hwnas.calibration.design_matrix import connected
from hwnas.cost.build import CostFunction, build_metrics, joint_models
from hwnas.errors import HwnasError
from hwnas.export.timing import Measured
from hwnas.search.objective import Objective
from hwnas.spaces import Setting, SizedSpace, get_space
from hwnas.spaces.encoding import encode, every_choice
from hwnas.tables.io import parse_table, table_text, write_table
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.tables import make_table

SPACE, SMALL = get_space("nasbench201"), Setting(channels=4, depth=1, height=16, width=16)
TABLES = {
    name: parse_table(table_text(make_table(SizedSpace(SPACE, SMALL), seed)).encode(), name, "")
    for seed, name in enumerate(("phone", "server"))
}
MODELS = {name: build_metrics(table, SizedSpace(SPACE, SMALL)) for name, table in TABLES.items()}
CHOICES = every_choice(SPACE)
MS = {name: models["latency_ms"].predict_many(CHOICES) for name, models in MODELS.items()}
PREVIEWS = preview(joint_models(MODELS))
SEARCH = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1, "--recipe", "snas-short", "--child-epochs", 0)
JOINT = "moderate@server, 60%@phone,80%-params"
BYTES = ("memory_access_bytes", "peak_activation_bytes")


@pytest.fixture
def tables(tmp_path: Path) -> tuple[object, ...]:
    """The command line's tables of both devices."""
    for name, table in TABLES.items():
        write_table(tmp_path / f"{name}.json", table)
    return ("--table", tmp_path / "phone.json", "--table", tmp_path / "server.json")


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shares=st.tuples(st.floats(0.15, 0.9), st.floats(0.15, 0.9)))
def test_the_derived_network_keeps_both_latencies_and_is_the_most_probable_that_does(
    seed: int, shares: tuple[float, float]
) -> None:
    """Architectures by number, their latencies by each table alone."""
    rows = np.random.default_rng(seed).normal(size=(SPACE.num_edges, len(SPACE.operations))) * 2
    log_p = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    kept, texts = connected(SPACE, CHOICES), []
    for share, (name, ms) in zip(shares, MS.items(), strict=True):
        bound = float(np.quantile(ms, share))
        kept &= ms <= bound
        texts.append(f"{float(bound)!r}ms@{name}")
    assume(kept.any())
    budget = parse_budget(",".join(texts), PREVIEWS)
    chosen = derive(SPACE, {"cell": log_p}, limits_of(PREVIEWS, budget))
    row = int(np.flatnonzero((encode(SPACE, [chosen])[0] == CHOICES).all(axis=1))[0])
    scores = log_p[np.arange(SPACE.num_edges), CHOICES].sum(axis=1)
    assert kept[row]
    assert scores[row] == pytest.approx(scores[kept].max())


def test_the_integer_program_keeps_both_latencies_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivation, "ENUMERABLE", 0)
    for seed in range(3):
        log_p = np.random.default_rng(seed).normal(size=(SPACE.num_edges, len(SPACE.operations)))
        bounds = {name: float(np.quantile(ms, 0.4)) for name, ms in MS.items()}
        kept = connected(SPACE, CHOICES) & np.all([MS[name] <= bound for name, bound in bounds.items()], axis=0)
        limits = limits_of(PREVIEWS, Budget("", {f"latency_ms@{name}": bound for name, bound in bounds.items()}))
        chosen = encode(SPACE, [derive(SPACE, {"cell": log_p}, limits)])[0]
        scores = log_p[np.arange(SPACE.num_edges), CHOICES].sum(axis=1)
        assert log_p[np.arange(SPACE.num_edges), chosen].sum() == pytest.approx(scores[kept].max())


def test_relative_limits_are_those_of_the_named_device() -> None:
    budget = parse_budget(JOINT, PREVIEWS)
    assert budget.devices == ["server", "phone"]
    assert budget.limits["latency_ms@server"] == np.percentile(MS["server"], 50)
    assert budget.limits["latency_ms@phone"] == pytest.approx(0.6 * PREVIEWS["latency_ms@phone"].greatest)
    assert MS["phone"].max() <= PREVIEWS["latency_ms@phone"].greatest
    assert set(budget.limits) == {"latency_ms@server", "latency_ms@phone", "params"}
    twice = parse_budget("moderate@phone,aggressive@phone", PREVIEWS)
    assert twice.limits == {"latency_ms@phone": np.percentile(MS["phone"], 25)}


def test_memory_is_limited_beside_the_latencies_of_both_devices() -> None:
    """Once for all devices; the peak is kept by derivation alone, all other limits are in the loss, too."""
    memory = {m: MODELS["phone"][m].predict_many(CHOICES) for m in ("memory_access_bytes", "peak_activation_bytes")}
    moved, peak = (float(np.median(values)) for values in memory.values())
    text = f"60%@phone,70%@server,{moved!r}B-memory-access,{peak!r}B-peak-memory"
    budget = parse_budget(text, PREVIEWS)
    latencies = {f"latency_ms@{name}": ms for name, ms in MS.items()}
    assert set(budget.limits) == {*latencies, *memory}
    kept = np.all([(latencies | memory)[metric] <= bound for metric, bound in budget.limits.items()], axis=0)
    kept &= connected(SPACE, CHOICES)
    log_p = np.random.default_rng(1).normal(size=(SPACE.num_edges, len(SPACE.operations)))
    chosen = encode(SPACE, [derive(SPACE, {"cell": log_p}, limits_of(PREVIEWS, budget))])[0]
    scores = log_p[np.arange(SPACE.num_edges), CHOICES].sum(axis=1)
    assert log_p[np.arange(SPACE.num_edges), chosen].sum() == pytest.approx(scores[kept].max())
    goal = Objective("phone, server", budget, joint_models(MODELS))
    assert set(goal.penalised) == {*latencies, "memory_access_bytes"}


def test_targets_are_every_budget_on_every_device_and_joint_ones_once() -> None:
    assert targets_of(["a", "b"], ["4ms@b, 2M-params,3ms@a", "mild", " 1ms@b"]) == [
        (("a",), "mild"),
        (("b",), "mild"),
        (("a", "b"), "4ms@b, 2M-params,3ms@a"),
        (("b",), "1ms@b"),
    ]


def devices_at_odds() -> dict[str, dict[str, CostFunction]]:
    """On each device some operations cost what they do not cost on the other, skip_connect among them."""
    made = {}
    for name, dear in (("phone", ("skip_connect", "nor_conv_3x3")), ("server", ("nor_conv_1x1", "avg_pool_3x3"))):
        model = MODELS[name]["latency_ms"]
        cell = model.cells["cell"]
        extra = np.array([float(op in dear) for op in SPACE.operations])
        changed = replace(model, cells={"cell": replace(cell, edges=cell.edges + extra)})
        made[name] = {**MODELS[name], "latency_ms": changed}
    return made


def test_devices_that_cannot_be_met_together_are_named_with_what_can_be_had() -> None:
    models = devices_at_odds()
    allowed = connected(SPACE, CHOICES)
    ms = {name: costs["latency_ms"].predict_many(CHOICES)[allowed] for name, costs in models.items()}
    bounds = {name: float(values.min()) * 1.0001 for name, values in ms.items()}
    assert not (np.array([ms[name] <= bound for name, bound in bounds.items()]).all(axis=0)).any()
    with pytest.raises(HwnasError, match="contradict each other; within the other") as caught:
        parse_budget(
            ",".join(f"{float(bound)!r}ms@{name}" for name, bound in bounds.items()), preview(joint_models(models))
        )
    for name, other in (("phone", "server"), ("server", "phone")):
        least = ms[name][ms[other] <= bounds[other]].min()
        assert f"latency_ms@{name} goes down to {least:.4g} ms" in str(caught.value)


@pytest.mark.end_to_end
def test_a_search_finds_one_network_for_both_devices(
    run: Run, tmp_path: Path, tables: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside networks of their own; then timed on both, by a clock that the test sets."""
    out = tmp_path / "run"
    budgets = ("--budget", JOINT, "--budget", "mild")
    result = run("search", *tables, *SEARCH, "--epochs", 2, *budgets, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"{JOINT} on phone" in result.stdout
    rows = json.loads((out / "summary.json").read_text())["targets"]
    assert [(r["device"], r["budget"]) for r in rows] == [
        ("phone", "mild"), ("server", "mild"), ("phone, server", JOINT),
    ]  # fmt: skip
    architecture = SPACE.parse(rows[2]["architecture"])
    bounds = parse_budget(JOINT, PREVIEWS).limits
    assert rows[2]["limits"] == bounds
    for there in rows[2]["devices"]:
        assert there["budget_ms"] == bounds[f"latency_ms@{there['device']}"]
        assert there["predicted_ms"] == pytest.approx(MODELS[there["device"]]["latency_ms"].predict(architecture))
        assert there["predicted_ms"] <= there["budget_ms"]
    assert rows[2]["params"] <= bounds["params"]
    place = out / "moderate-on-server_60pct-on-phone_80pct-params"
    content = json.loads((place / "architecture.json").read_text())
    assert content["tables"] == {"phone": "tables/phone.json", "server": "tables/server.json"}
    assert set(content["costs"]) == {"latency_ms@phone", "latency_ms@server", "macs", "params", *BYTES}
    metadata = {p.key: p.value for p in onnx.load(place / "network.onnx").metadata_props}
    assert metadata["hwnas.table_sha256@server"] == TABLES["server"].sha256
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    joint = [line for line in lines if line["budget"] == JOINT]
    assert [set(line["lambda"]) for line in joint] == [set(bounds)] * 2

    assert_one_clear_line(run("verify", out), "which is not this machine")
    assert_one_clear_line(run("verify", place, "--device", "cpu"), "phone, server", "leave out --device$")
    slow = {TABLES["phone"].sha256: 0.5, TABLES["server"].sha256: 100.0}

    def clock(networks, spec, table, key, progress):  # type: ignore[no-untyped-def]
        return {name: Measured(slow[table.sha256], 0.01, slow[table.sha256], 1.0) for name in networks}

    bound = bounds["latency_ms@phone"]
    slow[TABLES["phone"].sha256] = bound * 0.9
    monkeypatch.setattr("hwnas.runs.verify.require_its_device", lambda table: None)
    monkeypatch.setattr("hwnas.runs.verify.time_networks", clock)
    verified = run("verify", place, "--json")
    assert verified.exit_code == 1
    measured = json.loads(verified.stdout)["targets"]
    assert [(r["device"], r["measured_ms"], r["kept"]) for r in measured] == [
        ("phone", bound * 0.9, True), ("server", 100.0, False),
    ]  # fmt: skip
    row = json.loads((out / "summary.json").read_text())["targets"][2]
    assert row["kept"] is False
    assert [there["measured_ms"] for there in row["devices"]] == [bound * 0.9, 100.0]
    assert "NO" in run("verify", place).stdout

    derived = json.loads(run("derive", place, "--json").stdout)["targets"][0]["architectures"][0]
    assert derived["architecture"] == rows[2]["architecture"]
    assert derived["latency_ms@server"] == pytest.approx(rows[2]["devices"][1]["predicted_ms"])
    other = json.loads(run("derive", out / "phone_mild", "--budget", "60%@server,mild@phone", "--json").stdout)
    (best,) = other["targets"][0]["architectures"]
    assert best["latency_ms@server"] <= other["targets"][0]["limits"]["latency_ms@server"]
    assert run("derive", place).exit_code == 0
    assert run("derive", place, "--pareto", "latency@phone", "--plot", tmp_path / "p.svg").exit_code == 0
    assert_one_clear_line(run("derive", place, "--pareto", "latency"), "latency@phone, latency@server, macs, params")
    assert_one_clear_line(run("derive", place, "--budget", "60%"), "on which device")
    assert run("evaluate", place, "--json").exit_code == 0
    assert run("train", place, "--epochs", 1, "--json").exit_code == 0


@pytest.mark.end_to_end
def test_verify_tightens_the_limit_of_each_device_that_breaks_its_own(
    run: Run, tmp_path: Path, tables: tuple[object, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is a tenth slower than its table says, the phone a tenth faster."""
    bias = {TABLES["phone"].sha256: 0.9, TABLES["server"].sha256: 1.1}
    models = {table.sha256: MODELS[name]["latency_ms"] for name, table in TABLES.items()}

    def clock(networks, spec, table, key, progress):  # type: ignore[no-untyped-def]
        found = {}
        for name, file in networks.items():
            text = next(p.value for p in onnx.load(file).metadata_props if p.key == "hwnas.architecture")
            ms = models[table.sha256].predict(SPACE.parse(text)) * bias[table.sha256]
            found[name] = Measured(ms, 0.0, ms, 1.0)
        return found

    monkeypatch.setattr("hwnas.runs.select.time_networks", clock)
    monkeypatch.setattr("hwnas.runs.verify.time_networks", clock)
    for module in ("search", "verify"):
        monkeypatch.setattr(f"hwnas.runs.{module}.require_its_device", lambda table: None)
    out = tmp_path / "run"
    arguments = (*SEARCH, "--epochs", 1, "--budget", "50%@server,mild@phone", "--verify")
    result = run("search", *tables, *arguments, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    assert all(there["measured_ms"] <= there["budget_ms"] for there in row["devices"])
    for attempt in row["derivations"]:
        assert attempt["measured_ms@server"] == pytest.approx(1.1 * attempt["predicted_ms@server"])
        assert attempt["measured_ms@phone"] == pytest.approx(0.9 * attempt["predicted_ms@phone"])


@pytest.mark.slow
def test_budgets_on_devices_that_make_no_sense_are_one_clear_line(
    run: Run, tmp_path: Path, tables: tuple[object, ...]
) -> None:
    search = ("search", *tables, *SEARCH, "--out", tmp_path / "run")
    for command in (search, ("space", "preview", *tables, "--channels", 4, "--cells", 1, "--input", "3x16x16")):
        assert_one_clear_line(run(*command, "--budget", "60%@tablet,mild@phone"), "'tablet'", "known: phone, server")
        assert_one_clear_line(run(*command, "--budget", "60%@phone,4ms"), "'4ms'.*which device", "4ms@NAME")
        assert_one_clear_line(run(*command, "--budget", "60%@phone,2M-params@server"), "do not depend", "@server")
        assert_one_clear_line(run(*command, "--budget", "0.0001ms@phone"), "latency_ms@phone.*between")
        assert_one_clear_line(run(*command, "--budget", "60%@"), "unknown device ''")
    twice = ("--budget", "60%@phone", "--budget", "60% @ phone")
    assert_one_clear_line(run(*search, *twice), "the same, or would share", "60pct-on-phone")
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("pictures")
@pytest.mark.slow
def test_preview_of_several_devices(run: Run, tmp_path: Path, tables: tuple[object, ...]) -> None:
    command = ("space", "preview", *tables, "--channels", 4, "--cells", 1, "--input", "3x16x16")
    budgets = ("--budget", JOINT, "--budget", "mild", "--budget", "70%-params")
    result = run(*command, *budgets, "--plot", tmp_path / "p.svg", "--json")
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert set(shown["metrics"]) == {"latency_ms@phone", "latency_ms@server", "macs", "params", *BYTES}
    assert shown["metrics"]["latency_ms@server"]["moderate"] == np.percentile(MS["server"], 50)
    names = [(b["budget"], list(b["limits"])) for b in shown["budgets"]]
    assert names == [
        ("mild", ["latency_ms@phone"]),
        ("70%-params", ["params"]),
        ("mild", ["latency_ms@server"]),
        (JOINT, ["latency_ms@server", "latency_ms@phone", "params"]),
    ]
    limits = shown["budgets"][3]["limits"]
    params = MODELS["phone"]["params"].predict_many(CHOICES)
    kept = (MS["phone"] <= limits["latency_ms@phone"]) & (MS["server"] <= limits["latency_ms@server"])
    assert shown["budgets"][3]["share_of_architectures"] == np.mean(kept & (params <= limits["params"]))
    assert set(shown["budgets"][3]["least_under_the_others"]) == set(limits)
    assert "predicted latency on phone" in (tmp_path / "p.svg").read_text()
    assert "latency_ms@server <= " in run(*command, *budgets).stdout
