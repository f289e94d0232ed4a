"""Time target networks after their training, where their devices are this machine, and compare with their budgets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hwnas.errors import HwnasError
from hwnas.export.timing import require_its_device
from hwnas.progress import Progress
from hwnas.runs.derived import SavedNetwork
from hwnas.runs.read import read_networks, read_tables
from hwnas.runs.schema import NetworkRow, SummaryRow
from hwnas.runs.verify import verify_networks


def time_trained(rows: Sequence[NetworkRow], folders: Sequence[Path], progress: Progress) -> list[NetworkRow]:
    """Time the networks in ``folders``, each on all its devices, and return ``rows`` with their latencies.

    Networks of devices that are not this machine stay as they are, and one line says so; another says why a machine
    is too noisy.
    """
    networks = [network for folder in folders for network in read_networks(folder)]
    elsewhere = _elsewhere(networks)
    for problem in dict.fromkeys(elsewhere.values()):
        progress.log(f"not timed: {problem}")
    here = [network for network in networks if not network.tables.keys() & elsewhere.keys()]
    if not here:
        return list(rows)
    try:
        timed = {result.target: result.to_json() for result in verify_networks(here, None, progress)}
    except HwnasError as error:
        progress.log(f"the networks are trained and exported, but not timed: {error}")
        return list(rows)
    return [
        SummaryRow.model_validate(row.to_json() | timed[row.target]) if row.target in timed else row for row in rows
    ]


def _elsewhere(networks: Sequence[SavedNetwork]) -> dict[str, str]:
    """Return the reason why a device is not this machine, by device name, for those that are not."""
    reasons = {}
    for device, table in read_tables(networks).items():
        try:
            require_its_device(table)
        except HwnasError as error:
            reasons[device] = error.problem
    return reasons
