"""Parse the devices that budgets name, without resolving their limits."""

from __future__ import annotations

from collections.abc import Iterable

AT = "@"  # 4ms@phone


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
