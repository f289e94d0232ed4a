"""Preview a space on one or several devices: the spread of every cost, and the share of architectures in a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwnas.budgets.budget import (
    NAMED,
    SAMPLES,
    Budget,
    Preview,
    binding_limit,
    describe_conflict,
    format_amount,
    limits_of,
    parse_budget,
    preview,
    share_within,
)
from hwnas.budgets.derive import Limits
from hwnas.budgets.infeasible import conflicting_limits, least_under_others
from hwnas.budgets.text import names_devices, targets_of
from hwnas.cost.build import build_metrics, joint_models
from hwnas.cost.carried_head import head_notes
from hwnas.cost.metric import Metric
from hwnas.spaces import SizedSpace
from hwnas.tables.schema import LatencyTable
from hwnas.text import format_table

QUARTILES = dict(sorted(NAMED.items(), key=lambda item: item[1]))  # {name of a budget: percentile}, tightest first


@dataclass(frozen=True)
class BudgetPreview:
    """One budget on a space. ``share`` is the share of architectures that meet it, from 0 to 1.

    For several limits, ``least_under_others`` is the least that each can be while the others hold, ``binding_limit``
    the metric whose limit excludes most (None when no single one does), and ``share_without_it`` the share without it.
    """

    budget: Budget
    share: float
    least_under_others: Mapping[str, float] | None = None
    binding_limit: str | None = None
    share_without_it: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as ``hwnas space preview --json`` prints them."""
        content: dict[str, Any] = {
            "budget": self.budget.text,
            "limits": dict(self.budget.limits),
            "share_of_architectures": self.share,
        }
        if self.least_under_others is not None:
            content["least_under_the_others"] = dict(self.least_under_others)
            content["binding_limit"] = self.binding_limit
            content["share_without_it"] = self.share_without_it
        return content

    def describe(self, about: str) -> str:
        """Return one line, and two more for several limits. ``about`` is "about " when shares are sampled."""
        line = (
            f"budget {self.budget.text}: {self.budget.describe()}: {about}{self.share:.2%} of the architectures keep it"
        )
        if self.least_under_others is None:
            return line
        reach = ", ".join(f"{m} to {format_amount(m, least)}" for m, least in self.least_under_others.items())
        lines = [line, f"  its limits can be met together: under the others {reach}"]
        if self.binding_limit:
            without = f"{about}{self.share_without_it:.2%}"
            lines.append(f"  {self.binding_limit} binds: without that limit {without} would keep it")
        else:
            lines.append("  no single limit binds: without any one of them as many keep it")
        return "\n".join(lines)


@dataclass(frozen=True)
class SpacePreview:
    """Costs of a space on the devices of ``tables``, by metric, and what each budget allows.

    ``joint_limits`` are the limits of all budgets together, empty unless these are several and limit different metrics;
    ``contradiction`` is empty when one architecture can meet them all, else the least that each of some limits can be.
    """

    sized: SizedSpace
    tables: Mapping[str, LatencyTable]
    metrics: Mapping[str, Preview]
    budgets: Sequence[BudgetPreview]
    joint_limits: Limits
    contradiction: Mapping[str, float]

    @property
    def exact(self) -> bool:
        """True when the costs are those of every architecture, false for a sample."""
        return next(iter(self.metrics.values())).exact

    @property
    def notes(self) -> list[str]:
        """Lines on the tables' heads that were carried over (hwnas.cost.carried_head)."""
        return head_notes(self.tables, self.sized)

    @property
    def spread(self) -> dict[str, dict[str, float]]:
        """Least, quartiles and greatest of every metric; sampled quartiles also with their standard errors."""
        return {
            metric: {
                "least": p.least,
                **{name: p.percentile(q) for name, q in QUARTILES.items()},
                "greatest": p.greatest,
                **({} if p.exact else {f"{n}_standard_error": p.percentile_error(q) for n, q in QUARTILES.items()}),
            }
            for metric, p in self.metrics.items()
        }

    def to_json(self) -> dict[str, Any]:
        """Return the content that ``hwnas space preview --json`` prints."""
        budgets = [budget.to_json() for budget in self.budgets]
        content = {"space": self.sized.space.name, "exact": self.exact, "metrics": self.spread, "budgets": budgets}
        content |= {"notes": self.notes} if self.notes else {}
        return content | ({"contradiction_of_all_budgets": dict(self.contradiction)} if self.joint_limits else {})

    def describe(self) -> str:
        """Return a table of the metrics, the notes, and lines on the budgets."""
        sample = f"{SAMPLES:,} random architectures; the least is exact"
        columns = ["metric", "least", *(f"{name} ({q:.0f} %)" for name, q in QUARTILES.items()), "greatest"]
        rows = [
            [metric, *(_amount(metric, values, name) for name in ("least", *QUARTILES, "greatest"))]
            for metric, values in self.spread.items()
        ]
        title = f"{self.sized.describe()}: {'every architecture' if self.exact else sample}"
        lines = [format_table(title, columns, rows), *(f"note: {note}" for note in self.notes)]
        lines += [budget.describe("" if self.exact else "about ") for budget in self.budgets]
        if self.contradiction:
            problem = describe_conflict(self.joint_limits, self.contradiction)
            lines.append(f"all budgets together: no architecture keeps all of them: {problem}")
        elif self.joint_limits:
            lines.append("all budgets together: one architecture can keep them all")
        return "\n".join(lines)

    def plot(self, out: Path) -> None:
        """Draw latency against MACs, or the latencies of two devices, with the budgets, into a .png or .svg file.

        Raises HwnasError for another suffix, more than two devices, and a folder that cannot be written.
        """
        from hwnas.budgets.plot import plot_spread

        devices = "; ".join(table.describe() for table in self.tables.values())
        plot_spread(self.metrics, [b.budget for b in self.budgets], f"{self.sized.describe()}\n{devices}", out)


def _amount(metric: str, values: Mapping[str, float], name: str) -> str:
    """Return an amount with its unit, and the relative standard error of a sampled quartile."""
    error = values.get(f"{name}_standard_error")
    return format_amount(metric, values[name]) + ("" if error is None else f" ±{error / values[name]:.1%}")


def preview_space(tables: Mapping[str, LatencyTable], sized: SizedSpace, texts: Sequence[str]) -> SpacePreview:
    """Return the preview of a space on the devices of ``tables``, with one entry for each budget.

    Raises HwnasError when a table lacks workloads of the space, and for a budget that is invalid or cannot be met.
    """
    models = {device: build_metrics(table, sized) for device, table in tables.items()}
    if len(models) > 1 or any(map(names_devices, texts)):
        previews = preview(joint_models(models))
        budgets = _joint_budgets(list(models), texts, previews)
    else:
        previews = preview(next(iter(models.values())))
        budgets = [parse_budget(text, previews) for text in texts]
    limits = _joint_limits(previews, budgets)
    shares = [_preview_budget(previews, budget) for budget in budgets]
    return SpacePreview(sized, tables, previews, shares, limits, conflicting_limits(limits) if limits else {})


def _joint_budgets(devices: list[str], texts: Sequence[str], previews: Mapping[str, Preview]) -> list[Budget]:
    """Return the budgets of a run for several devices, in the metrics of joint_models.

    A budget that names no device is one budget for each device; without a limit on a device's metric these are equal
    and returned once.
    """
    budgets: list[Budget] = []
    for named, text in targets_of(devices, texts):
        if names_devices(text):
            budget = parse_budget(text, previews)
        else:
            # The limits are read as those of one device, and then get its name.
            metrics = [metric for name in previews if (metric := Metric.parse(name)).device in (None, named[0])]
            joint_names = {metric.on(None).name: metric.name for metric in metrics}
            alone = parse_budget(text, {alone: previews[name] for alone, name in joint_names.items()})
            budget = Budget(alone.text, {joint_names[metric]: bound for metric, bound in alone.limits.items()})
        if budget not in budgets:
            budgets.append(budget)
    return budgets


def _preview_budget(previews: Mapping[str, Preview], budget: Budget) -> BudgetPreview:
    share = share_within(previews, budget)
    if len(budget.limits) == 1:
        return BudgetPreview(budget, share)
    binding = binding_limit(previews, budget)
    least = least_under_others(limits_of(previews, budget))
    return BudgetPreview(budget, share, least, *(binding or (None, None)))


def _joint_limits(previews: Mapping[str, Preview], budgets: Sequence[Budget]) -> Limits:
    """Return the tightest limits of all budgets if these are several and limit different metrics; else none."""
    limits: dict[str, float] = {}
    for budget in budgets:
        limits |= {metric: min(bound, limits.get(metric, bound)) for metric, bound in budget.limits.items()}
    return limits_of(previews, Budget("", limits)) if len(budgets) > 1 and len(limits) > 1 else {}
