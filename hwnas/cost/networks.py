"""The networks that a latency table was made for: their names in the table, and how to fill a gap."""

from __future__ import annotations

import re
from dataclasses import replace

from hwnas.errors import HwnasError
from hwnas.spaces import SPACES, SearchSpace, Setting, get_space
from hwnas.tables.schema import LatencyTable


def network_key(space: SearchSpace, setting: Setting) -> str:
    """The name of a network's sizes in a table's ``correction`` and ``additivity``."""
    s = setting
    sizes = f"{s.channels}x{s.depth}/{s.image_channels}x{s.height}x{s.width}/{s.classes}"
    return f"{space.name}/{sizes}" + ("" if s.stem == "cifar" else f"/{s.stem}") + ("/pool-norm" if s.pool_norm else "")


def networks_of(table: LatencyTable) -> list[tuple[SearchSpace, Setting]]:
    """The networks that a table was made for, read back from their names; other names are passed over."""
    result = []
    for key in dict.fromkeys([*table.correction, *table.edge_costs]):
        form = r"([\w-]+)/(\d+)x(\d+)/(\d+)x(\d+)x(\d+)/(\d+)(/imagenet)?(/pool-norm)?"
        found = re.fullmatch(form, key)
        if found and found[1] in SPACES:
            channels, depth, image_channels, height, width, classes = (int(n) for n in found.groups()[1:7])
            setting = Setting(channels, depth, image_channels, height, width, classes)
            setting = replace(setting, stem="imagenet" if found[8] else "cifar", pool_norm=bool(found[9]))
            result.append((SPACES[found[1]], setting))
    return result


def choose_network(
    table: LatencyTable, space_name: str | None, setting_name: str | None, **changes: int | None
) -> tuple[SearchSpace, Setting]:
    """The network a user means: by what is said, else the one that the table was made for.

    Raises HwnasError when a table was made for several and nothing says which.
    """
    made_for = [(s, sizes) for s, sizes in networks_of(table) if space_name in (None, s.name)]
    said = {key: value for key, value in changes.items() if value is not None}
    if not setting_name and made_for:
        fitting = [
            (space, sizes)
            for space, sizes in made_for
            if all(getattr(sizes, key) == value for key, value in said.items())
        ]
        if len(fitting) == 1:
            return fitting[0]
        usual = [(space, sizes) for space, sizes in fitting if sizes == space.settings[space.search_setting]]
        if len(usual) == 1:
            return usual[0]
        if len(fitting) > 1:
            names = ", ".join(network_key(space, sizes) for space, sizes in fitting)
            raise HwnasError(
                f"the table was made for several networks ({names})", "say which with --space and --setting"
            )
    spaces = {space.name for space, _ in made_for}
    space = get_space(space_name or (spaces.pop() if len(spaces) == 1 else "nasbench201"))
    return space, space.setting(setting_name or space.search_setting, **changes)


def named_setting(space: SearchSpace, setting: Setting) -> str:
    """The space's named setting that is this one, or else differs from it in sizes alone."""
    alike = [n for n, s in space.settings.items() if (s.stem, s.pool_norm) == (setting.stem, setting.pool_norm)]
    return next((n for n in alike if space.settings[n] == setting), alike[0] if alike else space.search_setting)


def profile_command(space: SearchSpace, setting: Setting) -> str:
    """The command that measures what a table lacks of a network."""
    name = named_setting(space, setting)
    base = space.settings[name]
    options = f" --setting {name}" if name != space.search_setting else ""
    for option, field in (("--channels", "channels"), ("--layers", "depth"), ("--classes", "classes")):
        if getattr(setting, field) != getattr(base, field):
            options += f" {option} {getattr(setting, field)}"
    if (setting.image_channels, setting.height, setting.width) != (base.image_channels, base.height, base.width):
        options += f" --input {setting.image_channels}x{setting.height}x{setting.width}"
    return f"measure them with 'hwnas profile --space {space.name}{options} --out TABLE'"
