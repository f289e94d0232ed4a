"""The generated pages of search methods are up to date; the example of the written one runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import entropy

from hwnas.budgets.budget import parse_budget, preview
from hwnas.cost.build import build_metrics
from hwnas.data import load_data
from hwnas.recipe import read_recipe
from hwnas.search import selection
from hwnas.search.choices import CHOICES
from hwnas.search.methods import CHAIN_METHODS, METHODS, register_builtin
from hwnas.search.objective import Objective
from hwnas.search.plugin import load_plugin
from hwnas.search.search import Search
from hwnas.spaces import Setting, SizedSpace, get_space
from support.tables import make_table
from tools import method_pages

PAGE = (method_pages.FOLDER / "adding-a-method.md").read_text(encoding="utf-8")
register_builtin()
BLOCKS = dict(re.findall(r"```(\w+)[^\n]*\n(.*?)```", PAGE, re.DOTALL))


def test_the_pages_are_up_to_date() -> None:
    assert method_pages.out_of_date(method_pages.pages()) == [], "run python -m tools.method_pages"
    assert {f"{method}.md" for method in (*METHODS, *CHAIN_METHODS)} < {
        file.name for file in method_pages.FOLDER.iterdir()
    }


def test_changed_missing_and_stale_pages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(method_pages, "FOLDER", tmp_path)
    assert method_pages.main([]) == 0
    assert method_pages.main(["--check"]) == 0
    assert capsys.readouterr().out == ""
    with (tmp_path / "snas.md").open("a") as page:
        page.write("more\n")
    (tmp_path / "enas.md").unlink()
    (tmp_path / "gone.md").write_text("# gone\n")
    (tmp_path / "adding-a-method.md").write_text("by hand\n")
    assert method_pages.main(["--check"]) == 1
    assert re.findall(r"docs/methods/(\S+) is out of date", capsys.readouterr().out) == [
        "enas.md",
        "gone.md",
        "snas.md",
    ]
    assert method_pages.main([]) == 0
    assert method_pages.main(["--check"]) == 0
    assert (tmp_path / "adding-a-method.md").read_text() == "by hand\n"


def test_every_link_leads_to_a_file() -> None:
    for page in method_pages.FOLDER.glob("*.md"):
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for link in re.findall(r"\]\(([^)#]+)(?:#\w+)?\)", prose):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_settings_include_those_of_base_recipes() -> None:
    """DrNAS as published, for NAS-Bench-201 and for CIFAR-10 in the DARTS space (the third column is ours)."""
    text = method_pages.pages()["drnas.md"]
    rows = {name: values.split(" | ") for name, values in re.findall(r"^\| `([\w.]+)` \| (.+) \|$", text, re.MULTILINE)}
    assert rows["distribution"][:2] == ["dirichlet", "dirichlet"]
    assert rows["weights.lr"][:2] == ["0.025", "0.1"]
    assert rows["weights.lr_end"][:2] == ["0.001", "0"]
    assert rows["logits.lr"][:2] == ["0.0003", "0.0006"]
    assert rows["logits.betas"][:2] == ["0.5, 0.999", "0.5, 0.999"]
    assert rows["epochs"][:2] == ["100", "50"]
    assert rows["without"][:2] == ["-", "none"]
    assert "stages" not in rows


def spread(mean: float, std: float | None) -> dict[str, float | None]:
    return {"mean": mean, "std": std}


def summary() -> dict[str, Any]:
    """Return the summary of a benchmark of one method on one data set."""
    reference = {"accuracy": {"cifar10": spread(87.06, 12.5)}, "regret": {"cifar10": spread(7.31, 12.5)}}
    method = {
        "method": "gdas",
        "seeds": [0, 1],
        "epochs": 12,
        "accuracy": {"cifar10": spread(93.14, 0.26)},
        "regret": {"cifar10": spread(1.23, 0.26)},
        "search": {"wall_s": spread(61.04, 1.5), "processor_s": spread(120, 2), "peak_memory_mb": spread(512.4, 3)},
        "collapse": {"skip_connect": spread(0.25, 0.12), "without_parameters": spread(0.5, 0.0)},
        "threads": [2],
    }
    return {
        "space": "nasbench201",
        "accuracy_sha256": "0",
        "data": "imagefolder:images?train=100",
        "setting": {"channels": 8, "depth": 3},
        "budget": {"text": "moderate", "limits": {"latency_ms": 1.0}},
        "cells_within_budget": 7822,
        "data_sets": ["cifar10"],
        "methods": [method],
        "references": [{"name": "a random cell", **reference}],
        "finished": "2026-01-31",
    }


def test_only_measured_results_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(method_pages, "SUMMARY", tmp_path / "summary.json")
    unmeasured = "Nothing has been measured yet"
    of_chains = {f"{method}.md" for method in CHAIN_METHODS}  # which no benchmark measures
    texts = method_pages.pages()
    assert {name for name, text in texts.items() if unmeasured not in text} == of_chains
    (tmp_path / "summary.json").write_text(json.dumps(summary()))
    texts = {name: text for name, text in method_pages.pages().items() if name not in of_chains}
    assert {name for name, text in texts.items() if unmeasured not in text} == {"gdas.md", "README.md"}
    for name in ("gdas.md", "README.md"):
        row = "| gdas | 2 | 12 | 93.14 ± 0.26 | 1.23 ± 0.26 | 61.0 ± 1.5 | 120.0 ± 2.0 | 512 ± 3 | 0.25 ± 0.12 |"
        assert row in texts[name]
        assert "| a random cell | - | - | 87.06 ± 12.50 |" in texts[name]
        sizes = "imagefolder:images?train=100 at 8 channels, cells a stage: 3"
        for words in ("7,822 cells within moderate", sizes, "a search: 2;", "2026-01-31"):
            assert words in texts[name]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write the files of the page to a new current folder; remove their registrations afterwards."""
    monkeypatch.setitem(CHOICES, "regulariser", dict(CHOICES["regulariser"]))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "decisive.py").write_text(BLOCKS["python"])
    (tmp_path / "decisive.yaml").write_text(BLOCKS["yaml"])
    return tmp_path


def make_search(recipe: str, changes: dict[str, Any]) -> Search:
    space, sizes = get_space("nasbench201"), Setting(channels=4, depth=1, height=16, width=16)
    costs = build_metrics(make_table(SizedSpace(space, sizes)), SizedSpace(space, sizes))
    goal = Objective("table", parse_budget("moderate", preview(costs)), costs)
    return Search(SizedSpace(space, sizes), [goal], load_data("digits?size=16"), read_recipe(recipe, changes))


def logits_after_a_step(recipe: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits before and after a step of SGD of rate 1, halfway through the epochs."""
    changes = {
        "epochs": 3,
        "batch_size": 8,
        "logits_std": 1.0,
        "logits.name": "sgd",
        "logits.lr": 1.0,
        "logits.lr_end": 1.0,
        "logits.momentum": 0.0,
        "logits.weight_decay": 0.0,
    }
    search = make_search(recipe, changes)
    search.step = search.schedule.steps_per_epoch  # the first step of the second of three epochs
    before = search.targets[0].logits["cell"].detach().clone().numpy()
    search.take_step()
    return before, search.targets[0].logits["cell"].detach().numpy()


def test_the_gradient_of_the_logits_contains_the_examples_regulariser(example: Path) -> None:
    load_plugin(example / "decisive.py")
    before, plain = logits_after_a_step("nasbench201/darts")
    same, regularised = logits_after_a_step("decisive.yaml")
    assert (before == same).all()
    # d/d alpha[e, k] of 0.1 * 1/2 * mean over the 6 edges of -sum p log p, by scipy
    p = softmax(before, axis=1)
    slope = -0.05 / 6 * p * (np.log(p) + entropy(p, axis=1, keepdims=True))
    np.testing.assert_allclose(plain - regularised, slope, rtol=1e-3, atol=1e-6)


def test_names_on_the_page_exist() -> None:
    search = make_search("short/darts", {})
    owners = {"step": search.current_step, "target": search.targets[0], "scorer": search.evaluator}
    for owner, name in set(re.findall(rf"`({'|'.join(owners)})\.(\w+)", PAGE)):
        assert hasattr(owners[owner], name), name
    assert all(hasattr(selection, name) for name in ("within", "at_random", "best_scored"))
