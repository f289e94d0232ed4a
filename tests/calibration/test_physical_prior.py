"""The prior of chains by physical features: few networks rank all others on devices that it never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from hwnas.calibration.design_matrix import connected_choices, design_matrix, not_negative
from hwnas.calibration.experiment_design import choose_architectures
from hwnas.calibration.fit import MeasurementOrigin, fit_table
from hwnas.calibration.physical_prior import Work, physical_prior, work_of
from hwnas.calibration.prior import generic_prior, prior_of_devices
from hwnas.calibration.regression import fit_posterior
from hwnas.cost.model import build_cost_models
from hwnas.networks.count import count_workload
from hwnas.spaces import SizedSpace, Workload, get_space
from hwnas.spaces.encoding import encode
from hwnas.tables.io import read_table, write_table
from support.chains import SMALL, small_chain
from support.command import Run
from support.spaces import NB201

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


def made_up_ms(device: int, choices: np.ndarray) -> np.ndarray:
    """Return latencies [N] of a device that takes another time for each kind of work, a bit different by candidate."""
    generator = np.random.default_rng(device)
    (instance,) = SIZED.network.cell_instances("chain")
    rates = generator.uniform(0, 1, 4) / np.array([3e5, 2e5, 2e4, 20])
    costs = np.array(
        [
            [rates @ work_of(w).row * generator.lognormal(0, 0.1) if w else 0.0 for w in layer.values()]
            for layer in instance.candidates
        ]
    )
    return np.asarray(0.3 + costs[np.arange(len(costs)), choices].sum(axis=1))


@pytest.mark.parametrize("device", range(3))
def test_few_networks_rank_all_others(device: int) -> None:
    space, prior = SIZED.space, physical_prior(SIZED)
    assert generic_prior(SIZED).mean.tolist() == prior.mean.tolist()
    assert np.linalg.eigvalsh(prior.covariance).min() > 0
    choices = connected_choices(space, 1000)
    design = design_matrix(space, choices)
    assert np.isclose((design @ prior.mean).mean(), 1, atol=0.02)
    latency_ms = made_up_ms(device, choices)
    timed = choose_architectures(space, prior, 6, among=choices)
    assert len(timed) == 6
    rows = [int(np.flatnonzero((choices == row).all(axis=1))[0]) for row in timed]
    posterior = fit_posterior(design[rows], latency_ms[rows], prior, not_negative(space))
    assert spearmanr(design @ posterior.mean, latency_ms).statistic > 0.95


def test_three_readings_recognise_a_device_of_the_pool() -> None:
    space = SIZED.space
    choices = connected_choices(space, 400)
    design = design_matrix(space, choices)
    each = [made_up_ms(device, choices) for device in range(4)]
    costs = np.array([np.linalg.lstsq(design, ms / ms.mean(), rcond=None)[0] for ms in each])
    prior = prior_of_devices(SIZED, ["a", "b", "c", "d"], costs, np.full(4, 0.01))
    assert prior.pool == ("a", "b", "c", "d")
    assert sum(h.probability for h in prior.hypotheses) == pytest.approx(1)
    rows = [int(np.argmin(each[2])), int(np.argmax(each[2])), int(np.argmax(each[1] / each[2]))]
    error = {}
    for name, known in (("pool", prior), ("none", physical_prior(SIZED))):
        posterior = fit_posterior(design[rows], 7 * each[2][rows], known, not_negative(space))
        error[name] = np.mean(np.abs(design @ posterior.mean / (7 * each[2]) - 1))
    assert error["pool"] < 0.02
    assert error["pool"] < 0.7 * error["none"]


def test_latencies_of_a_chain_do_not_constrain_single_costs() -> None:
    """More for all candidates of one layer and as much less for the rest of the network are the same latencies."""
    assert not not_negative(SIZED.space).any()
    assert not_negative(NB201).sum() == 24
    design = design_matrix(SIZED.space, connected_choices(SIZED.space, 300))
    assert (design[:, 1 : len(SIZED.space.operations)].sum(axis=1) == 1).all()


def test_a_chain_has_the_road_from_a_design_to_a_table(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    sized = SizedSpace.named(get_space(str(file)), "large")
    space, pool, form, out = sized.space, tmp_path / "pool", tmp_path / "form.csv", tmp_path / "new.json"
    names = ("--space", file, "--setting", "large")
    choices = connected_choices(space, 60, seed=2)
    for device in range(2):
        origin = MeasurementOrigin(f"d{device}")
        fitted = fit_table(
            sized, choices, made_up_ms(device, choices), generic_prior(sized), origin, lambda *_: None
        ).table
        write_table(pool / f"d{device}.json", fitted)
    unaided = run("table", "design", *names, "-n", 4)
    assert len(unaided.stdout.splitlines()) == 4, unaided.output
    designed = run("table", "design", *names, "--shelf", pool, "-n", 10, "--out", form)
    assert "--prior" in designed.stdout.splitlines()[-1], designed.output
    architectures = [line.split(",")[0] for line in form.read_text().splitlines()[1:]]
    latency_ms = made_up_ms(7, encode(space, [space.parse(a) for a in architectures]))
    lines = [f"{a},{ms}" for a, ms in zip(architectures, latency_ms, strict=True)]
    form.write_text("architecture,latency_ms\n" + "\n".join(lines) + "\n")
    result = run("table", "fit", *names, "--measurements", form, "--prior", pool, "--out", out)
    assert result.exit_code == 0, result.output
    table = read_table(out)
    assert table.edge_costs[sized.key].pool == ["d0", "d1"]
    others = connected_choices(space, 200, seed=5)
    predicted = build_cost_models(table, sized)["latency_ms"].predict_many(others)
    assert spearmanr(predicted, made_up_ms(7, others)).statistic > 0.95
