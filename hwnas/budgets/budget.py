"""Budgets: upper bounds in the user's own units, and what a device allows before anything is searched."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hwnas.budgets.derive import Limits, cheapest
from hwnas.budgets.infeasible import contradiction
from hwnas.budgets.text import split_device
from hwnas.cost.build import CostFunction
from hwnas.cost.metric import BYTE_UNITS, BYTES, LATENCY, METRICS, Metric
from hwnas.cost.model import Array
from hwnas.cost.peak import PeakModel
from hwnas.errors import HwnasError
from hwnas.spaces import NONE, SearchSpace
from hwnas.spaces.encoding import ENUMERABLE, every_choice

NAMED = {"mild": 75.0, "moderate": 50.0, "aggressive": 25.0}
SAMPLES = 20_000
PEAK_SAMPLES = 2_000  # the first of them: a peak takes a millisecond
PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
FORMS = (
    "use mild, moderate, aggressive, 4.5ms, 800us, 60%, 60%-macs, 300M-macs, 2.5M-params, 40MB-memory-access or "
    "2MB-peak-memory; join several with a comma; 4.5ms@NAME where one network is for several devices"
)


@dataclass(frozen=True)
class Budget:
    """Upper bounds on metrics. ``name`` is safe as a folder's name, ``text`` what the user wrote.

    One that names devices (``4ms@phone,3ms@cpu``) limits ``latency_ms@phone`` and so on, by one network for all.
    """

    text: str
    limits: Mapping[str, float]

    @property
    def name(self) -> str:
        return re.sub(r"[^\w.-]", "", self.text.replace("%", "pct").replace(",", "_").replace("@", "-on-"))

    @property
    def devices(self) -> list[str]:
        """The devices that the limits name."""
        return _devices(self.limits)

    def describe(self) -> str:
        return ", ".join(f"{metric} <= {format_amount(metric, bound)}" for metric, bound in self.limits.items())


def format_amount(metric: str, value: float) -> str:
    """A cost with its unit, for people."""
    return Metric.parse(metric).format(value)


def _devices(metrics: Iterable[str]) -> list[str]:
    """Return the devices that any of the metrics name, each once."""
    return list(dict.fromkeys(device for metric in metrics if (device := Metric.parse(metric).device)))


@dataclass(frozen=True)
class Preview:
    """How one metric is spread over a space.

    ``choices`` [N, edges of all cells] are every architecture when ``exact`` (the space can be enumerated), else
    uniform random ones; ``costs`` [N] is what they cost. ``least`` is exact either way, taken over networks in which
    every cell has a path from an input to an output; ``greatest`` is that of the costliest operation on every edge, or
    the costliest seen, if that is more.
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
        """Standard error of a sampled percentile (half the distance between order statistics one sigma away)."""
        if self.exact:
            return 0.0
        sigma = 100 * np.sqrt(q / 100 * (1 - q / 100) / len(self.costs))
        return (self.percentile(min(q + sigma, 100)) - self.percentile(max(q - sigma, 0))) / 2


def _costliest(model: CostFunction) -> NDArray[np.intp]:
    """The costliest operation of every edge [edges of all cells]."""
    if isinstance(model, PeakModel):
        return model.heaviest()
    space, (_, edges) = model.space, model.linear()
    used = np.array([op != NONE for op in space.operations])
    return np.concatenate([np.where(used, edges[kind], -np.inf).argmax(axis=1) for kind in space.cells])


def all_choices(space: SearchSpace) -> tuple[NDArray[np.intp], bool]:
    """Every architecture of the space as operation indices, or a uniform sample with a fixed seed; and which it is."""
    if space.num_architectures <= ENUMERABLE:
        return every_choice(space), True
    return np.random.default_rng(0).integers(len(space.operations), size=(SAMPLES, space.num_edges)), False


def preview(models: Mapping[str, CostFunction]) -> dict[str, Preview]:
    """The spread of every metric over the space, over one set of architectures (of peak memory over the first of a
    sample).
    """
    space = next(iter(models.values())).space
    choices, exact = all_choices(space)
    few = choices if exact else choices[:PEAK_SAMPLES]
    return {
        metric: Preview(model, few if isinstance(model, PeakModel) else choices, exact)
        for metric, model in models.items()
    }


def share_within(previews: Mapping[str, Preview], budget: Budget) -> float:
    """The share of the architectures previewed for all of the budget's metrics that keep every limit."""
    return float(np.logical_and.reduce(list(_keeps(previews, budget).values())).mean())


def _keeps(previews: Mapping[str, Preview], budget: Budget) -> dict[str, NDArray[np.bool_]]:
    """For every limit, which [N] of the architectures that were previewed for all of the budget's metrics keep it."""
    number = min(len(previews[metric].choices) for metric in budget.limits)
    return {metric: previews[metric].costs[:number] <= bound for metric, bound in budget.limits.items()}


def parse_budget(text: str, previews: Mapping[str, Preview]) -> Budget:
    """Read one budget: limits joined by commas, relative ones resolved against the previews.

    ``mild``, ``moderate``, ``aggressive`` are the 75th, 50th and 25th percentile of latency over the space's
    architectures; ``60%`` is that share of the greatest latency. ``-macs`` behind either, or another of NAMES, takes
    that metric. ``@NAME`` behind a latency says on which device; ``previews`` then hold joint_models' metrics. Raises
    HwnasError for an unknown unit or device, a latency without its device among others or another metric with one, when
    no architecture of the space is so cheap, or when limits contradict each other.
    """
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
    """Raise HwnasError that says how far down each limit can go, when no architecture keeps all of the budget's."""
    if least := contradiction(limits, inputs_per_node):
        raise HwnasError(f"budget {text!r} cannot be met: {describe_contradiction(limits, least)}", "give a larger one")


def describe_contradiction(limits: Limits, least: Mapping[str, float]) -> str:
    """In words, the ``least`` that ``hwnas.budgets.infeasible`` has found."""
    bounds = " and ".join(f"{metric} <= {format_amount(metric, limits[metric][1])}" for metric in least)
    if len(least) == 1:
        return f"no architecture has {bounds}, the least is {', '.join(format_amount(m, v) for m, v in least.items())}"
    reach = ", ".join(f"{metric} goes down to {format_amount(metric, value)}" for metric, value in least.items())
    return f"{bounds} contradict each other; within the other{'s' * (len(least) > 2)}, {reach}"


def binding_limit(previews: Mapping[str, Preview], budget: Budget) -> tuple[str, float] | None:
    """Without which limit most architectures would keep the budget, and the share that then would; exact or sampled as
    the previews are. None where no single limit's removal lets another architecture in.
    """
    keeps = _keeps(previews, budget)
    without = {
        metric: float(np.logical_and.reduce([kept for other, kept in keeps.items() if other != metric]).mean())
        for metric in keeps
    }
    metric = max(without, key=lambda m: without[m])
    return (metric, without[metric]) if without[metric] > share_within(previews, budget) else None


def _limit(text: str, previews: Mapping[str, Preview]) -> tuple[str, float]:
    """Read one limit: the name of its metric, and the bound in the metric's unit."""
    amount, device = split_device(text)
    by_option = {metric.option: metric for metric in METRICS.values()}
    in_bytes = {option: metric for option, metric in by_option.items() if metric.unit == BYTES}
    by_unit = {unit: metric for metric in METRICS.values() if metric.unit != BYTES for unit in metric.units}
    number = r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)\s*"
    if found := re.fullmatch(rf"({'|'.join(NAMED)}|\d+(?:\.\d+)?%)(?:-({'|'.join(by_option)}))?", amount):
        metric = _on_device(text, by_option[found[2] or LATENCY.option], device, previews)
        spread = previews[metric]
        if found[1] in NAMED:
            return metric, spread.percentile(NAMED[found[1]])
        return metric, float(found[1][:-1]) / 100 * spread.greatest
    if found := re.fullmatch(rf"{number}({'|'.join(BYTE_UNITS)})[- ]({'|'.join(in_bytes)})", amount):
        return _on_device(text, in_bytes[found[3]], device, previews), float(found[1]) * BYTE_UNITS[found[2]]
    if found := re.fullmatch(rf"{number}([kKMGB]?)[- ]?({'|'.join(by_unit)})", amount):
        metric = _on_device(text, by_unit[found[3]], device, previews)
        return metric, float(found[1]) * PREFIXES[found[2]] * by_unit[found[3]].units[found[3]]
    raise HwnasError(f"cannot read budget {text!r}", FORMS)


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
        raise HwnasError(f"budget {text!r} limits {name}, which nothing says here", f"use {', '.join(previews)}")
    return name
