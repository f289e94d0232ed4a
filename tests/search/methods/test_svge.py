"""Selection in a latent space: exact numbers of evaluations, better than draws, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hwnas.errors import HwnasError
from hwnas.latent import proposals
from hwnas.recipe import read_recipe, recorded_recipe
from hwnas.spaces import SPACES, Architecture
from hwnas.training.quality import Quality
from support.command import Run, assert_one_clear_line
from support.few_digits import FEW_DIGITS
from support.searches import COSTS, chain_searching, searching

SPACE = SPACES["nasbench201"]
WORTH = dict(zip(SPACE.operations, (0.0, 1.0, 2.0, 3.0, 0.5), strict=True))
ADAM = {"name": "adam", "lr": 5e-3, "lr_end": 0.0, "betas": [0.9, 0.999]}
AUTOENCODER = {"width": 16, "latent": 12, "graphs": 2000, "epochs": 2, "optimizer": ADAM}


def worth(architecture: Architecture) -> float:
    return (1 + sum(WORTH[op] for op in architecture.cells[0])) / 20


@pytest.mark.slow
def test_a_latent_search_scores_so_many_once_each_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MOST_DRAWS", 1)
    monkeypatch.setattr(proposals, "DRAWN", 400)
    monkeypatch.setattr(proposals, "AROUND", 200)
    selection = {"name": "latent", "evaluations": 25, "start": 10, "batch": 8}
    search = searching("nasbench201", "short/random", "mild", selection=selection, autoencoder=AUTOENCODER)
    seen: list[Architecture] = []

    def quality(architecture: Architecture) -> Quality:
        seen.append(architecture)
        return Quality(worth(architecture))

    monkeypatch.setattr(search.evaluator, "quality", quality)
    (target,) = search.targets
    chosen = search.evaluator.choose(target)
    assert len(seen) == len(set(seen)) == len(target.scores) == 25
    assert worth(chosen) == max(map(worth, seen))
    assert np.mean([worth(a) for a in seen[10:]]) > np.mean([worth(a) for a in seen[:10]])
    model = COSTS["nasbench201"]["latency_ms"]
    assert max(map(model.predict, seen)) <= target.budget.limits["latency_ms"]


def test_a_latent_selection_needs_an_autoencoder() -> None:
    with pytest.raises(HwnasError, match="selection latent needs a graph autoencoder") as error:
        searching("nasbench201", "short/random", selection={"name": "latent"})
    assert error.value.fix == "add `autoencoder: {}` to the recipe"


def test_a_chain_has_no_autoencoder() -> None:
    with pytest.raises(HwnasError, match="is a chain of layers, and a graph autoencoder is of cells"):
        chain_searching("chain/random", autoencoder={})


def test_recipes_without_an_autoencoder_are_written_as_before() -> None:
    plain = read_recipe("short/random", {})
    assert "autoencoder" not in plain.model_dump(mode="json")
    recipe = read_recipe("short/svge", {})
    assert recorded_recipe(recipe.model_dump(mode="json")).autoencoder == recipe.autoencoder
    published = read_recipe("nasbench201/svge", {}).autoencoder
    assert published is not None
    assert (published.latent, published.width, published.rounds, published.kl) == (56, 250, 2, 0.005)
    assert (published.epochs, published.batch_size, published.optimizer.lr) == (300, 128, 1e-4)


@pytest.mark.end_to_end
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("autoencoder: {width: 0}", "autoencoder.width"),
        ("autoencoder: {depth: 3}", "autoencoder.depth"),
        ("autoencoder: null", "selection latent needs a graph autoencoder"),
    ],
)
def test_a_wrong_autoencoder_is_one_clear_line(
    run: Run, tmp_path: Path, table_file: Path, line: str, problem: str
) -> None:
    recipe = tmp_path / "wrong.yaml"
    recipe.write_text(f"base: short/svge\n{line}\n")
    sizes = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1, "--budget", "mild")
    result = run("search", "--table", table_file, *sizes, "--recipe", recipe, "--out", tmp_path / "run")
    assert_one_clear_line(result, problem)
