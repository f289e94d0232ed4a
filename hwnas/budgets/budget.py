"""Budgets: upper bounds in physical units, parsed and previewed against a space on a device."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import Limits, cheapest
from hwnas.budgets.infeasible import conflicting_limits
from hwnas.budgets.text import NUMBER, absolute_limit, refuse_decimal_comma, split_device
from hwnas.cost.build import CostFunction
from hwnas.cost.metric import LATENCY, METRICS, Metric
from hwnas.cost.model import Array
from hwnas.cost.peak import PeakModel
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, SearchSpace
from hwnas.spaces.encoding import ENUMERABLE, every_choice, offered, random_choices
from hwnas.units import without_micro_signs

NAMED = {"mild": 75.0, "moderate": 50.0, "aggressive": 25.0}
SAMPLES = 20_000
PEAK_SAMPLES = 2_000  # the first of them: a peak takes a millisecond
FORMS = (
    "use mild, moderate, aggressive, 4.5ms, 800us, 60%, 60%-macs, 300M-macs, 2.5M-params, 40MB-memory-access or "
    "2MB-peak-memory; join several with a comma; 4.5ms@NAME where one network is for several devices"
)


@dataclass(frozen=True)
class Budget:
    """Upper bounds on metrics, by the metric's name. ``text`` is the user's, ``name`` is safe as the name of a folder.

    A budget that names devices (``4ms@phone,3ms@cpu``) limits ``latency_ms@phone`` and so on, for one network on all.
    """

    text: str
    limits: Mapping[str, float]

    @property
    def name(self) -> str:
        text = without_micro_signs(self.text).replace("%", "pct").replace(",", "_").replace("@", "-on-")
        return re.sub(r"[^\w.-]", "", text)

    @property
    def devices(self) -> list[str]:
        """The devices that the limits name, each once."""
        return _devices(self.limits)

    def describe(self) -> str:
        return ", ".join(f"{metric} <= {format_amount(metric, bound)}" for metric, bound in self.limits.items())


def format_amount(metric: str, value: float) -> str:
    """Return a cost with its unit, for people."""
    return Metric.parse(metric).format(value)


def _devices(metrics: Iterable[str]) -> list[str]:
    """Return the devices that any of the metrics name, each once."""
    return list(dict.fromkeys(device for metric in metrics if (device := Metric.parse(metric).device)))


@dataclass(frozen=True)
class Preview:
    """The distribution of one metric over a space.

    ``choices`` [N, edges of all cells] are all architectures when ``exact`` (the space can be enumerated), otherwise
    uniform random ones; ``costs`` [N] are their costs. ``least`` is the exact minimum over architectures with a path
    through every cell. ``greatest`` is the cost of the costliest operation on every edge, or the largest of ``costs``.
    """

    model: CostFunction
    choices: NDArray[np.intp]
    exact: bool

    @cached_property
    def costs(self) -> Array:
        return self.model.predict_many(self.choices)

    @cached_property
    def least(self) -> float:
        return self.model.predict(cheapest(self.model))

    @cached_property
    def greatest(self) -> float:
        return max(float(self.model.predict_many(_costliest(self.model)[None])[0]), float(self.costs.max()))

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.costs, q))

    def percentile_error(self, q: float) -> float:
        """Return the standard error of a percentile: half the distance between order statistics one sigma away."""
        if self.exact:
            return 0.0
        sigma = 100 * np.sqrt(q / 100 * (1 - q / 100) / len(self.costs))
        return (self.percentile(min(q + sigma, 100)) - self.percentile(max(q - sigma, 0))) / 2


def _costliest(model: CostFunction) -> NDArray[np.intp]:
    """Return the costliest operation of every edge [edges of all cells]."""
    if isinstance(model, PeakModel):
        return model.heaviest()
    space, (_, edges) = model.space, model.linear()
    used = np.array([op != NONE for op in space.operations]) & offered(space)
    return np.where(used, np.concatenate([edges[kind] for kind in space.cells]), -np.inf).argmax(axis=1)


def all_choices(space: SearchSpace) -> tuple[NDArray[np.intp], bool]:
    """Return all architectures of a space as operation indices and True, or a uniform sample (fixed seed) and False."""
    if space.num_architectures <= ENUMERABLE:
        return every_choice(space), True
    return random_choices(space, SAMPLES, np.random.default_rng(0)), False


def preview(models: Mapping[str, CostFunction]) -> dict[str, Preview]:
    """Preview every metric over one set of architectures; peak memory over the first of a sample."""
    space = next(iter(models.values())).space
    choices, exact = all_choices(space)
    few = choices if exact else choices[:PEAK_SAMPLES]
    return {
        metric: Preview(model, few if isinstance(model, PeakModel) else choices, exact)
        for metric, model in models.items()
    }


def share_within(previews: Mapping[str, Preview], budget: Budget) -> float:
    """Return the share of the previewed architectures that meet every limit."""
    return float(np.logical_and.reduce(list(_met(previews, budget).values())).mean())


def _met(previews: Mapping[str, Preview], budget: Budget) -> dict[str, NDArray[np.bool_]]:
    """Return for every limit a mask [N] of the architectures, previewed for all its metrics, that meet it."""
    number = min(len(previews[metric].choices) for metric in budget.limits)
    return {metric: previews[metric].costs[:number] <= bound for metric, bound in budget.limits.items()}


def parse_budget(text: str, previews: Mapping[str, Preview]) -> Budget:
    """Parse a budget: limits joined by commas, with relative ones resolved against the previews.

    ``mild``, ``moderate``, ``aggressive`` are the 75th, 50th and 25th percentile of latency over the space's
    architectures; ``60%`` is that share of the greatest latency. ``-macs``, or another metric's option, after either
    takes that metric. ``@NAME`` after a measured metric names the device; ``previews`` are then of ``joint_models``.

    Raises HwnasError for an unknown unit or device, for a device that is missing or does not matter, and for limits
    that no architecture of the space meets.
    """
    refuse_decimal_comma(text)
    limits: dict[str, float] = {}
    for part in text.split(","):
        metric, bound = _limit(part.strip(), previews)
        limits[metric] = min(bound, limits.get(metric, np.inf))
    budget = Budget(text.strip(), limits)
    for metric, bound in limits.items():
        spread = previews[metric]
        if bound < spread.least:
            raise HwnasError(
                f"budget {text!r} cannot be met: {metric} of this space lies between "
                f"{format_amount(metric, spread.least)} and {format_amount(metric, spread.greatest)} here",
                "give a larger one ('hwnas space preview' shows what a budget allows)",
            )
    require_possible(text, limits_of(previews, budget))
    return budget


def limits_of(previews: Mapping[str, Preview], budget: Budget) -> Limits:
    """Return the budget's limits as derivation takes them. Raises HwnasError for a metric that nothing predicts."""
    if unknown := [metric for metric in budget.limits if metric not in previews]:
        raise HwnasError(
            f"budget {budget.text!r} limits {', '.join(unknown)}, which nothing here predicts",
            "load the file that registers the metric, as the search did",
        )
    return {metric: (previews[metric].model, bound) for metric, bound in budget.limits.items()}


def require_possible(text: str, limits: Limits, inputs_per_node: int | None = None) -> None:
    """Raise HwnasError with the minimum of each metric where no architecture meets all limits."""
    if least := conflicting_limits(limits, inputs_per_node):
        raise HwnasError(f"budget {text!r} cannot be met: {describe_conflict(limits, least)}", "give a larger one")


def describe_conflict(limits: Limits, least: Mapping[str, float]) -> str:
    """Describe the result of ``conflicting_limits``."""
    bounds = " and ".join(f"{metric} <= {format_amount(metric, limits[metric][1])}" for metric in least)
    if len(least) == 1:
        return f"no architecture has {bounds}, the least is {', '.join(format_amount(m, v) for m, v in least.items())}"
    reach = ", ".join(f"{metric} goes down to {format_amount(metric, value)}" for metric, value in least.items())
    return f"{bounds} contradict each other; within the other{'s' * (len(least) > 2)}, {reach}"


def binding_limit(previews: Mapping[str, Preview], budget: Budget) -> tuple[str, float] | None:
    """Return the limit whose removal admits most architectures, and the share that then meet the budget.

    The share is exact or sampled as the previews are. None where no single limit's removal admits another architecture.
    """
    keeps = _met(previews, budget)
    without = {
        metric: float(np.logical_and.reduce([kept for other, kept in keeps.items() if other != metric]).mean())
        for metric in keeps
    }
    metric = max(without, key=lambda m: without[m])
    return (metric, without[metric]) if without[metric] > share_within(previews, budget) else None


def _limit(text: str, previews: Mapping[str, Preview]) -> tuple[str, float]:
    """Return the name of the metric that a limit is on, and the bound in the metric's unit."""
    amount, device = split_device(text)
    by_option = {metric.option.lower(): metric for metric in METRICS.values()}
    if found := re.fullmatch(rf"(?:({'|'.join(NAMED)})|{NUMBER}%)(?:\s*-\s*({'|'.join(by_option)}))?", amount, re.I):
        metric = _on_device(text, by_option[(found[3] or LATENCY.option).lower()], device, previews)
        spread = previews[metric]
        if found[1]:
            return metric, spread.percentile(NAMED[found[1].lower()])
        return metric, float(found[2]) / 100 * spread.greatest
    limit = absolute_limit(amount)
    if limit is None:
        raise HwnasError(f"cannot read budget {text!r}", FORMS)
    return _on_device(text, limit[0], device, previews), limit[1]


def _on_device(text: str, metric: Metric, device: str | None, previews: Mapping[str, Preview]) -> str:
    """Return the name of the metric that a limit is on, among those previewed."""
    known = _devices(previews)
    if not metric.measured:
        if device is not None:
            raise HwnasError(f"{metric.name} in {text!r} do not depend on the device", f"leave out '@{device}'")
    elif device is None and known:
        raise HwnasError(f"{text!r} does not say on which device", f"write {text}@NAME with one of {', '.join(known)}")
    elif device is not None and device not in known:
        raise HwnasError(f"budget {text!r} is on an unknown device {device!r}", f"known: {', '.join(known) or 'none'}")
    name = metric.on(device).name
    if name not in previews:
        raise HwnasError(f"budget {text!r} limits {name}, which nothing here predicts", f"use {', '.join(previews)}")
    return name
