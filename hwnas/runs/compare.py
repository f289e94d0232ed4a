"""Compare the network found for a target with baselines that were trained as its finalists were."""

from __future__ import annotations

from hwnas.cost.metric import LATENCY, MACS, PARAMS, Metric
from hwnas.finalists.judgement import Judgement
from hwnas.recipe import Finalists
from hwnas.runs.schema import FOUND, ComparedNetwork
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture


def compare_with_baselines(
    judgement: Judgement, target: TargetState, found: Architecture, settings: Finalists
) -> list[ComparedNetwork]:
    """Return the network found, then the target's baselines; nothing where none were trained."""
    baselines = judgement.baselines.get(target.objective.target, {})
    if not baselines:
        return []
    networks = {FOUND: found} | {name: judgement.pool.architectures[index] for name, index in baselines.items()}
    return [_compared(judgement, target, name, each, found, settings) for name, each in networks.items()]


def _compared(
    judgement: Judgement,
    target: TargetState,
    name: str,
    architecture: Architecture,
    found: Architecture,
    settings: Finalists,
) -> ComparedNetwork:
    objective, result = target.objective, judgement.result_of(architecture)
    costs = {metric: model.predict(architecture) for metric, model in objective.costs.items()}
    measured = {metric: Metric.parse(metric) for metric in costs}
    latencies = {m: metric.device or objective.device for m, metric in measured.items() if metric.on(None) == LATENCY}
    return ComparedNetwork(
        name=name,
        is_found=judgement.pool.key(architecture) == judgement.pool.key(found),
        architecture=judgement.pool.space.format(architecture, all_edges=True),
        epochs=settings.epochs + settings.last_epochs,
        validation_accuracy=result.validation_accuracy if result else None,
        validation_loss=result.validation_loss if result else None,
        macs=round(costs[MACS.name]),
        params=round(costs[PARAMS.name]),
        predicted_ms={device: costs[metric] for metric, device in latencies.items()},
        share=max(costs[metric] / bound for metric, bound in objective.budget.limits.items()),
    )
