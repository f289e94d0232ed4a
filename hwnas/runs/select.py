"""Which architecture a target gets: what its method takes and, on request, timed until one keeps the budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from hwnas.budgets.closed_loop import Attempt, Candidate, Propose, best_of, close_loop
from hwnas.calibration.intervals import error_scales
from hwnas.cost.devices import LATENCY, device_of, quantity_of
from hwnas.data import ImageData
from hwnas.export.network import export_network
from hwnas.export.quantize import quantize_network
from hwnas.export.verify import Measured, spec_of, time_networks
from hwnas.files import read_json, write_json
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.runtimes.int8 import INT8
from hwnas.search.loop import Search, Target
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import ENUMERABLE, encode
from hwnas.tables.schema import LatencyTable

STEP = 0.5  # scales of the error between the bounds at which a space is looked at that cannot be enumerated


def settle(
    search: Search,
    target: Target,
    tables: Mapping[str, LatencyTable],
    verify: bool,
    place: Path,
    progress: Progress,
) -> tuple[Architecture, list[dict[str, Any]]]:
    """What the method takes within the budget; with ``verify``, an architecture that keeps it as timed on its devices
    (hwnas.budgets.closed_loop). No training is needed, for latency does not depend on the weights.

    ``tables`` go by the device. Also returns, and writes to ``derivations.json``, a row for every attempt.
    """
    space = search.space
    kept = place / "derivations.json"
    if kept.exists():  # an interrupted run has settled this
        rows = read_json(kept, f"remove {kept}")
        return space.parse(next(row for row in rows if row["taken"])["architecture"]), rows
    table_of = {m: tables[device_of(m) or target.goal.device] for m in target.goal.costs if quantity_of(m) == LATENCY}
    budget_ms = {metric: bound for metric, bound in target.budget.limits.items() if metric in table_of}
    propose = _proposer(search, target, table_of)
    if verify and budget_ms:

        def measure(candidate: Candidate) -> dict[str, float]:
            text = space.format(candidate.architecture, all_edges=True)
            child, key = ChildNetwork(search.sized, candidate.architecture, prune=True), search.sized.key
            return {
                m: _time_child(child, text, table_of[m], key, place, search.data, progress).latency_ms
                for m in budget_ms
            }

        def tell(attempt: Attempt, following: Candidate, bounds: Mapping[str, float]) -> None:
            for metric, bound in budget_ms.items():
                timed, on = attempt.measured_ms[metric], device_of(metric)
                progress.log(
                    f"budget {target.budget.text}: timed at {timed:.4g} ms{f' on {on}' if on else ''}, "
                    f"{'over' if timed > bound else 'within'} {bound:.4g} ms; "
                    f"deriving again with a bound of {bounds[metric]:.4g} ms"
                )

        step = 0.0 if space.num_architectures <= ENUMERABLE else STEP
        attempts = close_loop(propose, measure, budget_ms, step, tell)
        taken = attempts.index(best_of(attempts, budget_ms))
    else:
        candidate = propose(budget_ms, ())
        assert candidate is not None  # the search has derived one before it began
        attempts, taken = [Attempt(candidate, budget_ms, {})], 0
    rows = [
        {
            "architecture": space.format(attempt.candidate.architecture, all_edges=True),
            "value": attempt.candidate.value,
            **_by_device("bound_ms", attempt.bounds_ms),
            **_by_device("predicted_ms", attempt.candidate.predicted_ms),
            **_by_device("measured_ms", attempt.measured_ms),
            "taken": number == taken,
        }
        for number, attempt in enumerate(attempts)
    ]
    write_json(kept, rows)
    return attempts[taken].candidate.architecture, rows


def _proposer(search: Search, target: Target, table_of: Mapping[str, LatencyTable]) -> Propose:
    """What the method would take within a target's limits but for other bounds on latency."""
    costs = target.goal.costs

    def propose(bounds: Mapping[str, float], excluded: Collection[Architecture]) -> Candidate | None:
        within = dict(target.limits) | {metric: (costs[metric], bound) for metric, bound in bounds.items()}
        found = search.propose(target, within, excluded)
        if found is None:
            return None
        architecture, value = found
        choices = encode(search.space, [architecture])
        predicted = {metric: costs[metric].predict(architecture) for metric in table_of}
        scales = {metric: error_scales(table_of[metric], search.sized, choices) for metric in bounds}
        known = {metric: float(scale[0]) for metric, scale in scales.items() if scale is not None}
        return Candidate(architecture, value, predicted, known if len(known) == len(scales) else None)

    return propose


def _by_device(name: str, latencies: Mapping[str, float]) -> dict[str, float]:
    """``{name: ms}``, or ``{name@device: ms}`` for each where the metrics name devices."""
    return {metric.replace(LATENCY, name, 1): ms for metric, ms in latencies.items()}


def _time_child(
    child: ChildNetwork,
    architecture: str,
    table: LatencyTable,
    key: str,
    place: Path,
    data: ImageData,
    progress: Progress,
) -> Measured:
    spec = spec_of(table)
    if not spec.made_by.takes_onnx:
        return time_networks({"child": child}, spec, table, key, progress)["child"]
    file = place / ".candidate.onnx"
    export_network(child, file, {"architecture": architecture})
    try:
        if spec.precision == INT8:
            quantize_network(file, file, data)
        return time_networks({"child": file}, spec, table, key, progress)["child"]
    finally:
        file.unlink()
