"""The accuracy model against scikit-learn's Gaussian process, and against values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, DotProduct, WhiteKernel

from hwnas.finalists import accuracy_model
from hwnas.finalists.accuracy_model import AccuracyModel, Features
from hwnas.spaces.darts import DARTS
from hwnas.spaces.nasbench201 import NASBENCH201

RANDOM = np.random.default_rng(0)


def features_of(number: int, space=NASBENCH201, scores: bool = False) -> Features:
    choices = RANDOM.integers(len(space.operations), size=(number, space.num_edges))
    return Features.of(space, choices, {"score": RANDOM.normal(size=number)} if scores else {})


def test_one_process_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    variance, noise = 0.7, 0.3
    monkeypatch.setattr(accuracy_model, "GRID", ((variance, 0.0, 0.0, noise),))
    known, others, values = features_of(30), features_of(20), RANDOM.normal(3, 2, size=30)
    mean, deviation = AccuracyModel.fit(known, values).predict(others)
    kernel = ConstantKernel(variance / known.edges) * DotProduct(sigma_0=1e-12) + WhiteKernel(noise)
    reference = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True).fit(known.operations, values)
    expected, spread = reference.predict(others.operations, return_std=True)
    np.testing.assert_allclose(mean, expected, rtol=1e-9)
    without_noise = np.sqrt(spread**2 - noise * values.var())  # scikit-learn adds the noise of a new value
    np.testing.assert_allclose(deviation, without_noise, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("space", [NASBENCH201, DARTS], ids=lambda space: space.name)
def test_sums_over_edges_are_learnt(space) -> None:
    worth = RANDOM.normal(size=(space.num_edges, len(space.operations)))
    number = 2 * worth.size
    known, others = features_of(number, space), features_of(200, space)
    model = AccuracyModel.fit(known, known.operations @ worth.ravel() + RANDOM.normal(0, 0.1, size=number))
    mean, deviation = model.predict(others)
    truth = others.operations @ worth.ravel()
    assert np.corrcoef(mean, truth)[0, 1] > 0.9
    assert (np.abs(mean - truth) < 3 * deviation).mean() > 0.8
    table = np.concatenate(list(model.by_edge(space).values()))
    assert table.shape == worth.shape
    summed = others.operations @ table.ravel()
    assert np.corrcoef(summed, truth)[0, 1] > 0.85


def test_a_score_that_explains_the_values_is_used_and_one_that_does_not_is_not() -> None:
    known, others = features_of(60, scores=True), features_of(60, scores=True)
    by_score = AccuracyModel.fit(known, 2 * known.scores[:, 0])
    by_chance = AccuracyModel.fit(known, RANDOM.normal(size=60))
    assert np.corrcoef(by_score.predict(others)[0], others.scores[:, 0])[0, 1] > 0.95
    assert abs(np.corrcoef(by_chance.predict(others)[0], others.scores[:, 0])[0, 1]) < 0.9
    assert by_chance.predict(others)[0].std() < by_score.predict(others)[0].std()


@pytest.mark.parametrize("values", [[np.nan], [1.0, np.nan], [1.0, np.inf]])
def test_values_that_say_nothing_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="needs values, all finite"):
        AccuracyModel.fit(features_of(len(values)), np.array(values))


@pytest.mark.parametrize("number", [1, 10])
def test_equal_values_are_expected_everywhere(number: int) -> None:
    mean, _ = AccuracyModel.fit(features_of(number), np.full(number, 2.5)).predict(features_of(5))
    np.testing.assert_allclose(mean, 2.5)
