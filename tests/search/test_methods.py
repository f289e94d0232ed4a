"""Whole methods: recipes, budgets, selection, collapse to skip_connect, plug-ins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hwnas.budgets.budget import Budget
from hwnas.budgets.derive import cheapest, follows_rules
from hwnas.compute.seeds import Purpose
from hwnas.cost.build import build_metrics
from hwnas.data import load_data
from hwnas.errors import HwnasError
from hwnas.recipe import known_recipes, read_recipe, recipe_of
from hwnas.search.choices import CHOICES
from hwnas.search.epoch_row import EpochRow
from hwnas.search.evaluation import batch_statistics
from hwnas.search.methods import CHAIN_METHODS, METHODS
from hwnas.search.objective import Objective
from hwnas.search.resume import run_to_end
from hwnas.search.search import Search
from hwnas.search.step import Step
from hwnas.search.target import TargetState
from hwnas.spaces import SPACES, Architecture, SizedSpace
from hwnas.spaces.encoding import every_choice
from hwnas.training.evaluation import accuracy
from hwnas.training.quality import Quality
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.searches import COSTS, FEW, PREVIEWS, chain_searching, searching, unlike
from support.spaces import SMALL
from support.tables import make_table
from support.text import text_searching

POOL = ("enas", "random", "single-path", "balenas-tf", "svge")  # these take one of the architectures they judged
FEW_SCORED = {
    "enas": "selection: {name: best_of, samples: 8}",
    "random": "selection: {name: best_of, samples: 8}",
    "balenas-tf": "selection: {name: untrained, samples: 8}",
    "single-path": "selection: {name: evolution, population: 4, generations: 2, parents: 2}",
    "svge": "selection: {name: latent, evaluations: 6, start: 3, batch: 3}\n"
    "autoencoder: {width: 4, latent: 3, graphs: 200, epochs: 1}",
}
FEW_GRAPHS = {"width": 4, "latent": 3, "graphs": 200, "epochs": 1}


@pytest.mark.slow
@pytest.mark.parametrize("name", known_recipes())
def test_every_recipe_builds(name: str) -> None:
    space = name.split("/")[0] if name.startswith("darts") else "nasbench201"
    if name.startswith("recurrent"):
        search = text_searching(name.split("/")[0], name)
    else:
        search = chain_searching(name) if name.startswith("chain/") else searching(space, name)
    assert search.recipe.method in (CHAIN_METHODS if name == "chain/bignas" else METHODS)
    method = name.split("/")[-1]
    assert search.recipe.method == (method if "/" in name else "snas")


def test_every_method_has_a_recipe_for_every_space() -> None:
    for folder in ("darts", "darts-extended", "nasbench201", "short"):
        assert {n.split("/")[1] for n in known_recipes() if n.startswith(f"{folder}/")} == set(METHODS)
    assert recipe_of("drnas", "nasbench201", "digits?size=16") == "short/drnas"
    assert recipe_of("drnas", "nasbench201", "cifar10:images") == "nasbench201/drnas"
    assert recipe_of("drnas", "darts", "digits") == "darts/drnas"


# The command line.


@pytest.mark.end_to_end
@pytest.mark.parametrize("method", METHODS)
def test_a_method_keeps_a_budget_by_the_command_line(run: Run, tmp_path: Path, table_file: Path, method: str) -> None:
    """The budget is met by a quarter of the architectures; the cost model of the table confirms the result."""
    small = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1)
    quick = ("--epochs", 2, "--child-epochs", 0, "--batch-size", 32, "--budget", "aggressive")
    out, recipe = tmp_path / "run", tmp_path / "few.yaml"
    recipe.write_text(f"base: short/{method}\n{FEW_SCORED.get(method, '')}\n")  # to score few architectures
    base = ("search", "--table", table_file, *small, "--method", method, "--recipe", recipe)
    result = run(*base, *quick, "--out", out, "--json")
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["targets"]
    model = COSTS["nasbench201"]["latency_ms"]
    architecture = SPACES["nasbench201"].parse(row["architecture"])
    assert model.predict(architecture) == pytest.approx(row["predicted_ms"])
    assert row["predicted_ms"] <= PREVIEWS["nasbench201"]["latency_ms"].percentile(25)
    assert json.loads((out / "manifest.json").read_text())["recipe"]["method"] == method
    if method in POOL:
        assert_one_clear_line(run("derive", out), f"method {method}", "by score, not by probability")
    else:
        derived = json.loads(run("derive", out, "--json").stdout)["targets"]
        assert derived[0]["architectures"][0]["architecture"] == row["architecture"]


# The extended DARTS space.


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_keeps_a_budget_in_the_extended_darts_space(method: str) -> None:
    """The architecture after a step is one of the space: no node is empty, and some have another number than two."""
    few = yaml.safe_load(FEW_SCORED.get(method, "{}"))
    learning = {
        "enas": {"learning": {"name": "reinforce", "samples": 2, "every": 1}},
        "zarts": {"learning": {"name": "zero_order", "samples": 2, "steps": 1, "every": 1}},
    }.get(method, {})
    search = searching("darts-extended", f"darts-extended/{method}", "moderate", batch_size=8, **few, **learning)
    search.take_step()
    (target,) = search.targets
    chosen = search.evaluator.choose(target)
    assert SPACES["darts-extended"].architecture(chosen.cells) == chosen
    assert all(model.predict(chosen) <= bound for model, bound in target.limits.values())
    cells = zip(search.space.cells.values(), chosen.cells, strict=True)
    used = [sum(chosen[e] != "none" for e in cell.edges_into(n)) for cell, chosen in cells for n in cell.inner_nodes]
    assert min(used) >= 1
    assert set(used) != {2}


# Selection.


TIGHT = "memory_access_bytes"  # edges that lead nowhere cost it, too: few architectures have the least


def tight(space: str) -> Budget:
    """Return a budget at the cost of the cheapest architecture, which random draws hardly ever meet."""
    model = COSTS[space][TIGHT]
    least = cheapest(model, inputs_per_node=2 if space == "darts" else None)
    return Budget("tight", {TIGHT: model.predict(least) * (1 + 1e-12)})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space", "selection"),
    [
        ("nasbench201", {"name": "best_of", "samples": 3}),
        ("nasbench201", {"name": "evolution", "population": 2, "generations": 2, "parents": 2}),
        ("nasbench201", {"name": "latent", "evaluations": 4, "start": 2, "batch": 2}),
        ("darts", {"name": "best_of", "samples": 2}),
    ],
)
def test_scored_architectures_meet_limits_that_no_random_draw_meets(
    monkeypatch: pytest.MonkeyPatch, space: str, selection: dict
) -> None:
    monkeypatch.setattr("hwnas.search.selection.TRIES", 20)
    monkeypatch.setattr("hwnas.search.methods.evolution.TRIES", 20)
    monkeypatch.setattr("hwnas.search.methods.svge.TRIES", 20)
    budget = tight(space)
    search = searching(space, f"{space}/random", budget, selection=selection, autoencoder=FEW_GRAPHS)
    target, model = search.targets[0], COSTS[space][TIGHT]
    if space == "nasbench201":
        choices = every_choice(SPACES[space])
        within = (model.predict_many(choices) <= budget.limits[TIGHT]) & follows_rules(SPACES[space], choices, None)
        assert 0 < within.sum() < 20
    chosen = search.evaluator.choose(target)
    for architecture in [chosen, search.evaluator.current_best(target), *target.scores]:
        assert model.predict(architecture) <= budget.limits[TIGHT]
    assert chosen in target.scores
    assert search.evaluator.propose(target, target.limits, list(target.scores)) is None
    nothing = Budget("none", {"latency_ms": 1e-9})
    with pytest.raises(HwnasError, match="keeps latency_ms <="):
        searching(space, f"{space}/random", nothing, selection=selection, autoencoder=FEW_GRAPHS)


def test_the_best_score_is_selected_and_no_architecture_is_scored_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a synthetic accuracy, evolution finds a better architecture within the budget than random draws."""
    rank = {op: n for n, op in enumerate(SPACES["nasbench201"].operations)}
    seen: list[Architecture] = []

    def worth(architecture: Architecture) -> float:
        return (1 + sum(rank[op] for op in architecture.cells[0])) / 30

    def quality(architecture: Architecture) -> Quality:
        seen.append(architecture)
        return Quality(worth(architecture))

    found = {}
    for name, selection in {
        "evolution": {"name": "evolution", "population": 20, "generations": 6, "parents": 5},
        "best_of": {"name": "best_of", "samples": 100},
    }.items():
        search = searching("nasbench201", "short/random", "mild", selection=selection)
        monkeypatch.setattr(search.evaluator, "quality", quality)
        seen.clear()
        chosen, target = search.evaluator.choose(search.targets[0]), search.targets[0]
        assert len(seen) == len(set(seen)) == len(target.scores)
        assert worth(chosen) == max(map(worth, seen))
        assert (
            max(COSTS["nasbench201"]["latency_ms"].predict(a) for a in target.scores)
            <= target.budget.limits["latency_ms"]
        )
        found[name] = worth(chosen)
    assert found["evolution"] >= found["best_of"]


def test_evolution_does_not_depend_on_the_hashes_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """String hashes differ between processes; with many ties, so would an order that came from a set."""

    def scored() -> list[Architecture]:
        selection = {"name": "evolution", "population": 12, "generations": 3, "parents": 4}
        search = searching("nasbench201", "short/random", "mild", selection=selection)
        monkeypatch.setattr(search.evaluator, "quality", lambda architecture: Quality(0.5))
        search.evaluator.choose(search.targets[0])
        return list(search.targets[0].scores)

    first = scored()
    monkeypatch.setattr(Architecture, "__hash__", lambda self: hash(str(self.cells)[::-1]))
    assert scored() == first


def test_running_statistics_give_other_accuracies_and_change_nothing() -> None:
    found = {}
    for way in ("batch", "running"):
        search = searching("nasbench201", "short/random", judged_with=way, epochs=2)
        for _ in range(search.schedule.total_steps):
            search.take_step()
        before = {k: v.clone() for k, v in search.supernet.state_dict().items()}
        rest = "|nor_conv_3x3~0|+|nor_conv_3x3~0|{0}~1|+|skip_connect~0|{0}~1|nor_conv_1x1~2|"
        texts = [rest.replace("{0}", op) for op in search.space.operations]
        found[way] = [search.evaluator.validate(search.space.parse(text)) for text in texts]
        assert unlike(before, search.supernet.state_dict()) == []
        assert search.supernet.training
        first = search.space.parse("|none~0|+|skip_connect~0|none~1|+|nor_conv_3x3~0|none~1|nor_conv_3x3~2|")
        search.supernet.eval() if way == "running" else search.supernet.train()
        with torch.no_grad():
            images = FEW.normalise(FEW.validation.images)
            right = (search.supernet.run_architecture(images, first).argmax(dim=1) == FEW.validation.targets).float()
        search.supernet.train()
        assert search.evaluator.validate(first) == pytest.approx(float(right.mean()))
    assert found["batch"] != found["running"]


# A collapse to skip_connect.


def accuracies_at_the_end(recipe: str, epochs: int) -> tuple[float, float]:
    """Return two validation accuracies after some epochs of real training on digits of 8x8: the supernet's with a draw,
    and the child's with the supernet's weights.
    """
    space, sizes = SPACES["nasbench201"], replace(SMALL["nasbench201"], channels=8, height=8, width=8)
    digits = load_data("digits?size=8")
    costs = build_metrics(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))
    settings = read_recipe(recipe, {"epochs": epochs})
    search = Search(SizedSpace(space, sizes), [Objective("table", Budget("none", {}), costs)], digits, settings)
    while not search.over:
        search.take_step()
    (target,) = search.targets

    @torch.no_grad()
    def supernet(images: torch.Tensor) -> torch.Tensor:
        return search.supernet(images, *search.current_step.runs(search.supernet, target.distribution, draw))

    draw = search.current_step.draw(target, Purpose.CONTROLLER_SAMPLES)
    with batch_statistics(search.supernet):
        whole = accuracy(supernet, digits, digits.validation)
    return whole, search.evaluator.validate(search.evaluator.choose(target))


@pytest.mark.slow
def test_a_child_keeps_the_supernet_accuracy_with_snas_and_not_with_darts() -> None:
    """Xie et al. (ICLR 2019, table 1) report 88.54 % -> 90.67 % for SNAS and 87.67 % -> 54.66 % for DARTS."""
    whole, child = accuracies_at_the_end("short/snas", epochs=10)
    assert whole > 0.7
    assert child > whole - 0.05
    whole, child = accuracies_at_the_end("short/darts", epochs=6)
    assert whole > 0.7
    assert child < whole - 0.3


def collapse(monkeypatch: pytest.MonkeyPatch, when: list[int]) -> None:
    """Register a learning rule with which target n collapses to skip_connect in epoch ``when[n]``."""

    class Collapses:
        def learn(self, step: Step, target: TargetState) -> object:
            with torch.no_grad():
                for values in target.logits.values() if not target.stopped else ():
                    values += 0.01
                    if step.epoch + 1 >= when[step.position.step % len(when)]:
                        values[:, step.space.operations.index("skip_connect")] += 20.0
            return step.weights_step(target)

    monkeypatch.setitem(CHOICES["learning"], "collapses", Collapses)


@pytest.mark.slow
def test_a_collapse_to_skips_restores_and_stops_the_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first target collapses in epoch 2 of 6, the second in epoch 3, with which the search ends."""
    collapse(monkeypatch, [2, 3])
    changes = {"learning": "collapses", "most_skips": 0.9, "epochs": 6, "logits_std": 1.0}
    search, kept = searching("nasbench201", "short/snas", "100%", "99%", **changes), []

    def report(row: EpochRow) -> None:
        kept.append([{k: v.detach().clone() for k, v in t.logits.items()} for t in search.targets])

    run_to_end(search, tmp_path, "digest", lambda *_: None, report)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 1, 2, 2, 3, 3]
    assert [("stopped" in row) for row in rows] == [False, False, True, False, True, True]
    assert "100% of the edges became skip_connect in epoch 2" in rows[2]["stopped"]
    assert "in epoch 3" in rows[5]["stopped"]
    assert [row["skip_share"] >= 0.9 for row in rows[:4]] == [False, False, True, False]
    assert search.step == 3 * search.schedule.steps_per_epoch < search.schedule.total_steps
    after = [{k: v.detach() for k, v in t.logits.items()} for t in search.targets]
    assert torch.equal(after[0]["cell"], kept[0][0]["cell"])  # as they were an epoch before
    assert torch.equal(after[1]["cell"], kept[3][1]["cell"])
    assert not torch.equal(after[1]["cell"], kept[0][1]["cell"])
    resumed = searching("nasbench201", "short/snas", "100%", "99%", **changes)
    run_to_end(resumed, tmp_path, "digest", lambda *_: None, report)
    assert resumed.step == search.step
    assert unlike(search.state(), resumed.state()) == []


def test_a_collapse_in_the_first_epoch_restores_the_initial_logits(tmp_path: Path, monkeypatch: Any) -> None:
    collapse(monkeypatch, [1])
    search = searching(
        "nasbench201", "short/snas", "100%", learning="collapses", most_skips=0.9, epochs=4, logits_std=1.0
    )
    start = {kind: values.detach().clone() for kind, values in search.targets[0].logits.items()}
    run_to_end(search, tmp_path, "digest", lambda *_: None, lambda row: None)
    assert search.step == search.schedule.steps_per_epoch
    assert torch.equal(search.targets[0].logits["cell"].detach(), start["cell"])


@pytest.mark.slow
def test_skips_during_the_warm_up_are_no_collapse(tmp_path: Path) -> None:
    """They follow from the initial logits."""
    changes = {"most_skips": 0.01, "logits_warm_up": 0.5, "epochs": 4}
    search, rows = searching("nasbench201", "short/snas", "100%", **changes), []
    with torch.no_grad():
        search.targets[0].logits["cell"][:, search.space.operations.index("skip_connect")] += 5.0
    run_to_end(search, tmp_path, "digest", lambda *_: None, rows.append)
    assert [row.skip_share for row in rows[:2]] == [1.0, 1.0]
    assert [bool(row.stopped) for row in rows] == [False, False, True]


# Recipes that do not fit.

RECIPES: dict[str, tuple[str, ...]] = {
    "base: short/darts\nruns: sampled": ("draws one operation an edge", "runs: all"),
    "base: short/darts\nruns: {name: all, often: 3}": ("runs all", "often"),
    "base: short/darts\nruns: some": ("unknown runs 'some'", "engine_transit"),
    "base: short/darts\nlearning: by_heart": ("unknown learning 'by_heart'", "unrolled"),
    "base: short/darts\ndistribution: {name: softmax, space: 3}": ("distribution softmax", "space"),
    "base: short/darts\nselection: {name: best_of, samples: 0}": ("selection best_of: samples", "greater"),
    "base: short/darts\nselection: {samples: 3}": ("selection.name",),
    "base: short/darts\nregulariser: {name: dirichlet_kl, weight: much}": ("regulariser dirichlet_kl: weight",),
    "base: short/darts\nregulariser: dirichlet_kl": ("dirichlet_kl", "distribution: dirichlet"),
    "base: short/darts\nlearning: reinforce": ("reinforce", "distribution: controller"),
    "base: short/darts\nlearning: advantage": ("advantage", "distribution: categorical"),
    "base: short/enas\nlearning: advantage": ("advantage", "distribution: categorical"),
    "base: short/enas\nregulariser: dirichlet_kl": ("dirichlet_kl|does not have",),
    "base: short/enas\npenalty: {mode: fixed, form: log, resources: [macs]}": (
        "resource penalties need logits",
        "controller",
    ),
    "base: short/random\nlearning: alternating": ("carry no gradient", "uniform"),
    "base: short/advantagenas\nlearning: same_batch": ("carry no gradient", "categorical"),
    "base: short/enas\nlearning: unrolled": ("carry no gradient", "controller"),
    "base: short/random\nmost_skips: 0.5": ("most_skips", "selection: probable"),
    "base: short/darts\nwithout: [nor_conv_9x9]": ("unknown operation 'nor_conv_9x9'", "nor_conv_3x3"),
    "base: short/darts\npartial_channels: 3": ("4 channels cannot be divided into 3 parts",),
    "base: short/random\nstages: [{share: 1, partial_channels: 1, operations: 3}]": ("stages need logits", "uniform"),
    "base: short/darts\nstages: [{share: 0.7, partial_channels: 1, operations: 3}]": ("do not sum to 1",),
    "base: short/darts\njudged_with: luck": ("judged_with",),
    "base: short/cake": ("unknown recipe 'short/cake'",),
    "base: [short/darts": ("not valid YAML",),
    "- darts": ("is empty|no settings",),
}


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_that_do_not_fit_give_one_error_line(run: Run, tmp_path: Path, table_file: Path, text: str) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(text)
    small = ("--data", "digits?size=16", "--channels", 4, "--cells", 1, "--epochs", 1, "--batch-size", 256)
    result = run("search", "--table", table_file, *small, "--recipe", recipe, "--out", tmp_path / "run")
    assert_one_clear_line(result, *RECIPES[text])


@pytest.mark.slow
@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("random", "single-path", "svge")])
def test_a_method_learns_where_no_limit_is_in_the_loss(method: str) -> None:
    """Peak memory is no sum over edges, so it is not in the loss."""
    search = searching("nasbench201", f"short/{method}", "60%-peak-memory", "1000%")
    before = [[p.detach().clone() for p in t.parameters] for t in search.targets]
    for _ in range(8):
        search.take_step()
    for target, old in zip(search.targets[:1], before, strict=False):
        assert not all(torch.equal(a, b) for a, b in zip(target.parameters, old, strict=True))


# Plugins.

PLUGIN = """
from hwnas.search.choices import register

@register("regulariser", "sure")
class Sure:
    def __init__(self, weight=1.0):
        self.weight = weight

    def __call__(self, distribution, progress):
        p = distribution.probabilities()["cell"]
        return -self.weight * (p * p.log()).sum()
"""


def with_plugin(run: Run, folder: Path, table: Path, plugin: str, weight: float = 1.0) -> Callable[[], Any]:
    """Return a call of ``hwnas search`` with a plug-in of this text and a recipe that uses it."""
    (folder / "own.py").write_text(plugin)
    fast = "logits: {lr: 0.1, lr_end: 0.1}\nlogits_warm_up: 0.0\n"
    (folder / "own.yaml").write_text(f"base: short/darts\n{fast}regulariser: {{name: sure, weight: {weight}}}\n")
    small = ("--data", "digits?size=16", "--channels", 4, "--cells", 1, "--epochs", 2, "--batch-size", 256)
    base = ("search", "--table", table, *small, "--child-epochs", 0, "--plugin", folder / "own.py")
    return lambda: run(*base, "--recipe", folder / "own.yaml", "--budget", "100%", "--out", folder / f"run{weight}")


@pytest.mark.slow
def test_a_choice_of_a_plugin_takes_effect(
    run: Run, tmp_path: Path, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its regulariser lowers the entropy of every edge, and raises it with a negative weight."""
    monkeypatch.setitem(CHOICES, "regulariser", dict(CHOICES["regulariser"]))
    entropies = {}
    for weight in (-5.0, 5.0):
        result = with_plugin(run, tmp_path, table_file, PLUGIN, weight)()
        assert result.exit_code == 0, result.output
        rows = (tmp_path / f"run{weight}" / "metrics.jsonl").read_text().splitlines()
        entropies[weight] = json.loads(rows[-1])["entropy"]
    assert entropies[5.0] < entropies[-5.0] - 0.05
    again = with_plugin(run, tmp_path, table_file, PLUGIN + "\n# changed\n", 5.0)()
    assert_one_clear_line(again, "other settings", "--out")


def test_plugins_that_fail_give_one_error_line(run: Run, tmp_path: Path, table_file: Path) -> None:
    for text, words in {
        "raise ValueError('first line\\nsecond line')": ("own.py failed: ValueError: first line second line",),
        "def": ("own.py failed: SyntaxError",),
        "import no_such_package": ("own.py failed: ModuleNotFoundError", "no_such_package"),
        "x = 1": ("unknown regulariser 'sure'", "dirichlet_kl"),
    }.items():
        assert_one_clear_line(with_plugin(run, tmp_path, table_file, text)(), *words)
    base = ("search", "--table", table_file, "--out", tmp_path / "other", "--plugin")
    assert_one_clear_line(run(*base, tmp_path / "none.py"), "none.py does not exist")
    assert_one_clear_line(run(*base, table_file), "not a Python file")
