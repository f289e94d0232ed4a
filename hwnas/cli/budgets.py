"""What ``hwnas space preview`` says of budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hwnas.budgets.budget import Budget, Preview
    from hwnas.budgets.derive import Limits


def budgets_on(devices: list[str], texts: list[str], previews: Mapping[str, Preview]) -> list[Budget]:
    """The budgets of a run for several devices, by the metrics of joint_models. One that names no device is a budget
    for each, and of one that limits no latency that is the same.
    """
    from hwnas.budgets.budget import Budget, parse_budget
    from hwnas.budgets.text import names_devices, targets_of
    from hwnas.cost.metric import Metric

    budgets: list[Budget] = []
    for named, text in targets_of(devices, texts):
        if names_devices(text):
            budget = parse_budget(text, previews)
        else:
            # The limits are read as those of one device, and then get its name.
            metrics = [metric for name in previews if (metric := Metric.parse(name)).device in (None, named[0])]
            name_here = {metric.on(None).name: metric.name for metric in metrics}
            alone = parse_budget(text, {alone: previews[name] for alone, name in name_here.items()})
            limits = {name_here[metric]: bound for metric, bound in alone.limits.items()}
            budget = Budget(alone.text, limits)
        if budget not in budgets:
            budgets.append(budget)
    return budgets


def budget_facts(previews: Mapping[str, Preview], budget: Budget) -> dict[str, Any]:
    """What a budget allows; of several limits also how far each can go down under the others, and which one binds."""
    from hwnas.budgets.budget import binding_limit, limits_of, share_within
    from hwnas.budgets.infeasible import least_under_others

    facts: dict[str, Any] = {
        "budget": budget.text,
        "limits": dict(budget.limits),
        "share_of_architectures": share_within(previews, budget),
    }
    if len(budget.limits) > 1:
        binding = binding_limit(previews, budget)
        facts["least_under_the_others"] = least_under_others(limits_of(previews, budget))
        facts["binding_limit"] = binding[0] if binding else None
        facts["share_without_it"] = binding[1] if binding else None
    return facts


def together(previews: Mapping[str, Preview], budgets: list[Budget]) -> Limits:
    """The limits of all budgets at once, if these are several and limit different metrics; else none."""
    from hwnas.budgets.budget import Budget, limits_of

    limits: dict[str, float] = {}
    for budget in budgets:
        limits |= {metric: min(bound, limits.get(metric, bound)) for metric, bound in budget.limits.items()}
    return limits_of(previews, Budget("", limits)) if len(budgets) > 1 and len(limits) > 1 else {}


def show_budgets(
    budgets: list[Budget], facts: list[dict[str, Any]], limits: Limits, least: Mapping[str, float], exact: bool
) -> None:
    """A line a budget, and two more of several limits; at last whether one architecture can keep all the budgets.

    ``limits`` are those of all budgets at once, ``least`` what ``hwnas.budgets.infeasible`` finds of these; ``exact``
    says that the shares are not sampled.
    """
    from hwnas.budgets.budget import describe_conflict, format_amount

    about = "" if exact else "about "

    for budget, fact in zip(budgets, facts, strict=True):
        share = f"{about}{fact['share_of_architectures']:.2%} of the architectures keep it"
        print(f"budget {budget.text}: {budget.describe()}: {share}")
        if len(budget.limits) == 1:
            continue
        reach = ", ".join(f"{m} to {format_amount(m, least)}" for m, least in fact["least_under_the_others"].items())
        print(f"  its limits can be met together: under the others {reach}")
        if fact["binding_limit"]:
            without = f"{about}{fact['share_without_it']:.2%}"
            print(f"  {fact['binding_limit']} binds: without that limit {without} would keep it")
        else:
            print("  no limit binds alone: without any one of them as many keep it")
    if limits:
        can = f"no architecture keeps all of them: {describe_conflict(limits, least)}"
        print(f"all budgets together: {can if least else 'one architecture can keep them all'}")
