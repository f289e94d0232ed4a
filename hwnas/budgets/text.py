"""Parse the devices and the amounts that budgets name, without resolving relative limits.

Units of time and of built-in counts may be in small or capital letters: ``4 MS`` is 4 milliseconds, ``300m-MACs`` 300
million. Units of registered metrics are read as they are written, where ``mJ`` and ``MJ`` are two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from hwnas.cost.metric import BYTE_UNITS, BYTES, LATENCY, METRICS, Metric
from hwnas.errors import HwnasError
from hwnas.units import time_unit, without_micro_signs

AT = "@"  # 4ms@phone
NUMBER = r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*"
PREFIXES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "B": 1e9}
ANY_CASE = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}  # of counts, which have no thousandths


def split_device(limit: str) -> tuple[str, str | None]:
    """Split one limit of a budget into its amount and the device that it names; None where it names none."""
    amount, at, device = (part.strip() for part in limit.partition(AT))
    return amount, device if at else None


def names_devices(budget: str) -> bool:
    """Return whether a budget names devices: it is then one target for all of them."""
    return AT in budget


def targets_of(devices: Iterable[str], budgets: Iterable[str]) -> list[tuple[tuple[str, ...], str]]:
    """Return the devices and the budget of each target of a run, in order.

    A budget that names no device is a target of every device. Budgets that name devices follow, each once, with its
    devices in the order of the run.
    """
    known, texts = list(devices), [text.strip() for text in budgets]
    alone = [((device,), text) for device in known for text in texts if not names_devices(text)]
    named = [(text, {split_device(limit)[1] or "" for limit in text.split(",")}) for text in texts]
    joint = [(tuple(d for d in known if d in names), text) for text, names in named if names_devices(text)]
    return alone + joint


def absolute_limit(amount: str) -> tuple[Metric, float] | None:
    """Return the metric and the bound, in its unit, of ``4.5ms`` or ``300M-macs``; None for a text of another form."""
    text = without_micro_signs(amount)
    if (found := re.fullmatch(rf"{NUMBER}([a-z]+)", text, re.IGNORECASE)) and (unit := time_unit(found[2])):
        return LATENCY, float(found[1]) * LATENCY.units[unit]
    in_bytes = {metric.option.lower(): metric for metric in METRICS.values() if metric.unit == BYTES}
    if found := re.fullmatch(rf"{NUMBER}([a-z]+)\s*[- ]\s*({'|'.join(in_bytes)})", text, re.IGNORECASE):
        sizes = {unit.lower(): size for unit, size in BYTE_UNITS.items()}
        mixed = found[2] not in BYTE_UNITS and not (found[2].islower() or found[2].isupper())  # Mb is a megabit
        size = None if mixed else sizes.get(found[2].lower())
        return (in_bytes[found[3].lower()], float(found[1]) * size) if size else None
    others = [metric for metric in METRICS.values() if metric.unit != BYTES and metric != LATENCY]
    units = {unit: (metric, size) for metric in others for unit, size in metric.units.items()}
    counts = {unit.lower(): (metric, size) for unit, (metric, size) in units.items() if not metric.unit}
    return _in_units(text, units, PREFIXES) or _in_units(text.lower(), counts, ANY_CASE)


def _in_units(
    text: str, units: Mapping[str, tuple[Metric, float]], prefixes: Mapping[str, float]
) -> tuple[Metric, float] | None:
    """Return the metric and the bound of a number with one of the prefixes and one of the units."""
    named = "|".join(map(re.escape, units))
    found = re.fullmatch(rf"{NUMBER}([{''.join(prefixes)}]?)\s*[- ]?\s*({named})", text)
    if found is None:
        return None
    metric, size = units[found[3]]
    return metric, float(found[1]) * prefixes[found[2]] * size


def refuse_decimal_comma(budget: str) -> None:
    """Raise HwnasError where a comma stands within a number: a comma separates limits."""
    for whole, rest in pairwise(part.strip() for part in budget.split(",")):
        if whole.isdecimal() and (fraction := re.match(r"\d+", rest)):
            thousand = f", or {whole}{rest} if it separates thousands" if len(fraction[0]) == 3 else ""
            raise HwnasError(
                f"budget {budget!r} has a decimal comma in '{whole},{fraction[0]}'",
                f"write {whole}.{rest}{thousand}: a comma separates limits",
            )
