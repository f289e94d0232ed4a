"""Select each target's architecture; with ``--verify`` time candidates until one meets the budget."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hwnas.budgets.closed_loop import Attempt, Candidate, best_of, close_loop
from hwnas.calibration.intervals import error_scales
from hwnas.cost.metric import LATENCY, Metric
from hwnas.data import ImageData
from hwnas.export.network import export_network
from hwnas.export.quantize import quantize_network
from hwnas.export.timing import Measured, spec_of, time_networks
from hwnas.files import read_json, write_json
from hwnas.finalists.judgement import Judgement
from hwnas.finalists.of_search import propose
from hwnas.networks.child import ChildNetwork
from hwnas.progress import Progress
from hwnas.runs.folder import DERIVATIONS
from hwnas.runs.request import SearchRequest
from hwnas.runs.schema import Derivation
from hwnas.runs.two_networks import TwoNetworks, images_for
from hwnas.runtimes.float16 import FLOAT16, convert_to_float16
from hwnas.runtimes.int8 import INT8
from hwnas.search.search import Search
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.encoding import ENUMERABLE, encode
from hwnas.tables.schema import LatencyTable
from hwnas.validation import validate

# Distance of the bounds that are tried in a space too large to enumerate, in scales of the prediction's error.
STEP = 0.5


def select_architecture(
    search: Search,
    target: TargetState,
    request: SearchRequest,
    networks: TwoNetworks,
    folder: Path,
    progress: Progress,
    judgement: Judgement | None = None,
) -> tuple[Architecture, list[Derivation]]:
    """Select the best architecture within the target's budget: that of the judgement, or without one of the method.

    If the request verifies, target networks of candidates are timed on the target's devices until one meets the budget
    (hwnas.budgets.closed_loop); they are not trained, because latency does not depend on the weights. Also returns one
    row for every attempt, and writes these to ``derivations.json`` in ``folder``; an interrupted run reads them from
    there.
    """
    space, file = search.space, folder / DERIVATIONS
    if file.exists():
        fix = f"remove {file}"
        rows = [validate(Derivation, row, file, fix) for row in read_json(file, fix)]
        return space.parse(next(row for row in rows if row.taken).architecture), rows
    candidates = _Candidates(search, target, request.tables, networks, folder, progress, judgement)
    budget_ms = candidates.budget_ms
    if request.verify and budget_ms:
        step = 0.0 if space.num_architectures <= ENUMERABLE else STEP
        attempts = close_loop(candidates.propose, candidates.measure, budget_ms, step, candidates.log)
        taken = attempts.index(best_of(attempts, budget_ms))
    else:
        candidate = candidates.propose(budget_ms, ())
        assert candidate is not None  # an impossible budget was refused before the search
        attempts, taken = [Attempt(candidate, budget_ms, {})], 0
    rows = [candidates.describe(attempt, number == taken) for number, attempt in enumerate(attempts)]
    write_json(file, [row.to_json() for row in rows])
    return attempts[taken].candidate.architecture, rows


@dataclass(frozen=True)
class _Candidates:
    """The architectures that a search proposes for one target, timed on the target's devices.

    Latencies and bounds are by metric, in ms.
    """

    search: Search
    target: TargetState
    tables: Mapping[str, LatencyTable]
    networks: TwoNetworks
    folder: Path
    progress: Progress
    judgement: Judgement | None

    @cached_property
    def table_of(self) -> dict[str, LatencyTable]:
        """The latency tables by the name of the latency that each predicts."""
        objective = self.target.objective
        metrics = [metric for name in objective.costs if (metric := Metric.parse(name)).quantity == LATENCY.quantity]
        return {metric.name: self.tables[metric.device or objective.device] for metric in metrics}

    @cached_property
    def budget_ms(self) -> dict[str, float]:
        """The limits on latencies."""
        return {metric: bound for metric, bound in self.target.budget.limits.items() if metric in self.table_of}

    def propose(self, bounds: Mapping[str, float], excluded: Collection[Architecture]) -> Candidate | None:
        """Return the choice within the target's limits, with ``bounds`` in place of those on latency."""
        search, costs = self.search, self.target.objective.costs
        within = dict(self.target.limits) | {metric: (costs[metric], bound) for metric, bound in bounds.items()}
        found = propose(search, self.target, within, self.judgement, excluded)
        if found is None:
            return None
        architecture, value = found
        choices = encode(search.space, [architecture])
        predicted = {metric: costs[metric].predict(architecture) for metric in self.table_of}
        sized = self.networks.target_sized
        scales = {metric: error_scales(self.table_of[metric], sized, choices) for metric in bounds}
        known = {metric: float(scale[0]) for metric, scale in scales.items() if scale is not None}
        return Candidate(architecture, value, predicted, known if len(known) == len(scales) else None)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Time a candidate with random weights on every device that has a limit."""
        sized = self.networks.target_sized
        child = ChildNetwork(sized, candidate.architecture, prune=True)
        text = sized.space.format(candidate.architecture, all_edges=True)
        data = images_for(sized, self.networks.target_data)
        return {
            metric: _time_child(child, text, self.table_of[metric], sized, self.folder, data, self.progress).latency_ms
            for metric in self.budget_ms
        }

    def log(self, attempt: Attempt, following: Candidate, bounds: Mapping[str, float]) -> None:
        for metric, bound in self.budget_ms.items():
            measured, device = attempt.measured_ms[metric], Metric.parse(metric).device
            self.progress.log(
                f"budget {self.target.budget.text}: timed at {measured:.4g} ms{f' on {device}' if device else ''}, "
                f"{'over' if measured > bound else 'within'} {bound:.4g} ms; "
                f"deriving again with a bound of {bounds[metric]:.4g} ms"
            )

    def describe(self, attempt: Attempt, taken: bool) -> Derivation:
        candidate = attempt.candidate
        return Derivation.model_validate(
            {
                "architecture": self.search.space.format(candidate.architecture, all_edges=True),
                "value": candidate.value,
                **_by_device("bound", attempt.bounds_ms),
                **_by_device("predicted", candidate.predicted_ms),
                **_by_device("measured", attempt.measured_ms),
                "taken": taken,
            }
        )


def _by_device(quantity: str, latencies: Mapping[str, float]) -> dict[str, float]:
    """Return ``{quantity_ms: ms}``, or ``{quantity_ms@device: ms}`` for each where the metrics name devices."""
    return {Metric.parse(metric).derived(quantity).name: ms for metric, ms in latencies.items()}


def _time_child(
    child: ChildNetwork,
    architecture: str,
    table: LatencyTable,
    sized: SizedSpace,
    folder: Path,
    data: ImageData,
    progress: Progress,
) -> Measured:
    spec = spec_of(table)
    if not spec.runtime.takes_onnx:
        return time_networks({"child": child}, spec, table, sized, progress)["child"]
    file = timed = folder / ".candidate.onnx"
    export_network(child, file, {"architecture": architecture}, spec.opset)
    try:
        if spec.precision == INT8:
            timed = file.with_suffix(spec.runtime.suffix)
            quantize_network(file, timed, data)
        elif spec.file_precision == FLOAT16:
            convert_to_float16(file, file)
        return time_networks({"child": timed}, spec, table, sized, progress)["child"]
    finally:
        for written in {file, timed}:
            written.unlink(missing_ok=True)
