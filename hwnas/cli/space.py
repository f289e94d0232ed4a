"""``hwnas space …``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.app import command, space_app
from hwnas.cli.options import (
    ArchitectureText,
    AsJson,
    Channels,
    Classes,
    InputShape,
    Layers,
    SettingName,
    SpaceName,
    TableSpace,
    parse_input,
)
from hwnas.cli.output import open_tables, show_json
from hwnas.spaces import Cell
from hwnas.spaces.chain import HEAD


@command(space_app, "count", "hwnas space count --space darts --architecture DARTS_V2 --channels 36 --layers 20")
def space_count(
    architecture: ArchitectureText,
    space: SpaceName = "nasbench201",
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Count the parameters, multiply-accumulates and memory of an architecture's network exactly."""
    from hwnas.api import size_changes
    from hwnas.cost.memory import memory_access_model
    from hwnas.cost.peak import peak_model
    from hwnas.networks.child import ChildNetwork
    from hwnas.networks.count import count_network
    from hwnas.spaces import SizedSpace, get_space

    chosen = get_space(space)
    name = setting or chosen.evaluation_setting(architecture)
    changes = size_changes(channels, layers, parse_input(input_shape), classes)
    sized = SizedSpace.named(chosen, name, **changes)
    parsed = chosen.parse(architecture)
    counts = count_network(ChildNetwork(sized, parsed))
    memory_access, peak = (round(m(sized).predict(parsed)) for m in (memory_access_model, peak_model))
    convention = chosen.macs_convention
    if as_json:
        show_json(
            {
                "space": chosen.name,
                "architecture": chosen.format(parsed),
                "setting": name,
                "channels": sized.setting.channels,
                "layers": sized.setting.depth,
                "input": [sized.setting.image_channels, sized.setting.height, sized.setting.width],
                "classes": sized.setting.classes,
                "params": counts.params,
                "macs": counts.macs(convention),
                "macs_convention": convention,
                "macs_fvcore": counts.macs_fvcore,
                "macs_conv_linear": counts.macs_conv_linear,
                "memory_access_bytes": memory_access,
                "peak_activation_bytes": peak,
            }
        )
        return
    print(chosen.format(parsed))
    print(f"{name}: {sized.setting.describe()}")
    mark = {c: "  <- the space's convention" if c == convention else "" for c in ("fvcore", "conv_linear")}
    print(f"params {counts.params:>15,}  without auxiliary head")
    print(f"macs   {counts.macs_fvcore:>15,}  as fvcore counts them, batch norm included{mark['fvcore']}")
    print(
        f"macs   {counts.macs_conv_linear:>15,}  convolutions and classifier with its bias alone{mark['conv_linear']}"
    )
    print(
        f"bytes  {memory_access:>15,}  memory access: activations read and written, and weights, one image in float32"
    )
    print(f"bytes  {peak:>15,}  peak memory: the most that activations hold at once, likewise")


@command(space_app, "show", "hwnas space show --space darts")
def space_show(space: SpaceName = "nasbench201", as_json: AsJson = False) -> None:
    """Describe a search space: operations, cells, named sizes."""
    from hwnas.spaces import get_space
    from hwnas.spaces.backbone import BackboneSpace

    chosen = get_space(space)
    if as_json:
        show_json(
            {
                "space": chosen.name,
                "operations": chosen.operations,
                "architectures": chosen.num_architectures,
                "cells": {
                    k: {"edges": c.edges, "outputs": c.outputs, "least_inputs": c.least_inputs}
                    for k, c in chosen.cells.items()
                },
                "settings": {name: vars(s) for name, s in chosen.settings.items()},
                "published": dict(chosen.published),
            }
        )
        return
    print(f"{chosen.name}: {chosen.num_architectures:,} architectures")
    print(f"operations: {', '.join(chosen.operations)}")
    for kind, cell in chosen.cells.items():
        if isinstance(chosen, BackboneSpace):
            print(chosen.layout.describe())
            continue
        if cell.is_chain:
            print(_describe_chain(cell))
            continue
        least = cell.least_inputs
        rule = f"; every node has at least {least} input{'s' * (least > 1)}" if least else ""
        print(f"cell {kind}: {len(cell.edges)} edges {' '.join(f'{a}>{b}' for a, b in cell.edges)}{rule}")
    for name, sizes in chosen.settings.items():
        marks = " (searches use this)" * (name == chosen.search_setting)
        print(f"setting {name}: {sizes.describe()}{marks}")
    if chosen.published:
        print(f"published cells by name: {', '.join(chosen.published)}")


def _describe_chain(cell: Cell) -> str:
    """Return the number of layers, the groups that are skipped from the last one on, and the widths of the stages."""
    widths = [f"{e + 1} ({' '.join(cell.offers[e])})" for e in cell.width_edges if cell.offers]
    fixed = sum(offers == (HEAD,) for offers in cell.offers or ())
    text = f"{len(cell.edges) - len(widths) - fixed} layers"
    if depths := [f"{group[0] + 1} to {group[-1] + 1}" for group in cell.skipped_last]:
        text += f"; skipped from the last one on: {'words ' if widths else ''}{', '.join(depths)}"
    return text + f"; widths, in an architecture's words: {', '.join(widths)}" * bool(widths)


@command(space_app, "preview", "hwnas space preview --table cpu.json --budget 60% --budget 300k-params")
def space_preview(
    table: Annotated[list[Path], typer.Option("--table", help="A latency table; repeat it for more devices.")],
    space: TableSpace = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Also show what this budget allows, such as 60%, or 4ms@phone,3ms@cpu for two tables."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Also draw latency against MACs (or the latencies of two devices) and the budgets, into .png or .svg."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the spread of costs over a space on one or several devices, and what budgets allow."""
    from hwnas import api

    if plot:
        from hwnas.plotting import require_picture

        require_picture(plot)
    found = api.preview(
        open_tables(table),
        budget or [],
        space=space,
        setting=setting,
        channels=channels,
        layers=layers,
        input_shape=parse_input(input_shape),
        classes=classes,
    )
    if plot:
        found.plot(plot)
    if as_json:
        show_json(found.to_json())
        return
    print(found.describe())
    if plot:
        print(f"drawn into {plot}")
