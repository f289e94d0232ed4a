"""One network on several devices: ``4ms@phone`` in a budget, ``latency_ms@phone`` among the metrics.

A budget that names devices is one target for all of them; any other is asked of every device by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from hwnas.cost.metrics import Metric

LATENCY = "latency_ms"


def names_devices(budget_text: str) -> bool:
    return "@" in budget_text


def latency_on(device: str) -> str:
    """What the latency on a device is called among several devices' metrics."""
    return f"{LATENCY}@{device}"


def device_of(metric: str) -> str | None:
    """The device that a metric names, if it names one."""
    return metric.partition("@")[2] or None


def quantity_of(metric: str) -> str:
    """The metric without its device: what is measured, in which unit."""
    return metric.partition("@")[0]


def devices_of(metrics: Iterable[str]) -> list[str]:
    """The devices that any of the metrics name, each once."""
    return list(dict.fromkeys(device for metric in metrics if (device := device_of(metric))))


def joint_models(models: Mapping[str, Mapping[str, Metric]]) -> dict[str, Metric]:
    """The cost models of several devices, by name, as those of one: a latency for each, and once what does not depend
    on the device.
    """
    first = next(iter(models.values()))
    latencies = {
        latency_on(device): replace(costs[LATENCY], metric=latency_on(device)) for device, costs in models.items()
    }
    return latencies | {metric: model for metric, model in first.items() if metric != LATENCY}


def targets_of(devices: Iterable[str], budget_texts: Iterable[str]) -> list[tuple[tuple[str, ...], str]]:
    """A run's targets in their order, each its devices and its budget: every budget on every device, then those that
    name devices, in the order in which the run has these.
    """
    known, texts = list(devices), [text.strip() for text in budget_texts]
    alone = [((device,), text) for device in known for text in texts if not names_devices(text)]
    named = [(text, {part.partition("@")[2].strip() for part in text.split(",")}) for text in texts]
    joint = [(tuple(d for d in known if d in names), text) for text, names in named if names_devices(text)]
    return alone + joint


def table_file(devices: Collection[str], device: str) -> str:
    """Where a run for ``devices`` keeps the table of one of them."""
    return "table.json" if len(devices) == 1 else f"tables/{device}.json"
