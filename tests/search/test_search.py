"""Search: the cost gradient through the real step, the concrete distribution, dual ascent, bit-identical resumption."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from hwnas.budgets.budget import Budget, preview
from hwnas.compute.seeds import Purpose, seed_of
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.errors import HwnasError
from hwnas.recipe import Recipe, read_recipe
from hwnas.search.distribution import DrawContext
from hwnas.search.evaluation import batch_statistics
from hwnas.search.lagrangian import dual_ascent, penalty_of, relative_costs
from hwnas.search.methods.snas import Concrete
from hwnas.search.resources import ResourcePenalty
from hwnas.search.search import Search
from hwnas.spaces import SPACES, SizedSpace, get_space
from hwnas.tables.io import read_table, write_table
from hwnas.training.optimizers import make_optimizer
from support.command import Run, assert_one_clear_line, hwnas_process, profile
from support.noise import assert_timing
from support.searches import DATA, RUN, SMALL_SEARCH, fingerprint, make_search
from support.spaces import SMALL
from support.tables import make_table


def plain_recipe(**changes: object) -> Recipe:
    """Plain SGD of rate 1 on the logits without clipping: their change in a step is minus the gradient."""
    settings = {
        "logits.name": "sgd",
        "logits.lr": 1.0,
        "logits.lr_end": 1.0,
        "logits.momentum": 0.0,
        "logits.clip_norm": 1e9,
        "penalty.mode": "dual",
        "penalty.warm_up": 0.0,
        "penalty.damping": 0.0,
        "logits_warm_up": 0.0,
        "batch_size": 8,
    }
    return read_recipe("snas-short", {**settings, **changes})


def logits_after_a_step(
    name: str, multipliers: list[float], budgets: tuple[str, ...], damping: float
) -> tuple[Search, dict, dict]:
    return a_step(make_search(name, plain_recipe(**{"penalty.damping": damping}), budgets), multipliers)


def a_step(search: Search, multipliers: list[float], closed: float = 0.0) -> tuple[Search, dict, dict]:
    """One step in float64 from random logits; the search, the logits before and after.

    ``closed`` is added to the logit of ``none`` on the first edge of every cell kind.
    """
    search.supernet.double()
    target = search.targets[0]
    for kind, values in target.logits.items():
        generator = torch.Generator().manual_seed(len(kind))
        values.data = torch.randn(values.shape, generator=generator, dtype=torch.float64)
        values.data[0, search.space.operations.index("none")] += closed
    search.targets[0].optimizer.optimizer.param_groups[0]["params"] = target.parameters
    target.multipliers = torch.tensor(multipliers, dtype=torch.float64)
    before = {kind: values.detach().clone() for kind, values in target.logits.items()}
    search.take_step()
    return search, before, {kind: values.detach() for kind, values in target.logits.items()}


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("budget", ["moderate", "moderate,60%-macs,70%-params"])
@pytest.mark.parametrize("damping", [0.0, 2.0])
def test_cost_gradient_through_the_training_step_equals_finite_differences(
    name: str, budget: str, damping: float
) -> None:
    """The change of every logit in a real step with multipliers, less that in the same step without, is minus the
    gradient of the penalty; finite differences of a plain numpy expectation say what it must be.
    """
    multipliers = [0.7, 1.3, 0.4][: budget.count(",") + 1]
    search, before, with_cost = logits_after_a_step(name, multipliers, (budget,), damping)
    _, _, without = logits_after_a_step(name, [0.0] * len(multipliers), (budget,), 0.0)
    limits = search.targets[0].budget.limits

    def penalty(logits: dict[str, np.ndarray]) -> float:
        total = 0.0
        for weight, (metric, bound) in zip(multipliers, limits.items(), strict=True):
            base, edges = search.targets[0].objective.costs[metric].linear()
            p = {k: np.exp(v) / np.exp(v).sum(axis=1, keepdims=True) for k, v in logits.items()}
            excess = (base + sum((p[k] * edges[k]).sum() for k in p)) / bound - 1
            total += (
                (max(0, weight + damping * excess) ** 2 - weight**2) / (2 * damping) if damping else weight * excess
            )
        return total

    start = {kind: values.numpy() for kind, values in before.items()}
    for kind, values in start.items():
        actual = (without[kind] - with_cost[kind]).numpy()
        assert np.abs(actual).max() > 1e-4
        for index in np.ndindex(values.shape):
            step = np.zeros_like(values)
            step[index] = 1e-5
            difference = penalty({**start, kind: values + step}) - penalty({**start, kind: values - step})
            assert actual[index] == pytest.approx(difference / 2e-5, rel=1e-5, abs=1e-9)


RESOURCES = {"params": 0.86, "macs": 0.43 / 4000, "memory_access_bytes": 0.43 / 400}  # of the linear form


def step_with_resources(name: str, form: str, costs_of: str, weight: float) -> tuple[Search, dict, dict]:
    changes = {"mode": "fixed", "weight": weight, "form": form, "resources": tuple(RESOURCES), "costs_of": costs_of}
    recipe = plain_recipe(**{f"penalty.{key}": value for key, value in changes.items()})
    return a_step(make_search(name, recipe), [0.0], closed=20.0)


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("form", ["log", "linear"])
@pytest.mark.parametrize("costs_of", ["probabilities", "sample"])
def test_resource_gradient_through_the_training_step_equals_finite_differences(
    name: str, form: str, costs_of: str
) -> None:
    """SNAS's own penalty, written down again in numpy from the released code's formulas, where one edge is closed and
    the logarithm's clamp cuts its pull: its finite differences are what it adds to a real step.
    """
    weight = 0.3 if form == "log" else 1e-3
    search, before, with_cost = step_with_resources(name, form, costs_of, weight)
    _, _, without = step_with_resources(name, form, costs_of, 0.0)
    network = SizedSpace(search.space, SMALL[name]).network
    generator = torch.Generator().manual_seed(seed_of(search.recipe.seed, Purpose.WEIGHTS_DRAW, 0))
    uniform = {k: torch.rand(v.shape, generator=generator).double().numpy() for k, v in before.items()}
    temperature = search.recipe.temperature.start

    def penalty(logits: dict[str, np.ndarray]) -> tuple[float, int]:
        total, clamped = 0.0, 0
        for kind, values in logits.items():
            scores = (values - np.log(-np.log(uniform[kind]))) / temperature if costs_of == "sample" else values
            w = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
            for metric in RESOURCES:
                model = search.targets[0].objective.costs[metric]
                assert isinstance(model, CostModel)
                _, edges = model.linear()
                r = (w * edges[kind] / len(network.places(kind))).sum(axis=1)
                clamped += int((r < 1).sum())
                if form == "log":
                    total += np.log(np.maximum(r / (4 if metric == "memory_access_bytes" else 1), 1)).sum() / 3
                else:
                    total += RESOURCES[metric] * r.sum()
        return weight * total, clamped

    start = {kind: values.numpy() for kind, values in before.items()}
    assert penalty(start)[1] > 0
    for kind, values in start.items():
        actual = (without[kind] - with_cost[kind]).numpy()
        assert np.abs(actual).max() > 1e-4
        for index in np.ndindex(values.shape):
            step = np.zeros_like(values)
            step[index] = 1e-5
            difference = penalty({**start, kind: values + step})[0] - penalty({**start, kind: values - step})[0]
            assert actual[index] == pytest.approx(difference / 2e-5, rel=1e-4, abs=1e-8)


def test_resource_penalty_is_that_of_the_released_code() -> None:
    """With the released code's own costs of two edges (operations.py: 16 channels at 32x32) and its values by hand."""
    ops = {"none": (0, 0, 0), "sep_conv_3x3": (800, 819_200, 131_872), "avg_pool_3x3": (0, 147_456, 32_768)}
    assert ops["sep_conv_3x3"][0] == 2 * 16 * 9 + 2 * 16 * 16
    assert ops["sep_conv_3x3"][2] == 32 * 32 * (7 * 16 + 16) + 800
    edges = np.array([list(ops.values())] * 2, dtype=float)  # [E, K, resource]
    two = 2  # cells of the kind

    @dataclass
    class Linear:
        edges: np.ndarray

        def linear(self) -> tuple[float, dict[str, np.ndarray]]:
            return 5e9, {"normal": self.edges}

    names = ("params", "macs", "memory_access_bytes")
    costs = {m: Linear(edges[:, :, i] * two * (4 if i == 2 else 1)) for i, m in enumerate(names)}
    w = {"normal": torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], dtype=torch.float64)}
    log = ResourcePenalty(costs, {"normal": two}, "log", names)(w)  # type: ignore[arg-type]
    pool_only = (np.log(147_456) + np.log(32_768)) / 3  # its parameters are 0 and clamped
    mixed = (np.log(200) + np.log(204_800 + 36_864) + np.log(32_968 + 8192)) / 3
    assert log.item() == pytest.approx(mixed + pool_only)
    linear = ResourcePenalty(costs, {"normal": two}, "linear", names)(w)  # type: ignore[arg-type]
    by_hand = 0.43 * (2 * 200 + (204_800 + 36_864 + 147_456) / 4000 + (32_968 + 8192 + 32_768) / 100)
    assert linear.item() == pytest.approx(by_hand)


def test_the_paper_s_penalty_pulls_without_regard_to_the_budget() -> None:
    """It changes the logits of a step alike under any budget, and no multiplier of a limit is at work."""
    changes = {"mode": "fixed", "weight": 0.1, "form": "log", "resources": tuple(RESOURCES)}
    recipe = plain_recipe(**{f"penalty.{key}": value for key, value in changes.items()})
    moved = []
    for budget in ("mild", "aggressive"):
        search = make_search("nasbench201", recipe, (budget,))
        for _ in range(2):
            search.take_step()
        assert search.targets[0].multipliers.tolist() == [0.0]
        moved.append(search.targets[0].logits["cell"].detach())
    assert torch.equal(*moved)
    (row,) = search.epoch_report()
    assert row.resource_penalty > 0
    assert "resource penalty" in row.describe()


@pytest.mark.parametrize("name", sorted(SPACES))
def test_task_gradient_of_the_logits_equals_finite_differences(name: str) -> None:
    search = make_search(name, plain_recipe())
    search.supernet.double()
    target = search.targets[0]
    for values in target.logits.values():
        values.data = values.data.double()
    with batch_statistics(search.supernet):
        loss, _ = search.current_step.loss(target)
        loss.backward()
        for values in target.logits.values():
            for index in [(0, 1), (2, 3), (5, 2)]:
                gradient = float(values.grad[index])  # type: ignore[index]
                both = []
                for sign in (1, -1):
                    with torch.no_grad():
                        values[index] += sign * 1e-5
                        both.append(float(search.current_step.loss(target)[0]))
                        values[index] -= sign * 1e-5
                assert gradient == pytest.approx((both[0] - both[1]) / 2e-5, rel=1e-3, abs=1e-7)


def test_concrete_samples_choose_as_often_as_the_probabilities_say() -> None:
    """The most likely entry of a concrete sample is distributed as softmax(logits) (Maddison et al. 2017, prop. 1)."""
    from scipy.stats import chisquare

    concrete = Concrete(SPACES["nasbench201"], read_recipe("snas-short", {}), torch.Generator())
    concrete.logits["cell"] = torch.nn.Parameter(torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5]]).repeat(20_000, 1))
    concrete.allowed_cell = concrete.allowed_cell[:1].expand(20_000, -1)
    sample = concrete.draw(DrawContext(torch.Generator().manual_seed(0), 0.5)).mixture["cell"].detach()
    torch.testing.assert_close(sample.sum(dim=1), torch.ones(20_000))
    counts = torch.bincount(sample.argmax(dim=1), minlength=5).numpy()
    expected = torch.softmax(concrete.logits["cell"][0].detach(), dim=0).double().numpy()
    assert chisquare(counts, expected / expected.sum() * counts.sum()).pvalue > 1e-3
    cold = concrete.draw(DrawContext(torch.Generator().manual_seed(0), 0.01)).mixture["cell"]
    assert float((cold.max(dim=1).values > 0.99).float().mean()) > 0.95


def test_temperature_is_linear_in_the_epoch() -> None:
    search = make_search("nasbench201", read_recipe("snas-short", {"epochs": 4, "batch_size": 1078}))
    temperatures = []
    for epoch in range(4):
        search.step = epoch * search.schedule.steps_per_epoch
        temperatures.append(search.current_step.draw_context(Purpose.WEIGHTS_DRAW).temperature)
    assert temperatures == pytest.approx([1.0, 0.7, 0.4, 0.1])


def test_multipliers_rise_over_and_fall_within_the_budget() -> None:
    multipliers = torch.tensor([0.5, 0.01], dtype=torch.float64)
    moved = dual_ascent(multipliers, torch.tensor([1.5, 0.5]), rate=0.1)
    assert moved.tolist() == pytest.approx([0.51, 0.0])  # what is far over counts as a tenth over


def test_dual_ascent_alone_brings_expected_cost_to_the_budget() -> None:
    """A task that always wants the same operation more; E[C] must settle at the budget."""
    space, sizes = get_space("nasbench201"), SMALL["nasbench201"]
    model = build_cost_models(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))["latency_ms"]
    bound = preview({"latency_ms": model})["latency_ms"].percentile(25)
    logits = torch.zeros(6, 5, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.05)
    multiplier, cost = torch.zeros(1, dtype=torch.float64), ExpectedCost(model)
    history = []
    for _ in range(1500):
        relative = cost({"cell": logits.softmax(-1)}).reshape(1) / bound
        loss = -0.5 * logits.softmax(-1)[:, 3].mean() + penalty_of(multiplier, relative, damping=2.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        multiplier = dual_ascent(multiplier, relative, 0.01)
        history.append(float(relative.detach()))
    assert history[0] > 1.2  # where it starts, the budget is broken
    assert np.array(history[-300:]) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("pull", [0.5, 3.0])
@pytest.mark.parametrize(
    ("shipped", "steps", "share"),
    [
        *(("snas-short", 440, share) for share in (0.3, 0.5, 0.7, 0.95)),
        ("snas-hour", 1000, 0.3),
        ("snas-hour", 1000, 0.95),
    ],
)
def test_dual_ascent_brings_expected_cost_to_the_budget(
    name: str, pull: float, shipped: str, steps: int, share: float
) -> None:
    """Whatever part of the way from the least to the greatest latency the budget is, and however hard the task pulls.
    Every one of these budgets binds.
    """
    assert 0.95 < constrained(name, share, pull, shipped, steps) < 1.05


@pytest.mark.parametrize("name", sorted(SPACES))
@pytest.mark.parametrize("pull", [0.5, 3.0])
def test_lambda_does_not_wind_up_where_the_logits_are_slow(name: str, pull: float) -> None:
    """A tight budget and few steps: for half of them E[C] is far over."""
    assert 0.75 < constrained(name, 0.1, pull, "snas-short", 54) < 1.1


def constrained(name: str, share: float, pull: float, shipped: str, steps: int) -> float:
    """E[C] / B at the end, on a noisy task that gains from every dearer operation, by a recipe's settings.
    The budget is ``share`` of the way from the least to the greatest latency.
    """
    seed = 0
    space, sizes, recipe = SPACES[name], SMALL[name], read_recipe(shipped, {})
    model = build_cost_models(make_table(SizedSpace(space, sizes), seed), SizedSpace(space, sizes))["latency_ms"]
    spread = preview({"latency_ms": model})["latency_ms"]
    bound = spread.least + share * (spread.greatest - spread.least)
    generator = torch.Generator().manual_seed(seed)
    concrete = Concrete(space, recipe, generator)
    optimizer = make_optimizer(recipe.logits, concrete.parameters())
    multiplier, costs = torch.zeros(1, dtype=torch.float64), {"latency_ms": ExpectedCost(model)}
    penalty, history = recipe.penalty, []
    rate = penalty.total_rate / ((1 - penalty.warm_up) * steps)
    worth = {kind: torch.from_numpy(edges / edges.max()).float() for kind, edges in model.linear()[1].items()}
    for step in range(steps):
        start, end = recipe.temperature.start, recipe.temperature.end
        sample = concrete.draw(DrawContext(generator, start + (end - start) * step / (steps - 1))).mixture
        noisy = {kind: w + 0.1 * torch.randn(w.shape, generator=generator) for kind, w in worth.items()}
        task = -pull * torch.stack([(sample[kind] * noisy[kind]).sum() / len(worth[kind]) for kind in worth]).sum()
        relative = relative_costs(concrete.probabilities(), costs, {"latency_ms": bound})
        constrains = step >= penalty.warm_up * steps
        optimizer.zero_grad()
        (task + penalty_of(multiplier, relative, penalty.damping if constrains else 0.0)).backward()
        torch.nn.utils.clip_grad_norm_(concrete.parameters(), recipe.logits.clip_norm)
        if step >= recipe.logits_warm_up * steps:
            optimizer.step()
        if constrains:
            multiplier = dual_ascent(multiplier, relative, rate)
        history.append(relative.item())
    return float(np.mean(history[-max(steps // 20, 5) :]))


def test_fixed_lambda_stays_and_dual_lambda_moves() -> None:
    fixed = make_search("nasbench201", plain_recipe(**{"penalty.mode": "fixed", "penalty.weight": 0.5}))
    dual = make_search("nasbench201", read_recipe("snas-short", {"batch_size": 8, "penalty.warm_up": 0.0}), ("30%",))
    for _ in range(3):
        fixed.take_step()
        dual.take_step()
    assert fixed.targets[0].multipliers.tolist() == [0.5]
    assert dual.targets[0].multipliers.tolist() != [0.0]


def test_lambda_rises_as_far_in_a_short_search_and_in_one_with_many_targets() -> None:
    """By the rate over a whole search in which E[C] stays at twice the budget, whoever takes how many turns."""
    for epochs, budgets in ((4, ("mild",)), (9, ("mild", "moderate", "aggressive"))):
        changes = {"batch_size": 256, "epochs": epochs, "penalty.warm_up": 0.3, "penalty.total_rate": 7.0}
        search = make_search("nasbench201", read_recipe("snas-short", changes), budgets)
        own_steps = sum(
            search.schedule.constrains(step // search.schedule.steps_per_epoch)
            for step in range(0, search.schedule.total_steps, len(budgets))
        )  # fmt: skip
        assert own_steps * search.schedule.dual_rate == pytest.approx(7.0, rel=0.2)


def test_several_budgets_take_turns_and_share_the_weights() -> None:
    recipe = read_recipe("snas-short", {"batch_size": 8, "logits_warm_up": 0.0})
    search = make_search("nasbench201", recipe, ("mild", "aggressive"))
    first, second = ({k: v.detach().clone() for k, v in t.logits.items()} for t in search.targets)
    search.take_step()
    assert not torch.equal(search.targets[0].logits["cell"], first["cell"])
    assert torch.equal(search.targets[1].logits["cell"], second["cell"])
    search.take_step()
    assert not torch.equal(search.targets[1].logits["cell"], second["cell"])


def test_logits_wait_for_the_weights() -> None:
    recipe = read_recipe("snas-short", {"batch_size": 539, "epochs": 4, "logits_warm_up": 0.5})
    search = make_search("nasbench201", recipe)
    assert search.schedule.steps_per_epoch == 2
    start = search.targets[0].logits["cell"].detach().clone()
    weights = [p.detach().clone() for p in search.supernet.parameters()]
    for _ in range(4):
        search.take_step()
        assert torch.equal(search.targets[0].logits["cell"], start)
    assert not all(torch.equal(a, b) for a, b in zip(weights, search.supernet.parameters(), strict=True))
    search.take_step()
    assert not torch.equal(search.targets[0].logits["cell"], start)


def test_validation_changes_nothing_in_the_supernet() -> None:
    search = make_search("nasbench201", read_recipe("snas-short", {"batch_size": 8}))
    search.take_step()
    before = {k: v.clone() for k, v in search.supernet.state_dict().items()}
    search.validate(search.choose(search.targets[0]))
    assert all(torch.equal(v, before[k]) for k, v in search.supernet.state_dict().items())


def test_a_search_never_reads_the_test_images() -> None:
    def forbidden() -> None:
        raise AssertionError("the search read the test images")

    recipe = read_recipe("snas-short", {"batch_size": 256, "epochs": 1})
    data = type(DATA)(DATA.name, DATA.labels, DATA.train, DATA.validation, forbidden, DATA.flip)  # type: ignore[arg-type]
    search = make_search("nasbench201", recipe, data=data)
    while search.step < search.schedule.total_steps:
        search.take_step()
    assert search.epoch_report()[0].validation_accuracy > 0


def test_a_loss_that_is_not_finite_stops_the_search() -> None:
    search = make_search("nasbench201", read_recipe("snas-short", {"batch_size": 8}))
    with torch.no_grad():
        next(search.supernet.parameters()).fill_(float("nan"))
    with pytest.raises(HwnasError, match="loss became nan"):
        search.take_step()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": -1}, "epochs"),
        ({"weights.lr": float("nan")}, "weights.lr"),
        ({"penalty.mode": "hope"}, "penalty.mode"),
        ({"surprise": 1}, "surprise"),
        ({"penalty.rate": 0.01}, "penalty.rate"),  # a step's, as it once was, is not total_rate
        ({"penalty.form": "log", "penalty.resources": ["macs"]}, "log needs mode fixed"),
        ({"penalty.form": "log", "penalty.mode": "fixed"}, "log needs resources"),
        ({"penalty.resources": ["macs"]}, "need form log or linear"),
        ({"penalty.form": "linear", "penalty.mode": "fixed", "penalty.resources": ["macs", "macs"]}, "twice"),
    ],
)
def test_bad_recipes_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        read_recipe("snas-short", changes)


def test_every_shipped_recipe_reads() -> None:
    from hwnas.files import shipped

    names = [file.stem for file in (shipped("configs") / "search").glob("*.yaml")]
    assert {"snas", "snas-short", "snas-hour"} <= set(names)
    paper = read_recipe("snas", {})
    assert (paper.epochs, paper.batch_size, paper.weights.lr, paper.temperature.end) == (150, 64, 0.025, 0.03)
    penalty = read_recipe("snas-paper", {}).penalty
    assert (penalty.mode, penalty.weight, penalty.form, len(penalty.resources)) == ("fixed", 1.5e-3, "log", 3)
    for name in names:
        assert read_recipe(name, {}).inputs_per_node is None


@pytest.mark.end_to_end
def test_search_killed_again_and_again_ends_bit_identical(tmp_path: Path, table_file: Path) -> None:
    def arguments(out: Path) -> tuple[object, ...]:
        return ("search", "--table", table_file, *SMALL_SEARCH, *RUN, "--out", out)

    whole = hwnas_process(*arguments(tmp_path / "whole"))
    output = whole.communicate()[0]
    assert whole.returncode == 0, output
    killed, out = 0, tmp_path / "killed"
    moments = [("checkpoint.pt", 0.05), ("checkpoint.pt", 0.6), ("mild/train.pt", 0.1)]
    for file, delay in moments:
        process = hwnas_process(*arguments(out))
        while process.poll() is None and not (out / file).exists():
            time.sleep(0.005)
        time.sleep(delay)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 2
    last = hwnas_process(*arguments(out))
    output = last.communicate()[0]
    assert last.returncode == 0, output
    assert fingerprint(out) == fingerprint(tmp_path / "whole")
    summary = json.loads((out / "summary.json").read_text())["targets"]
    assert [row["budget"] for row in summary] == ["mild", "aggressive,80%-params"]


@pytest.mark.end_to_end
def test_a_finished_search_can_be_verified_trained_and_evaluated(run: Run, tmp_path: Path) -> None:
    table, out = tmp_path / "cpu.json", tmp_path / "run"
    sizes = ("--channels", 4, "--cells", 1, "--input", "3x16x16")
    quick = ("--rounds", 24, "--fit-networks", 4, "--report-networks", 4)
    profile(run, *sizes, *quick, "--out", table)
    arguments = ("search", "--table", table, *SMALL_SEARCH, "--epochs", 2, "--child-epochs", 3, "--budget", "90%")
    result = run(*arguments, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    assert row["predicted_ms"] <= row["budget_ms"]
    assert row["parity"]["same_class"] == 1.0
    place = out / "90pct"
    assert sorted(f.name for f in place.iterdir() if f.is_file()) == [
        "architecture.json", "derivations.json", "network.onnx", "train.pt", "training.jsonl", "weights.safetensors",
    ]  # fmt: skip
    content = json.loads((place / "architecture.json").read_text())
    assert content["table_sha256"] == read_table(table).sha256
    assert content["costs"]["latency_ms"] <= content["budget"]["limits"]["latency_ms"]

    verified = run("verify", out, "--json")
    (measured,) = json.loads(verified.stdout)["targets"]
    assert verified.exit_code == (0 if measured["kept"] else 1)
    assert_timing(0.3 < measured["measured_ms"] / row["predicted_ms"] < 3, read_table(table))

    before = json.loads(run("evaluate", place, "--json").stdout)["targets"][0]
    assert before["onnx_accuracy"] == pytest.approx(before["torch_accuracy"], abs=0.003)
    trained = run("train", out, "--epochs", 6, "--json")
    assert trained.exit_code == 0, trained.output
    after = json.loads(run("evaluate", out, "--json").stdout)["targets"][0]
    assert after["onnx_accuracy"] > max(before["onnx_accuracy"], 0.3)

    # A budget that the network cannot keep, written into the finished run, is found broken.
    content["budget"]["limits"]["latency_ms"] = measured["measured_ms"] / 10
    (place / "architecture.json").write_text(json.dumps(content))
    broken = run("verify", place)
    assert broken.exit_code == 1
    assert "NO" in broken.stdout


@pytest.mark.end_to_end
def test_one_search_serves_several_devices(run: Run, tmp_path: Path) -> None:
    """Two tables, two budgets: four networks from one supernet, each within its budget by its own table."""
    space, sizes = SPACES["nasbench201"], SMALL["nasbench201"]
    tables = {name: make_table(SizedSpace(space, sizes), seed) for seed, name in enumerate(("phone", "server"))}
    for name, table in tables.items():
        write_table(tmp_path / f"{name}.json", table)
    out, base = tmp_path / "run", ("search", "--table", tmp_path / "phone.json", *SMALL_SEARCH, "--child-epochs", 0)
    both = (*base, "--table", tmp_path / "server.json", "--epochs", 2, "--budget", "moderate", "--budget", "60%")
    result = run(*both, "--out", out)
    assert result.exit_code == 0, result.output
    assert "server 60%" in result.stdout
    rows = json.loads((out / "summary.json").read_text())["targets"]
    goals = [("phone", "moderate"), ("phone", "60%"), ("server", "moderate"), ("server", "60%")]
    assert [(row["device"], row["budget"]) for row in rows] == goals
    for row in rows:
        model = build_cost_models(tables[row["device"]], SizedSpace(space, sizes))["latency_ms"]
        assert row["predicted_ms"] == pytest.approx(model.predict(space.parse(row["architecture"])))
        assert row["predicted_ms"] <= row["budget_ms"]
    assert read_table(out / "tables" / "server.json") == read_table(tmp_path / "server.json")
    assert (out / "server_60pct" / "network.onnx").exists()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [(line["device"], line["budget"]) for line in lines] == goals * 2
    evaluated = json.loads(run("evaluate", out, "--json").stdout)["targets"]
    assert [(row["device"], row["budget"]) for row in evaluated] == goals
    assert json.loads(run("evaluate", out / "phone_moderate", "--json").stdout)["targets"] == evaluated[:1]
    assert_one_clear_line(run("verify", out, "--device", "cpu"), "several devices", "phone, server")
    assert_one_clear_line(run("derive", out), "several devices", "folder of one network")
    derived = json.loads(run("derive", out / "server_60pct", "--json").stdout)["targets"]
    assert [t["architectures"][0]["architecture"] for t in derived] == [rows[3]["architecture"]]
    assert_one_clear_line(run("verify", out), "which is not this machine")
    twice = (*base, "--table", tmp_path / "phone.json", "--out", tmp_path / "other")
    assert_one_clear_line(run(*twice), "same file name")
    write_table(tmp_path / "darts.json", make_table(SizedSpace(SPACES["darts"], SMALL["darts"])))
    apart = (*base, "--table", tmp_path / "darts.json", "--space", "nasbench201", "--out", tmp_path / "other")
    assert_one_clear_line(run(*apart), "lacks")
    assert not (tmp_path / "other").exists()


@pytest.mark.end_to_end
def test_a_darts_search_writes_both_cells_and_counts_what_it_ships(run: Run, tmp_path: Path) -> None:
    write_table(tmp_path / "darts.json", make_table(SizedSpace(SPACES["darts"], SMALL["darts"])))
    arguments = ("--space", "darts", "--data", "digits?size=16", "--channels", 4, "--layers", 3)
    small = ("--recipe", "snas-short", "--epochs", 1, "--child-epochs", 1, "--batch-size", 256, "--budget", "90%")
    result = run("search", "--table", tmp_path / "darts.json", *arguments, *small, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    place = tmp_path / "run" / "90pct"
    assert sorted(f.name for f in (place / "cells").iterdir()) == ["normal.onnx", "reduce.onnx"]
    content = json.loads((place / "architecture.json").read_text())
    assert content["architecture"].count("(") - 3 == 28  # all edges, none among them
    sizes = ("--space", "darts", "--setting", "search", "--channels", 4, "--layers", 3)
    counted = run("space", "count", *sizes, "--architecture", content["architecture"], "--json")
    assert json.loads(counted.stdout)["params"] == content["costs"]["params"]
    shipped = load_file(place / "weights.safetensors")
    learnt = sum(t.numel() for n, t in shipped.items() if "running" not in n and "num_batches" not in n)
    assert learnt <= content["costs"]["params"]


@pytest.mark.end_to_end
def test_a_network_for_the_browser_is_written_as_its_runtime_likes_it(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(SPACES["nasbench201"], SMALL["nasbench201"]))
    web = table.runtime.model_copy(update={"name": "onnxruntime-web"})
    write_table(tmp_path / "web.json", table.model_copy(update={"runtime": web}))
    base = ("search", "--table", tmp_path / "web.json", *SMALL_SEARCH, "--epochs", 1, "--child-epochs", 0)
    result = run(*base, "--budget", "90%", "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    assert row["parity"]["same_class"] == 1.0
    operations = [node.op_type for node in onnx.load(row["onnx"]).graph.node]
    assert "Max" in operations


def test_search_refuses_what_does_not_fit(run: Run, tmp_path: Path, table_file: Path) -> None:
    base = ("search", "--table", table_file, *SMALL_SEARCH, "--out", tmp_path / "run")
    assert_one_clear_line(run(*base, "--space", "darts"), "lacks", "hwnas profile --space darts")
    assert_one_clear_line(run(*base, "--budget", "0.00001ms"), "cannot be met", "between")
    assert_one_clear_line(run(*base, "--budget", "mild", "--budget", "mild"), "same")
    assert_one_clear_line(run(*base, "--method", "luck"), "luck")
    assert_one_clear_line(run(*base, "--recipe", "cake"), "cake", "snas-short")
    assert_one_clear_line(run("search", "--table", tmp_path / "no.json", "--out", tmp_path / "run"), "no.json")
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").write_text("")
    assert_one_clear_line(run(*base[:-1], tmp_path / "file" / "run"), "cannot write", "--out")
    profile = ("profile", "--channels", 4, "--cells", 1, "--out", tmp_path / "file" / "t.json")
    assert_one_clear_line(run(*profile), "cannot write|file", "--out")


def test_folders_of_other_runs_and_damaged_checkpoints_are_refused(run: Run, tmp_path: Path, table_file: Path) -> None:
    out = tmp_path / "run"
    base = ("search", "--table", table_file, *SMALL_SEARCH, "--epochs", 1, "--child-epochs", 0, "--out", out)
    assert run(*base).exit_code == 0
    assert_one_clear_line(run(*base, "--seed", 3), "other settings", "--out")
    checkpoint = out / "checkpoint.pt"
    whole = checkpoint.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"PK nonsense"):
        checkpoint.write_bytes(damaged)
        assert_one_clear_line(run(*base), "checkpoint.pt", "rm ")
    checkpoint.write_bytes(whole)
    weights = out / "moderate" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert_one_clear_line(run("train", out, "--epochs", 1), "weights.safetensors")
    (out / "moderate" / "network.onnx").write_bytes(b"nothing")
    assert_one_clear_line(run("evaluate", out), "network.onnx")
    assert_one_clear_line(run("verify", tmp_path), "no finished search")
    assert_one_clear_line(run("evaluate", out, "--split", "all"), "all")


def test_budgets_in_the_search_module_are_the_ones_given() -> None:
    assert Budget("4.5ms,2M-params", {}).name == "4.5ms_2M-params"
