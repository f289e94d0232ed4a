"""Proposals in a latent space: expected improvement, limits, no network twice, and better than draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from hwnas.latent import proposals
from hwnas.latent.proposals import LatentSearch
from hwnas.latent.surrogate import Surrogate
from support.latent import GRAPHS, small_latent_space

WORTH = np.random.default_rng(7).normal(size=(6, 5))


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposals, "MOST_DRAWS", 1)
    monkeypatch.setattr(proposals, "DRAWN", 400)
    monkeypatch.setattr(proposals, "AROUND", 200)


def values_of(choices: np.ndarray) -> np.ndarray:
    """A value that adds up over the edges of the network, so dead edges do not count."""
    return WORTH[np.arange(6), GRAPHS.networks(choices)].sum(axis=1)


def everything(choices: np.ndarray) -> np.ndarray:
    return np.ones(len(choices), dtype=bool)


def test_expected_improvement_is_that_of_random_values() -> None:
    generator = np.random.default_rng(0)
    latents, others = generator.normal(size=(20, 3)), generator.normal(size=(5, 3))
    surrogate = Surrogate.fit(latents, latents[:, 0] ** 2 + latents[:, 1])
    mean, deviation = surrogate.predict(others)
    best = surrogate.predict(latents)[0].max()
    drawn = mean + deviation * generator.normal(size=(400_000, 5))
    np.testing.assert_allclose(
        surrogate.expected_improvement(others), np.maximum(drawn - best, 0).mean(axis=0), rtol=0.03, atol=1e-3
    )


def test_a_surrogate_learns_a_sum_and_knows_what_it_does_not_know() -> None:
    generator = np.random.default_rng(1)
    latents = generator.normal(size=(60, 4))
    values = latents @ np.array([1.0, -2.0, 0.5, 0.0]) + 3
    surrogate = Surrogate.fit(latents, values)
    others = generator.normal(size=(50, 4))
    mean, deviation = surrogate.predict(others)
    truth = others @ np.array([1.0, -2.0, 0.5, 0.0]) + 3
    assert spearmanr(mean, truth).statistic > 0.99
    far = surrogate.predict(100 * others)[1]
    assert far.min() > deviation.max()
    more = surrogate.with_scores(others[:1], mean[:1])
    assert more.predict(others[:1])[1] < deviation[:1]
    expected, half = surrogate.predict_values(others)
    np.testing.assert_allclose(expected, truth, atol=1)
    assert (half > 0).all()
    known, _ = surrogate.predict_values(latents)
    np.testing.assert_allclose(known, values, atol=0.5)


@pytest.mark.parametrize("values", [[], [1.0, np.nan]])
def test_a_surrogate_needs_finite_values(values: list[float]) -> None:
    with pytest.raises(ValueError, match="needs values, all finite"):
        Surrogate.fit(np.zeros((len(values), 2)), np.array(values))


@pytest.mark.slow
def test_proposals_are_new_networks_within_the_limits() -> None:
    known = GRAPHS.sample(12, np.random.default_rng(0))

    def within(choices: np.ndarray) -> np.ndarray:
        return (choices == 3).sum(axis=1) <= 3  # at most three convolutions of 3x3

    search = LatentSearch(small_latent_space(), within)
    found = search.propose(known, values_of(known), 10, np.random.default_rng(1))
    assert len(found.choices) == len(found.expected) == len(found.deviation) == 10
    assert within(found.choices).all()
    assert GRAPHS.valid(found.choices).all()
    networks = GRAPHS.networks(np.concatenate([known, found.choices]))
    assert len(np.unique(networks, axis=0)) == len(np.unique(GRAPHS.networks(known), axis=0)) + 10
    again = search.propose(known, values_of(known), 10, np.random.default_rng(1))
    np.testing.assert_array_equal(found.choices, again.choices)
    none = LatentSearch(small_latent_space(), lambda choices: ~everything(choices))
    assert len(none.propose(known, values_of(known), 3, np.random.default_rng(1)).choices) == 0


@pytest.mark.slow
def test_a_search_is_better_than_draws_at_equal_evaluations() -> None:
    choices = GRAPHS.training(1000, 0, 0)
    ranks = []
    for seed in range(3):
        generator = np.random.default_rng(seed)
        known = generator.permutation(choices)[:15]
        for _ in range(3):
            found = LatentSearch(small_latent_space(), everything).propose(known, values_of(known), 5, generator)
            known = np.concatenate([known, found.choices])
        ranks.append((values_of(choices) > values_of(known).max()).mean())
    # The best of 30 draws is on average at 1 of 31 from the top.
    assert np.mean(ranks) < 1 / 31 / 2
