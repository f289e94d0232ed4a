"""A prior for the layers of a chain by their physical features, so that few networks determine hundreds of costs.

In a chain every layer has sizes of its own: the same operation costs more in one layer than in another, and an
operation's mean says little. What its cost follows is known: multiply-accumulates, activations moved, weights read, and
the number of layers started. With v[i, j] the share that candidate i has of feature j in a usual network,

    c[i] = sum over j of w[j] v[i, j] + r[i],   w[j] ~ N(m[j], m[j]^2)
    r ~ N(0, a^2 d d' * K),   d[i] = sum over j of m[j] v[i, j]

where K is near 1 for candidates alike in features, kernel, expansion and resolution: what makes one of them slower than
its features tell makes the others slower too. Layers of equal sizes cost the same. How far a device is from its
features, a, differs between devices (little on a GPU that waits for launches, much on a processor whose kernels are
written for some sizes): each value of a is a hypothesis, and the measurements decide (hwnas.calibration.regression).

Where tables of other devices are known, each of them is a hypothesis, too: the new device is like that one up to a
small part of the covariance above.

The numbers below were aimed at devices that no benchmark reports: layers timed with PyTorch, ONNX Runtime and OpenVINO
on one AMD processor, and published tables of a Raspberry Pi 4 (jh88/fbnet on GitHub) and of a GPU (JunrQ/NAS). The
results of benchmarks/transfer_fbnet.py were seen meanwhile, and the form of this model was chosen with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from hwnas.calibration.design_matrix import REFERENCE, connected_choices, num_features
from hwnas.calibration.regression import Hypothesis, Prior, mixture
from hwnas.cost.memory import PART_OF_OTHERS
from hwnas.cost.model import Array
from hwnas.spaces import NONE, SizedSpace, Workload, num_inputs, operation_of
from hwnas.spaces.layers import LayerTrace
from hwnas.spaces.mobile_blocks import InvertedResidual, read_mobile_layer

SHARES = np.array([0.4, 0.3, 0.1, 0.2])  # m above: of a usual device's latency, by MACs, activations, weights, layers
SPREADS = (0.05, 0.1, 0.2, 0.4, 0.8)  # a above …
USUAL_SPREAD, SPREAD_OF_SPREADS = 0.2, 0.7  # … the most probable one, and the deviation of its logarithm
OWN = 0.5  # deviation of a single workload's costs from those of workloads alike, relative to a
LIKE_ONE = 0.05  # probability that a device is like one of the pool
NEAR = 0.03  # share of the covariance by which it differs from that one
LENGTH = 1.5  # distance of candidates, in factors of 2, at which K falls to exp(-1/2)
LEAST_SPREAD = 1e-4  # deviation, in units of the mean latency, of costs that no architecture has


@dataclass(frozen=True)
class Work:
    """The work of one workload for one image: multiply-accumulates, values moved, weights, layers that run."""

    macs: int
    activations: int
    weights: int
    layers: int

    @property
    def row(self) -> list[int]:
        return [self.macs, self.activations, self.weights, self.layers]


@cache
def work_of(workload: Workload) -> Work:
    """Return the work of a workload's layers; layers that runtimes merge into others count nothing of their own."""
    inputs = num_inputs(workload)
    trace = LayerTrace([(workload.in_channels, workload.height, workload.width)] * inputs)
    operation_of(workload).layers(trace, workload)
    pairs = zip(trace.layers, trace.shapes[inputs:], strict=True)
    run = [(layer, shape) for layer, shape in pairs if layer.kind not in PART_OF_OTHERS]
    return Work(
        macs=sum(layer.weights * shape[1] * shape[2] for layer, shape in run if layer.kind in ("conv", "linear")),
        activations=sum(sum(layer.read_values) + layer.written_values for layer, _ in run),
        weights=sum(layer.weights for layer, _ in run),
        layers=len(run),
    )


@dataclass(frozen=True)
class _Physics:
    """Mean [1 + M] of the costs of the fixed part and of M candidates, and two covariances [1 + M, 1 + M].

    ``features`` is that of the features' unknown rates, ``deviations`` that of r for a = 1.
    """

    mean: Array
    features: Array
    deviations: Array


def physical_prior(sized: SizedSpace, devices: Array | None = None, heads: Array | None = None) -> Prior:
    """Return the prior of the costs of a chain on an unknown device, in units of its mean latency.

    ``devices`` [D, F] are the edge costs of known devices in units of their mean latencies, ``heads`` [D] the standard
    errors of their constant costs, 0 by default.
    """
    physics = _physics(sized)
    columns = _columns(num_features(sized.space), len(physics.mean) - 1)

    def like(costs: Array, covariance: Array, probability: float) -> Hypothesis:
        least = LEAST_SPREAD**2 * np.eye(len(costs))
        return Hypothesis(costs, columns @ covariance @ columns.T + least, probability)

    known = [] if devices is None else list(devices)
    odds = np.exp(-0.5 * (np.log(np.array(SPREADS) / USUAL_SPREAD) / SPREAD_OF_SPREADS) ** 2)
    odds *= (1 - LIKE_ONE * bool(known)) / odds.sum()
    hypotheses = [
        like(columns @ physics.mean, physics.features + spread**2 * physics.deviations, float(probability))
        for spread, probability in zip(SPREADS, odds, strict=True)
    ]
    near = NEAR * (physics.features + USUAL_SPREAD**2 * physics.deviations)
    constant = np.diag(np.eye(len(near))[0])
    errors = np.zeros(len(known)) if heads is None else heads
    hypotheses += [
        like(costs, near + error**2 * constant, LIKE_ONE / len(known))
        for costs, error in zip(known, errors, strict=True)
    ]
    return mixture(hypotheses)


def _physics(sized: SizedSpace) -> _Physics:
    (kind,) = sized.space.cells
    (instance,) = sized.network.cell_instances(kind)
    used = [op for op in sized.space.operations if op != NONE]
    workloads = [candidates[op] for candidates in instance.candidates for op in used]
    work = np.array([work_of(w).row if w else [0] * len(SHARES) for w in workloads], dtype=float)
    fixed = np.array([work_of(w).row for w in sized.network.fixed_workloads()], dtype=float).sum(axis=0)
    usual = fixed + _mean_shares(sized) @ work
    shares = np.concatenate([fixed[None], work]) / usual  # the first row is the constant cost
    mean, same = shares @ SHARES, np.array([[a == b for b in workloads] for a in workloads])
    deviations = np.zeros((len(mean), len(mean)))
    deviations[1:, 1:] = np.outer(mean[1:], mean[1:]) * (_similarity(workloads, work) + OWN**2 * same)
    return _Physics(mean, (shares * SHARES**2) @ shares.T, deviations)


def _mean_shares(sized: SizedSpace) -> Array:
    """Return how often each candidate is chosen in a random architecture [edges * (operations - 1)]."""
    space = sized.space
    choices = connected_choices(space, REFERENCE)
    indices = [o for o, op in enumerate(space.operations) if op != NONE]
    return np.stack([choices == o for o in indices], axis=2).mean(axis=0).ravel()


def _similarity(workloads: list[Workload | None], work: Array) -> Array:
    """Return K: near 1 for candidates alike. Distances are in factors of 2 of every feature."""
    facts = np.array([_facts(w) for w in workloads])
    features = np.concatenate([np.log2(np.maximum(work[:, :3], 1)) / 2, facts], axis=1)
    squared = ((features[:, None] - features[None]) ** 2).sum(axis=2)
    return np.asarray(np.exp(-squared / (2 * LENGTH**2)))


def _facts(workload: Workload | None) -> list[float]:
    """Return kernel, expansion and resolution of a candidate, as powers of 2."""
    if workload is None:
        return [0.0, 0.0, 0.0]
    layer, channels = read_mobile_layer(workload.op), workload.in_channels
    middle = layer.middle_channels(channels) if isinstance(layer, InvertedResidual) else channels
    return [float(np.log2(x)) for x in (layer.kernel if layer else 1, middle / channels, workload.height)]


def _columns(features: int, number: int) -> Array:
    """Return the matrix [F, 1 + number] to the design matrix's columns, which hold a cost twice, half for every edge
    and half for live ones: in a chain all edges are live.
    """
    halves = np.zeros((features, 1 + number))
    halves[0, 0] = 1.0
    for block in (1, 1 + number):
        halves[block + np.arange(number), 1 + np.arange(number)] = 0.5
    return halves
