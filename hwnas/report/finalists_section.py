"""The section of a page about the finalists of one target: how it was chosen, and what it is compared with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hwnas.finalists.record import FinalistRow
from hwnas.report.charts import predictions
from hwnas.report.figure import Figure
from hwnas.report.run_content import RunContent, Target
from hwnas.runs.schema import ComparedNetwork

ROLES = ("chosen", "finalist", "baseline")


@dataclass(frozen=True)
class FinalistsSection:
    """``comparison`` and ``finalists`` are rows of texts; ``figure`` is None where no model predicted a training."""

    comparison: list[list[str]]
    epochs: int
    finalists: list[list[str]]
    figure: Figure | None


def finalists_section(run: RunContent, target: Target, label: str, stem: str) -> FinalistsSection | None:
    """Return the section of a target; None without finalists. ``stem`` starts the name of its figure."""
    compared = target.row.comparison
    first, last = _trainings(run, target)
    if not (compared or first):
        return None
    order = sorted(first, key=lambda row: _rank(row, last.get(row.architecture)))
    return FinalistsSection(
        [_compared(network) for network in compared],
        compared[0].epochs if compared else 0,
        [_finalist(row, last.get(row.architecture), target) for row in order],
        _figure(first, target, label, stem),
    )


def _trainings(run: RunContent, target: Target) -> tuple[list[FinalistRow], dict[str, FinalistRow]]:
    """Return a target's trainings of the first stage, and those of the last by architecture."""
    rows = run.finalists.trainings if run.finalists else []
    own = [row for row in rows if target.id in row.targets or _baselines(row, target)]
    return [row for row in own if row.stage == "first"], {row.architecture: row for row in own if row.stage == "last"}


def _baselines(row: FinalistRow, target: Target) -> list[str]:
    """Return the names of a target's baselines that a training is of."""
    start = f"{target.id}: "
    return [text.removeprefix(start) for text in row.baselines if text.startswith(start)]


def _rank(first: FinalistRow, last: FinalistRow | None) -> tuple[bool, float]:
    """Return what orders trainings: those of the last stage before the others, each group with the best first."""
    value = (last or first).value
    return last is None or value is None, math.inf if value is None else -value


def _compared(network: ComparedNetwork) -> list[str]:
    *trained, used = network.describe()
    return [*trained, f"{network.macs:,}", f"{network.params:,}", used]


def _finalist(row: FinalistRow, last: FinalistRow | None, target: Target) -> list[str]:
    names = ["chosen"] * (row.architecture == target.row.architecture)
    names += [f"baseline: {name}" for name in _baselines(row, target)]
    names += ["no evidence"] * (not (last or row).evidence)
    names += ["diverged"] * (row.value is None or (last is not None and last.value is None))
    predicted = "–" if row.predicted is None else f"{row.predicted:.3f} ± {row.deviation:.3f}"
    return [
        row.architecture,
        "–" if row.round is None else str(row.round),
        predicted,
        "–" if row.value is None else f"{row.value:.3f}",
        _percent(row.validation_accuracy),
        _percent(last.validation_accuracy if last else None),
        ", ".join(names),
    ]


def agreement(run: RunContent) -> list[str]:
    """Return a line on how well predictions agree with trainings, in each round and after the last stage."""
    found = run.finalists
    if not found:
        return []
    rounds = [f"round {n} {tau:+.2f}" for n, tau in enumerate(found.round_agreement, start=1) if tau is not None]
    sources = [f"{name} {tau:+.2f}" for name, tau in found.agreement.items() if tau is not None]
    texts = (("the model's predictions with a round's trainings", rounds), ("with the longer trainings", sources))
    return [f"Kendall's tau {what}: {', '.join(taus)}." for what, taus in texts if taus]


def _figure(first: Sequence[FinalistRow], target: Target, label: str, stem: str) -> Figure | None:
    points = [
        {
            "predicted": row.predicted,
            "least": row.predicted - row.deviation,
            "most": row.predicted + row.deviation,
            "value": row.value,
            "role": _role(row, target),
            "round": row.round,
            "architecture": row.architecture,
            "validation_accuracy": row.validation_accuracy,
            "tip": f"{row.architecture}; predicted {row.predicted:.3f} ± {row.deviation:.3f}, "
            f"trained {row.value:.3f}, accuracy {_percent(row.validation_accuracy)}",
        }
        for row in first
        if row.predicted is not None and row.deviation is not None and row.value is not None
    ]
    if not points:
        return None
    caption = (
        f"{label}: minus the validation loss that the accuracy model predicted before a training, with one standard "
        "deviation, against that after it; both are equal on the dashed line"
    )
    data = [{key: value for key, value in point.items() if key != "tip"} for point in points]
    return Figure(f"{stem}-finalists", caption, predictions(points, ROLES), data)


def _role(row: FinalistRow, target: Target) -> str:
    if row.architecture == target.row.architecture:
        return "chosen"
    return "finalist" if target.id in row.targets else "baseline"


def _percent(accuracy: float | None) -> str:
    return "–" if accuracy is None else f"{accuracy:.1%}"
