"""The whole networks that a profile times."""

from __future__ import annotations

import numpy as np
import pytest

from hwnas.cost.counts import count_metrics
from hwnas.profiling.sample import random_architectures
from hwnas.spaces import SizedSpace, get_space
from hwnas.spaces.encoding import encode, possible, random_choices
from support.chains import small_chain


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fbnet", "proxylessnas", "mobilenetv3"])
def test_networks_of_a_chain_span_its_sizes(name: str) -> None:
    sized = SizedSpace.named(get_space(name))
    found = random_architectures(sized, 60)
    choices = encode(sized.space, found)
    assert len(set(found)) == 60
    assert possible(sized.space, choices).all()
    macs = count_metrics(sized)["macs"]
    uniform = macs.predict_many(random_choices(sized.space, 60, np.random.default_rng(0)))
    (low, high), (uniform_low, uniform_high) = (
        np.quantile(m, (0.1, 0.9)) for m in (macs.predict_many(choices), uniform)
    )
    assert low < 0.7 * uniform_low
    assert high > 1.2 * uniform_high


@pytest.mark.slow
def test_networks_of_a_free_topology_span_it_from_sparse_to_dense() -> None:
    sized = SizedSpace.named(get_space("darts-extended"))
    choices = encode(sized.space, random_architectures(sized, 60))
    assert possible(sized.space, choices).all()
    edges = (choices != sized.space.operations.index("none")).sum(axis=1)
    assert edges.min() < 12  # each of the 8 nodes has one
    assert edges.max() > 24  # of 28
    assert np.unique(choices[choices > 0]).tolist() == list(range(1, 15))


def test_few_architectures_are_not_all_timed() -> None:
    sized = SizedSpace.named(small_chain(), "tiny")
    found = random_architectures(sized, 1000)
    assert len(found) == sized.space.num_architectures // 4
