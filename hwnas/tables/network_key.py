"""Networks that a latency table was made for: parse their names, choose one, fill a gap."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from hwnas.errors import HwnasError
from hwnas.spaces import SearchSpace, Setting, SizedSpace, builtin_space, get_space
from hwnas.spaces.space import IMAGE_SIZES
from hwnas.tables.schema import LatencyTable
from hwnas.tables.unlike_sizes import differences, in_words
from hwnas.text import quoted

# The names that SizedSpace.key writes.
KEY = re.compile(r"([\w.-]+)(@[0-9a-f]{12})?/(\d+)x(\d+)/(\d+)x(\d+)x(\d+)/(\d+)(/imagenet|/words)?(/pool-norm)?")


def networks_of(table: LatencyTable, own: SearchSpace | None = None) -> list[SizedSpace]:
    """Return the networks that a table was made for, from their names in it.

    Known are the built-in spaces and the user's ``own``; other names are left out.
    """
    result = []
    for found in _keys(table):
        name = found[1] + (found[2] or "")
        space = own if own and own.key == name else builtin_space(name)
        if space:
            channels, depth, image_channels, height, width, classes = (int(n) for n in found.groups()[2:8])
            setting = Setting(channels, depth, image_channels, height, width, classes)
            stem = found[9].removeprefix("/") if found[9] else "cifar"
            setting = replace(setting, stem=stem, pool_norm=bool(found[10]))
            result.append(SizedSpace(space, setting))
    return result


def describe_key(key: str) -> str:
    """Return the name of a network in tables for people: "nasbench201 16x5, 3x32x32 input, 10 classes"."""
    found = KEY.fullmatch(key)
    if not found:
        return key
    channels, depth, *image, classes = found.groups()[2:8]
    if found[9] == "/words":
        return f"{found[1]} {channels}, {classes} words"
    others = [text for text, group in (("imagenet stem", found[9]), ("batch norm after pooling", found[10])) if group]
    return ", ".join([f"{found[1]} {channels}x{depth}", f"{'x'.join(image)} input", f"{classes} classes", *others])


def _keys(table: LatencyTable) -> list[re.Match[str]]:
    names = dict.fromkeys([*table.correction, *table.edge_costs])
    return [found for name in names if (found := KEY.fullmatch(name))]


def require_same_space(table: LatencyTable, space: SearchSpace) -> None:
    """Raise HwnasError when a table was made for another definition of a space with this name."""
    made_for = {found[1] + (found[2] or "") for found in _keys(table) if found[1] == space.name}
    if space.origin and made_for and space.key not in made_for:
        raise HwnasError(
            f"the table was made for {', '.join(sorted(made_for))}, but {space.spec} defines {space.key}",
            f"give that definition, or {profile_command(SizedSpace.named(space))}",
        )


def choose_network(
    table: LatencyTable, space: SearchSpace | str | None, setting_name: str | None, **changes: int | None
) -> SizedSpace:
    """Return the network that the arguments describe; values that they leave open are those of the table.

    Raises HwnasError when the table was made for several such networks, and when it was made for a space of the user's
    own that ``space`` does not name.
    """
    asked = get_space(space) if isinstance(space, str) else space
    made_for = [network for network in networks_of(table, asked) if asked in (None, network.space)]
    if asked:
        require_same_space(table, asked)
    given = {key: value for key, value in changes.items() if value is not None}
    if not setting_name and made_for:
        fitting = _fitting(made_for, given)
        if not fitting:  # the images may differ from those of the table
            sizes = {key: value for key, value in given.items() if key not in IMAGE_SIZES}
            fitting = list(dict.fromkeys(network.resized(**given) for network in _fitting(made_for, sizes)))
        if len(fitting) == 1:
            return fitting[0]
        usual = [network for network in fitting if network == SizedSpace.named(network.space)]
        if len(usual) == 1:
            return usual[0]
        if len(fitting) > 1:
            names = ", ".join(network.key for network in made_for)
            unlike = {option for other in fitting[1:] for option in differences(fitting[0], other)}
            options = ["--space"] if "--space" in unlike else sorted(unlike)
            raise HwnasError(
                f"the table was made for several networks ({names})", f"say which with {' and '.join(options)}"
            )
    if not asked and not made_for and (strange := sorted({found[1] for found in _keys(table) if found[2]})):
        raise HwnasError(
            f"the table was made for a space of your own, {strange[0]}", "say which file with --space FILE.yaml"
        )
    spaces = {network.space.name for network in made_for}
    chosen = asked or get_space(spaces.pop() if len(spaces) == 1 else "nasbench201")
    return SizedSpace.named(chosen, setting_name, **changes)


def _fitting(networks: list[SizedSpace], sizes: Mapping[str, int]) -> list[SizedSpace]:
    """Return the networks whose setting has the given sizes."""
    return [n for n in networks if all(getattr(n.setting, key) == value for key, value in sizes.items())]


def common_network(
    tables: Mapping[str, LatencyTable], space: SearchSpace | str | None, setting: str | None, **changes: int | None
) -> SizedSpace:
    """Return the network of several devices' tables, as ``choose_network`` does.

    Raises HwnasError, which names the sizes that differ, when the tables were made for different networks.
    """
    chosen = {name: choose_network(table, space, setting, **changes) for name, table in tables.items()}
    (name, first), *others = chosen.items()
    for other_name, other in others:
        if unlike := differences(first, other):
            raise HwnasError(
                f"the tables were made for different networks: {name} is for {in_words(unlike)} as {other_name} is",
                f"say which with {' and '.join(unlike)}",
            )
    return first


def named_setting(sized: SizedSpace) -> str:
    """Return the name of the setting that equals this one, or of one that differs in sizes only."""
    space, setting = sized.space, sized.setting
    alike = [n for n, s in space.settings.items() if (s.stem, s.pool_norm) == (setting.stem, setting.pool_norm)]
    return next((n for n in alike if space.settings[n] == setting), alike[0] if alike else space.search_setting)


def profile_command(sized: SizedSpace) -> str:
    """Return advice with the command that measures the missing workloads of a network."""
    return f"measure them with `hwnas profile {size_options(sized)} --out TABLE`"


def fit_command(sized: SizedSpace) -> str:
    """Return advice with the command that fits a table to whole networks of these sizes."""
    return (
        f"fit a table to such networks with `hwnas table fit {size_options(sized)} --measurements FILE.csv --out TABLE`"
    )


def fill_command(table: LatencyTable, sized: SizedSpace) -> str:
    """Return advice with the command that makes a table of the given table's kind for a network."""
    return fit_command(sized) if table.edge_costs and not table.entries else profile_command(sized)


def size_options(sized: SizedSpace) -> str:
    """Return the options that name a space and its sizes on the command line."""
    space, setting, name = sized.space, sized.setting, named_setting(sized)
    base = space.settings[name]
    options = f"--space {quoted(space.spec)}" + f" --setting {quoted(name)}" * (name != space.search_setting)
    for option, field in (("--channels", "channels"), ("--layers", "depth"), ("--classes", "classes")):
        if getattr(setting, field) != getattr(base, field):
            options += f" {option} {getattr(setting, field)}"
    if (setting.image_channels, setting.height, setting.width) != (base.image_channels, base.height, base.width):
        options += f" --input {setting.image_channels}x{setting.height}x{setting.width}"
    return options
