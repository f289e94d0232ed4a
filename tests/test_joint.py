"""One network for several devices: derivation against brute force, a search, its verification, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import Run, assert_one_clear_line, make_table
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwnas.cost import derive as derivation
from hwnas.cost.budget import Budget, limits_of, parse_budget, preview
from hwnas.cost.derive import derive
from hwnas.cost.devices import joint_models, targets_of
from hwnas.cost.features import connected
from hwnas.cost.model import CostModel, build_cost_models, encode, every_choice
from hwnas.errors import HwnasError
from hwnas.export.verify import Measured
from hwnas.spaces import Setting, get_space
from hwnas.tables.io import write_table
from hwnas.tables.schema import LatencyTable

SPACE, SIZES = get_space("nasbench201"), Setting(channels=4, depth=1, height=16, width=16)
TABLES = {name: make_table(SPACE, SIZES, seed) for seed, name in enumerate(("phone", "server"))}
MODELS = {name: build_cost_models(table, SPACE, SIZES) for name, table in TABLES.items()}
CHOICES = every_choice(SPACE)
MS = {name: models["latency_ms"].predict_many(CHOICES) for name, models in MODELS.items()}
PREVIEWS = preview(joint_models(MODELS))
SEARCH = ("--data", "digits?size=16", "--channels", 4, "--cells", 1, "--recipe", "snas-short", "--child-epochs", 0)
JOINT = "moderate@server, 60%@phone,80%-params"


@pytest.fixture
def tables(tmp_path: Path) -> tuple[object, ...]:
    """The command line's tables of both devices."""
    for name, table in TABLES.items():
        write_table(tmp_path / f"{name}.json", table)
    return ("--table", tmp_path / "phone.json", "--table", tmp_path / "server.json")


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
        texts.append(f"{bound!r}ms@{name}")
    assume(kept.any())
    budget = parse_budget(",".join(texts), PREVIEWS)
    chosen = derive(SPACE, {"cell": log_p}, limits_of(PREVIEWS, budget))
    row = int(np.flatnonzero((CHOICES == encode(SPACE, [chosen])[0]).all(axis=1))[0])
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


def test_targets_are_every_budget_on_every_device_and_joint_ones_once() -> None:
    assert targets_of(["a", "b"], ["4ms@b, 2M-params,3ms@a", "mild", " 1ms@b"]) == [
        (("a",), "mild"),
        (("b",), "mild"),
        (("a", "b"), "4ms@b, 2M-params,3ms@a"),
        (("b",), "1ms@b"),
    ]


def swapped_table() -> LatencyTable:
    """The phone's, but that its slowest operations are the fastest."""
    entries = [entry.model_copy(update={"latency_ms": 0.101 - entry.latency_ms}) for entry in TABLES["phone"].entries]
    return TABLES["phone"].model_copy(update={"entries": entries})


def test_devices_that_cannot_be_met_together_are_named_with_what_can_be_had() -> None:
    models = {"phone": MODELS["phone"], "other": build_cost_models(swapped_table(), SPACE, SIZES)}
    ms = {name: costs["latency_ms"].predict_many(CHOICES) for name, costs in models.items()}
    allowed = connected(SPACE, CHOICES)
    # Where skip_connect is free on both, the cheapest network is the same; limits below it need none to be.
    pairs = np.array([ms["phone"][allowed], ms["other"][allowed]])
    low = pairs.min(axis=1) * 1.0001
    together = (pairs <= low[:, None]).all(axis=0).any()
    text = f"{low[0]!r}ms@phone,{low[1]!r}ms@other"
    previews = preview(joint_models(models))
    if together:
        assert parse_budget(text, previews).devices == ["phone", "other"]
        return
    with pytest.raises(HwnasError, match="contradict each other; within the other") as caught:
        parse_budget(text, previews)
    for number, name in enumerate(("phone", "other")):
        within = pairs[number][pairs[1 - number] <= low[1 - number]].min()
        assert f"latency_ms@{name} goes down to {within:.4g} ms" in str(caught.value)
