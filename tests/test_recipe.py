"""Recipes of searches: the shipped ones, and invalid ones."""

from __future__ import annotations

import pytest

from hwnas.errors import HwnasError
from hwnas.recipe import read_recipe


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
        (
            {"penalty.form": "linear", "penalty.mode": "fixed", "penalty.resources": ["macs", "macs"]},
            "contains a duplicate",
        ),
    ],
)
def test_bad_recipes_are_refused(changes: dict, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        read_recipe("snas-short", changes)


def test_every_shipped_recipe_is_valid() -> None:
    from hwnas.files import shipped

    names = [file.stem for file in (shipped("configs") / "search").glob("*.yaml")]
    assert {"snas", "snas-short", "snas-hour"} <= set(names)
    paper = read_recipe("snas", {})
    assert (paper.epochs, paper.batch_size, paper.weights.lr, paper.temperature.end) == (150, 64, 0.025, 0.03)
    penalty = read_recipe("snas-paper", {}).penalty
    assert (penalty.mode, penalty.weight, penalty.form, len(penalty.resources)) == ("fixed", 1.5e-3, "log", 3)
    for name in names:
        assert read_recipe(name, {}).inputs_per_node is None
