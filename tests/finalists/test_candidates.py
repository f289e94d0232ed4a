"""Candidates are within the limits, use them, and agree with a list of all architectures."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.budgets.budget import limits_of, parse_budget
from hwnas.finalists.candidates import LEAST_USED, Candidates
from hwnas.spaces import SPACES
from hwnas.spaces.encoding import encode, every_choice
from support.searches import PREVIEWS


def candidates_of(space: str, budget: str, inputs_per_node: int | None = None) -> Candidates:
    previews = PREVIEWS[space]
    return Candidates(SPACES[space], limits_of(previews, parse_budget(budget, previews)), inputs_per_node)


def worth_of(space: str) -> dict[str, np.ndarray]:
    generator, operations = np.random.default_rng(1), len(SPACES[space].operations)
    return {kind: generator.normal(size=(len(cell.edges), operations)) for kind, cell in SPACES[space].cells.items()}


@pytest.mark.parametrize("budget", ["aggressive", "moderate,60%-params"])
def test_the_largest_are_those_of_a_list_of_all(budget: str) -> None:
    own, worth = candidates_of("nasbench201", budget), worth_of("nasbench201")
    choices = every_choice(own.space)
    sums = worth["cell"][np.arange(6), choices].sum(axis=1)
    eligible = own.within(choices) & (own.shares(choices) >= LEAST_USED)
    best = np.sort(sums[eligible])[::-1][:5]
    found = encode(own.space, own.largest(worth, 5))
    np.testing.assert_allclose(worth["cell"][np.arange(6), found].sum(axis=1), best)


@pytest.mark.slow
@pytest.mark.parametrize("inputs_per_node", [None, 2])
def test_in_a_large_space_they_keep_the_rules_and_use_the_limits(inputs_per_node: int | None) -> None:
    own = candidates_of("darts", "moderate", inputs_per_node)
    sampled, largest = own.sample(20, np.random.default_rng(2)), own.largest(worth_of("darts"), 3)
    for found, number in ((sampled, 20), (largest, 3)):
        choices = encode(own.space, found)
        assert len({tuple(c) for c in choices.tolist()}) == number
        assert own.within(choices).all()
        shares = own.shares(choices)
        assert (shares >= LEAST_USED).all() if found is sampled else (shares[0] >= LEAST_USED and min(shares) > 0.7)


def test_a_sample_follows_its_generator() -> None:
    own = candidates_of("nasbench201", "aggressive")
    first, again, other = (own.sample(10, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == again
    assert set(first) != set(other)


def test_where_nothing_uses_the_limits_those_that_use_most_are_taken() -> None:
    own = candidates_of("nasbench201", "1000GB-memory-access")
    found = own.largest(worth_of("nasbench201"), 4)
    used = own.shares(every_choice(own.space)[own.within(every_choice(own.space))])
    np.testing.assert_allclose(sorted(own.shares(encode(own.space, found))), np.sort(used)[-4:])


def test_without_limits_every_connected_architecture_is_a_candidate() -> None:
    own = Candidates(SPACES["nasbench201"], {}, None)
    assert own.shares(every_choice(own.space)).tolist() == [1.0] * own.space.num_architectures
    assert own.within(every_choice(own.space)).sum() == 15_284  # of 15,625, those with a path from input to output
