"""Residual predictor: a Gaussian process on the ratio of measured to summed latency, for the final ranking.

It is not part of C(Z), because it is not decomposable and a search would exploit its errors.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwnas.cost.carried_head import carry_head
from hwnas.cost.metric import LATENCY
from hwnas.cost.model import CostModel, build_cost_models
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, SearchSpace, SizedSpace
from hwnas.spaces.encoding import encode, live_edges
from hwnas.tables.schema import LatencyTable

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ResidualPredictor:
    """The prediction of ``model``, multiplied by the ratio that ``regressor`` (scikit-learn) predicts."""

    model: CostModel
    regressor: Any

    def predict_many(self, choices: NDArray[np.intp]) -> Array:
        """Return latencies [N] in ms of the deployed networks ``choices`` [N, edges of all cells]."""
        ratio = np.exp(self.regressor.predict(count_operations(self.model.space, choices)))
        return np.asarray(self.model.predict_many(choices) * ratio)


def fit_residual(table: LatencyTable, sized: SizedSpace) -> ResidualPredictor:
    """Fit on the networks that the table's correction was fitted on; the others stay held out.

    Raises HwnasError when the table holds no such networks.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    table, carried = carry_head(table, sized)
    if carried:
        return replace(fit_residual(table, carried.known), model=build_cost_models(table, sized)[LATENCY.name])
    space, key = sized.space, sized.key
    seen = [network for network in table.networks.get(key, []) if network.fitted]
    if not seen:
        raise HwnasError(
            f"the table holds no measured networks of {key}", "measure the table again with 'hwnas profile'"
        )
    model = build_cost_models(table, sized)[LATENCY.name]
    choices = encode(space, [space.parse(network.architecture) for network in seen])
    ratio = np.log(np.array([network.latency_ms for network in seen]) / model.predict_many(choices))
    kernel = ConstantKernel(1e-3, (1e-6, 1e-1)) * RBF(5.0, (1.0, 100.0)) + WhiteKernel(1e-4, (1e-6, 1e-1))
    regressor = make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, random_state=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a parameter at its bound is fine
        regressor.fit(count_operations(space, choices), ratio)
    return ResidualPredictor(model, regressor)


def count_operations(space: SearchSpace, choices: NDArray[np.intp]) -> Array:
    """Return, for every cell kind, the live edges of each operation and the inputs of each node: [N, F]."""
    columns = []
    for kind, chosen in space.by_cell(choices).items():
        cell = space.cells[kind]
        live = live_edges(cell, chosen != space.operations.index(NONE))
        columns += [((chosen == o) & live).sum(axis=1) for o, op in enumerate(space.operations) if op != NONE]
        columns += [live[:, cell.edges_into(node)].sum(axis=1) for node in cell.inner_nodes]
    return np.stack(columns, axis=1).astype(float)
