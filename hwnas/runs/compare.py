"""Compare the network found for a target with those that were trained for as long: baselines and other finalists."""

from __future__ import annotations

from hwnas.cost.metric import LATENCY, MACS, PARAMS, Metric
from hwnas.finalists.candidates import LEAST_USED, Candidates
from hwnas.finalists.judgement import LAST, Judgement
from hwnas.recipe import Finalists
from hwnas.runs.schema import FOUND, ComparedNetwork
from hwnas.search.target import TargetState
from hwnas.spaces import Architecture
from hwnas.spaces.encoding import encode


def compare_with_baselines(
    judgement: Judgement, target: TargetState, found: Architecture, settings: Finalists
) -> list[ComparedNetwork]:
    """Return the network found, then the target's baselines; nothing where none were trained."""
    baselines = judgement.baselines.get(target.objective.target, {})
    if not baselines:
        return []
    networks = {FOUND: found} | {name: judgement.pool.architectures[index] for name, index in baselines.items()}
    return [_compared(judgement, target, name, each, found, settings) for name, each in networks.items()]


def describe_unused(
    judgement: Judgement, target: TargetState, found: Architecture, inputs_per_node: int | None
) -> str | None:
    """Return a line on a network that uses less than 80 % of its budget: why none that uses more was chosen.

    It compares the validation loss with those of all networks that were trained as long and use 80 %. None for other
    networks.
    """
    candidates = Candidates(judgement.pool.space, target.limits, inputs_per_node)
    share = candidates.shares(encode(judgement.pool.space, [found]))[0]
    if share >= LEAST_USED:
        return None
    own = judgement.result_of(found)
    trained = judgement.trained[LAST]
    choices = judgement.pool.choices[list(trained)]
    using = candidates.within(choices) & (candidates.shares(choices) >= LEAST_USED)
    losses = [r.validation_loss for r, uses in zip(trained.values(), using, strict=True) if uses and not r.diverged]
    line = f"{target.objective.target or 'the network found'} uses {share:.0%} of its budget"
    if own is None:
        return f"{line}; it was not among those trained longest"
    if not losses:
        return f"{line}: of those trained as long, none uses {LEAST_USED:.0%}"
    return (
        f"{line}, with a validation loss of {own.validation_loss:.3f}; the best of {len(losses)} trained as long that "
        f"use at least {LEAST_USED:.0%} has {min(losses):.3f}"
    )


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
