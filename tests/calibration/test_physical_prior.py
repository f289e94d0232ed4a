"""The prior of chains by physical features: few networks rank all others on devices that it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from hwnas.calibration.design_matrix import connected_choices, design_matrix, is_live
from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.physical_prior import Work, physical_prior, work_of
from hwnas.calibration.prior import generic_prior
from hwnas.calibration.regression import fit_posterior
from hwnas.networks.count import count_workload
from hwnas.spaces import SizedSpace, Workload
from support.chains import small_chain

SIZED = SizedSpace.named(small_chain(), "large")


def test_work_is_that_of_the_convolutions() -> None:
    w = Workload("mbconv_3x3_e6_se", 8, 16, 9, 9, 2)
    middle, squeezed, pixels = 48, 16, 25
    macs = 8 * middle * 81 + 9 * middle * pixels + 2 * middle * squeezed + middle * 16 * pixels
    assert work_of(w).macs == macs
    assert work_of(w).weights == 8 * middle + 9 * middle + 2 * middle * squeezed + middle * 16
    wide, narrow = middle * 81, middle * pixels
    read = 8 * 81 + wide + narrow + middle + squeezed + (narrow + middle) + narrow  # 1x1, depthwise, pool … scale, 1x1
    written = wide + narrow + middle + squeezed + middle + narrow + 16 * pixels
    assert (work_of(w).activations, work_of(w).layers) == (read + written, 7)
    # Two groups: 1x1 from 8 to 24 channels, shuffle, depthwise, 1x1 to 8, addition.
    grouped = Work(
        macs=(8 * 24 // 2 + 25 * 24 + 24 * 8 // 2) * 30,
        activations=(8 + 24 + 2 * 24 + 2 * 24 + 24 + 8 + 3 * 8) * 30,
        weights=8 * 24 // 2 + 25 * 24 + 24 * 8 // 2,
        layers=5,
    )
    assert work_of(Workload("ir_5x5_e3_g2_res", 8, 8, 5, 6)) == grouped
    head = Workload("pool_linear", 8, 10, 4, 4)
    assert work_of(head) == Work(80, 8 * 16 + 8 + 8 + 10, 80, 2)
    # Batch norms and biases are all that the counts of the module have besides.
    assert macs < count_workload(w).macs_fvcore < 1.2 * macs + 4 * middle * 81


@pytest.mark.parametrize("device", range(3))
def test_few_networks_rank_all_others(device: int) -> None:
    """A made-up device takes another time for each kind of work, and for each candidate a bit more or less."""
    generator, space, prior = np.random.default_rng(device), SIZED.space, physical_prior(SIZED)
    assert generic_prior(SIZED).mean.tolist() == prior.mean.tolist()
    assert np.linalg.eigvalsh(prior.covariance).min() > 0
    choices = connected_choices(space, 1000)
    design = design_matrix(space, choices)
    assert np.isclose((design @ prior.mean).mean(), 1, atol=0.02)
    (instance,) = SIZED.network.cell_instances("chain")
    rates = generator.uniform(0, 1, 4) / np.array([3e5, 2e5, 2e4, 20])
    costs = np.array(
        [
            [rates @ work_of(w).row * generator.lognormal(0, 0.1) if w else 0.0 for w in layer.values()]
            for layer in instance.candidates
        ]
    )
    latency_ms = 0.3 + costs[np.arange(len(costs)), choices].sum(axis=1)
    timed = choose_architectures(space, prior, 6, among=choices)
    assert len(timed) == 6
    rows = [int(np.flatnonzero((choices == row).all(axis=1))[0]) for row in timed]
    posterior = fit_posterior(design[rows], latency_ms[rows], prior, is_live(space))
    assert spearmanr(design @ posterior.mean, latency_ms).statistic > 0.95
