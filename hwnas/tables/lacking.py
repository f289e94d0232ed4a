"""The error of a table that lacks workloads of a network: which sizes differ, what is missing, what makes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from hwnas.errors import HwnasError
from hwnas.spaces import Setting, SizedSpace
from hwnas.tables.network_key import fill_command, networks_of
from hwnas.tables.schema import LatencyTable
from hwnas.tables.unlike_sizes import differences, in_words
from hwnas.text import first_few


def nearest_differences(tables: Iterable[LatencyTable], wanted: SizedSpace) -> dict[str, str]:
    """Return the ``differences`` of that network of the tables which has the fewest; empty where none is known.

    The depth does not count where entries were measured, unless it is the only difference: networks of any depth have
    the same workloads.
    """
    found = []
    for table in tables:
        networks = networks_of(table, wanted.space) or _networks_of_entries(table, wanted)
        for unlike in (differences(network, wanted) for network in networks):
            if table.entries and len(unlike) > 1:
                unlike.pop("--layers", None)
            found.append(unlike)
    return min(found, key=lambda unlike: ("--space" in unlike, len(unlike)), default={})


def lacking_error(table: LatencyTable, sized: SizedSpace, missing: Sequence[str], needed: int) -> HwnasError:
    """Return the error of a table that lacks the workloads ``missing`` of the ``needed`` ones of a network.

    It names the sizes that differ, then the workloads, and the command that makes a table of these sizes.
    """
    unlike = in_words(nearest_differences([table], sized))
    fix = fill_command(table, sized)
    if table.edge_costs and not table.entries:
        known = ", ".join(table.edge_costs)
        return HwnasError(f"the table is for {unlike or known}: it was fitted to whole networks of {known} alone", fix)
    return HwnasError(
        f"the table {f'is for {unlike}: it ' if unlike else ''}lacks {len(missing)} of {needed} workloads of space "
        f"{sized.space.name} ({sized.setting.describe()}): {first_few(list(missing))}",
        fix,
    )


def _networks_of_entries(table: LatencyTable, wanted: SizedSpace) -> list[SizedSpace]:
    """Return the networks whose stem and head a table holds, of the wanted one's kind, where it names no network."""
    stem, head = next(wanted.network.fixed_workloads()), wanted.network.head
    classes = {entry.out_channels for entry in table.entries if entry.op == head.op}
    if not classes:
        return []
    settings: list[Setting] = []
    for entry in (entry for entry in table.entries if entry.op == stem.op):
        channels = max(round(entry.out_channels * wanted.setting.channels / stem.out_channels), 1)
        shaped = replace(wanted.setting, image_channels=entry.in_channels, height=entry.height, width=entry.width)
        settings.append(replace(shaped, channels=channels))
    if wanted.setting.classes not in classes:
        nearest = min(classes, key=lambda number: abs(number - wanted.setting.classes))
        settings = [replace(setting, classes=nearest) for setting in settings or [wanted.setting]]
    return [SizedSpace(wanted.space, setting) for setting in settings]
