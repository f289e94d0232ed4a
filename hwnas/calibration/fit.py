"""Fit a latency table to the latencies of whole networks, for devices on which nothing else can be timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from hwnas import __version__
from hwnas.calibration.accuracy import held_out_accuracy
from hwnas.calibration.design_matrix import design_matrix, grids, not_negative
from hwnas.calibration.regression import DEGREES_OF_FREEDOM, Posterior, Prior, fit_posterior
from hwnas.calibration.suspects import BROKEN, find_suspects
from hwnas.cost.metric import MACS, PARAMS
from hwnas.cost.model import Array, CostModel, count_models
from hwnas.files import sha256_of
from hwnas.networks.count import count_workload
from hwnas.progress import OnProgress
from hwnas.spaces import SearchSpace, SizedSpace, Workload
from hwnas.tables.schema import (
    NOT_KNOWN,
    CellCosts,
    Device,
    EdgeCosts,
    Entry,
    LatencyTable,
    Protocol,
    Quality,
    Runtime,
    today,
)

FOLDS = 5  # of the cross-validation for the report …
MOST_FOLDS = 20  # … which leaves out one network at a time where there are no more than this
NORMAL_95 = 1.96
KINDS = get_args(Device.model_fields["kind"].annotation)


@dataclass(frozen=True)
class MeasurementOrigin:
    """Device and runtime of the measurements as their author describes them; "not known" or 0 where missing."""

    device: str
    kind: str = "unknown"
    runtime: str = NOT_KNOWN
    runtime_version: str = NOT_KNOWN
    precision: str = NOT_KNOWN
    threads: int = 0
    batch: int = 0
    source: str = ""
    licence: str = ""


@dataclass(frozen=True)
class FittedTable:
    """A table and, for each of the N measurements it was fitted to, what the other ones predict: ``predicted_ms`` [N].

    Where the readings fall into two groups, the larger group predicts all of them.
    """

    table: LatencyTable
    predicted_ms: Array

    def worst(self, latency_ms: Array, number: int) -> list[int]:
        """Return the indices of the measurements [N] in ms that differ from ``predicted_ms`` by the largest factors."""
        predicted = np.maximum(self.predicted_ms, 1e-12)  # a fit to contradictory readings can predict less than 0
        factors = np.maximum(latency_ms / predicted, predicted / latency_ms)
        return [int(index) for index in np.argsort(-factors, kind="stable")[:number]]


def fit_table(
    sized: SizedSpace,
    choices: NDArray[np.intp],
    latency_ms: Array,
    prior: Prior,
    origin: MeasurementOrigin,
    on_progress: OnProgress,
) -> FittedTable:
    """Fit the edge costs of a device to the latencies [N] of the architectures ``choices`` [N, edges of all cells].

    ``quality.additivity`` reports the error on networks left out of the fit (cross-validation), and
    ``quality.suspect_readings`` the readings that contradict the others; ``LatencyTable.warnings`` states both.
    """
    space, key = sized.space, sized.key
    design = design_matrix(space, choices)
    posterior = fit_posterior(design, latency_ms, prior, not_negative(space))
    counts = count_models(sized, {workload: _counted(workload) for workload in sized.network.workloads()})
    suspects = find_suspects(space, design, counts[MACS.name].predict_many(choices), latency_ms, prior)
    left_out_ms = _left_out(space, design, latency_ms, prior, on_progress)
    whole = latency_ms > BROKEN * np.median(latency_ms)  # decided by the readings alone: a bad prediction must count
    report = held_out_accuracy(left_out_ms[whole], latency_ms[whole], floor=None)
    described = [origin.device, origin.kind, origin.runtime, origin.runtime_version, origin.precision]
    table = LatencyTable(
        version=2,
        device=Device(
            name=origin.device,
            kind=origin.kind,  # type: ignore[arg-type]
            model=origin.device,
            cores=0,
            memory_bytes=0,
            os=NOT_KNOWN,
            fingerprint=sha256_of([*described, origin.threads, origin.batch])[:16],
        ),
        runtime=Runtime(
            name=origin.runtime,
            version=origin.runtime_version,
            provider=NOT_KNOWN,
            precision=origin.precision,
            threads=origin.threads,
            batch=origin.batch,
        ),
        protocol=Protocol(
            version=1,
            statistic="Bayesian linear regression on latencies of whole networks",
            rounds=0,
            visit_ms=0,
            date=today(),
            tool_version=__version__,
        ),
        quality=Quality(additivity={key: report}, suspect_readings={key: suspects.reasons} if suspects.reasons else {}),
        provenance="transferred" if prior.pool else "fitted",
        source=origin.source,
        licence=origin.licence,
        entries=[],
        edge_costs={key: _edge_costs(space, counts, posterior, prior, len(latency_ms))},
    )
    return FittedTable(table, left_out_ms if suspects.predicted_ms is None else suspects.predicted_ms)


def _left_out(space: SearchSpace, design: Array, latency_ms: Array, prior: Prior, on_progress: OnProgress) -> Array:
    """Return the predictions [N] of networks by fits from which they were left out."""
    number = len(latency_ms)
    # An architecture that was timed twice is left out as one.
    _, same = np.unique(design, axis=0, return_inverse=True)
    groups = int(same.max()) + 1
    folds = np.random.default_rng(0).permutation(groups) % (groups if groups <= MOST_FOLDS else FOLDS)
    folds = folds[same.ravel()]
    predicted = np.zeros(number)
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        kept = fit_posterior(design[~out], latency_ms[~out], prior, not_negative(space)) if not out.all() else None
        predicted[out] = design[out] @ (kept.mean if kept else prior.mean)
        on_progress("predicting networks left out", fold + 1, int(folds.max()) + 1)
    return predicted


def _edge_costs(
    space: SearchSpace, counts: Mapping[str, CostModel], posterior: Posterior, prior: Prior, measurements: int
) -> EdgeCosts:
    base_ms, cells = grids(space, posterior.mean)
    together = _errors(space, posterior.covariance)
    (base_macs, macs), (base_params, params) = (_whole(counts[metric]) for metric in (MACS.name, PARAMS.name))
    return EdgeCosts(
        operations=list(space.operations),
        base_ms=_short(np.array(base_ms)),
        base_macs=base_macs,
        base_params=base_params,
        cells={
            kind: CellCosts(
                live_ms=_short(live),
                always_ms=_short(always),
                error_ms=_short(together[kind]),
                macs=macs[kind],
                params=params[kind],
            )
            for kind, (always, live) in cells.items()
        },
        covariance=[_short(row[: number + 1]) for number, row in enumerate(posterior.covariance)],
        scatter_ms=_short(np.array(posterior.scatter_ms)),
        scatter_share=_short(np.array(posterior.scatter_share)),
        degrees_of_freedom=DEGREES_OF_FREEDOM,
        measurements=measurements,
        pool=list(prior.pool),
    )


def _errors(space: SearchSpace, covariance: Array) -> dict[str, Array]:
    """Return half the 95 % interval of the total cost of a live edge, [E, K] by cell kind."""
    variance = grids(space, np.diag(covariance))[1]
    # The covariance between the two costs of an edge and operation: pair up their columns.
    column = grids(space, np.arange(len(covariance), dtype=float))[1]
    result = {}
    for kind, (always, live) in variance.items():
        first, second = (grid.astype(int) for grid in column[kind])
        both = np.where(first > 0, covariance[first, second], 0.0)
        result[kind] = NORMAL_95 * np.sqrt(np.maximum(always + live + 2 * both, 0.0))
    return result


def _counted(workload: Workload) -> Entry:
    """Return an entry that holds counts, and no latency."""
    found = count_workload(workload)
    return Entry(
        **asdict(workload),
        latency_ms=0.0,
        p10_ms=0.0,
        p90_ms=0.0,
        samples=0,
        macs=found.macs_fvcore,
        macs_conv_linear=found.macs_conv_linear,
        params=found.params,
    )


def _whole(model: CostModel) -> tuple[int, dict[str, list[list[int]]]]:
    """Return the base and the edge costs of a count as integers."""
    base, edges = model.linear()
    return round(base), {kind: np.rint(grid).astype(int).tolist() for kind, grid in edges.items()}


def _short(values: Array) -> Any:
    """Round to six digits; fitted values are not known more precisely."""
    return np.vectorize(lambda value: float(f"{value:.6g}"), otypes=[float])(values).tolist()
