"""Names of the models in a job: the sentinel, whole networks; a workload's models have its key and ``@copies``."""

from __future__ import annotations

from collections.abc import Sequence

SENTINEL_NAME = "sentinel"


def network_names(networks: Sequence[object]) -> list[str]:
    return [f"network{number}" for number in range(len(networks))]


def is_network(name: str) -> bool:
    return name.startswith("network")
