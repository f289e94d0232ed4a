"""Charts of the report's pages, drawn by Vega-Lite in the light colours of the page.

A chart is a Vega-Lite specification (https://vega.github.io/vega-lite/docs/), written as the dictionary that it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hwnas.imports import require_extra
from hwnas.report.theme import FONT, GREY, GRID, INK, MUTED, PALETTE, PAPER
from hwnas.tables.plot import Panel
from hwnas.text import printable, short_number

Rows = Sequence[Mapping[str, Any]]
Spec = dict[str, Any]
LABEL_PIXELS = 300
SHAPES = ("circle", "square", "diamond", "triangle-up")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
MOST_POINTS = 400  # of a line chart that have a tooltip

_TEXTS = {"labelColor": MUTED, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal"}
CONFIG: Spec = {
    "background": PAPER,
    "font": FONT,
    "padding": 6,
    "view": {"stroke": None},
    "axis": {**_TEXTS, "gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED, "labelOverlap": "greedy"},
    "legend": {**_TEXTS, "orient": "bottom", "labelLimit": LABEL_PIXELS, "symbolOpacity": 1},
    "title": {"color": INK, "fontSize": 12, "fontWeight": "bold", "anchor": "start", "limit": 300},
    "header": {"labelColor": INK, "labelFontSize": 11, "labelAnchor": "start", "labelPadding": 3, "labelLimit": 170},
}


def draw(chart: Spec) -> str:
    """Return a chart as SVG."""
    vl_convert = require_extra("vl_convert", "report", "writing a report")
    svg: str = vl_convert.vegalite_to_svg(_clean({"config": CONFIG, **chart}))
    return svg


def _clean(value: Any) -> Any:
    """Return JSON content without the characters that no XML may hold: names come from untrusted files."""
    if isinstance(value, dict):
        return {_clean(key): _clean(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(inner) for inner in value]
    return printable(value) if isinstance(value, str) else value


def png_of(svg: str) -> bytes:
    """Return an SVG file as PNG, with two pixels for each unit."""
    png: bytes = require_extra("vl_convert", "report", "writing a report").svg_to_png(svg, scale=2)
    return png


def pareto(
    networks: Rows,
    front: Rows,
    colours: Mapping[str, str],
    title: str,
    quality: tuple[str, str],
    size: tuple[int, int],
) -> str:
    """Plot networks by ``latency_ms`` and quality with their ``budget_ms``, and the Pareto front as steps.

    ``quality`` is the field, accuracy or perplexity, and the title of its axis. ``label`` names a network, ``href``
    links to its section of the page, ``tip`` is its tooltip. ``size`` is width and height in pixels.
    """
    width, height = size
    scale = {"zero": False, "padding": 14}
    axis = {"tickCount": max(4, width // 90)}
    x = _number("latency_ms", title="latency, ms", scale=scale, axis=axis)
    field, y_title = quality
    y_axis = {"format": ".1%" if field == "accuracy" else "~g", "tickCount": 6}
    y = _number(field, title=y_title, scale=scale, axis=y_axis)
    colour = _by("label", colours, _columns(colours, width))
    shape = _by("label", _repeated(colours, SHAPES), _columns(colours, width))
    point = {"x": x, "y": y, "color": colour, "shape": shape, "href": _name("href"), "description": _name("tip")}
    layers = [
        _layer(
            [row for row in networks if row["budget_ms"] is not None],
            {"type": "rule", "strokeDash": [5, 4], "strokeWidth": 1.6},
            {"x": _number("budget_ms"), "color": colour, "description": _name("budget_tip")},
        ),
        _layer(
            front,
            {"type": "line", "interpolate": "step-after", "color": GREY, "strokeWidth": 1.2, "aria": False},
            {"x": x, "y": y},
        ),
        _layer(
            [row for row in networks if row["least_ms"] is not None],
            {"type": "rule", "strokeWidth": 1.6, "aria": False},
            {"x": _number("least_ms"), "x2": {"field": "most_ms"}, "y": y, "color": colour},
        ),
    ]
    for measured in (True, False):
        fill: Spec = {"filled": True} if measured else {"fill": PAPER, "strokeWidth": 2.5}
        shown = [row for row in networks if row["measured"] == measured]
        layers.append(_layer(shown, {"type": "point", "size": 150, "opacity": 1, **fill}, point))
    return draw({"layer": layers, "width": width, "height": height, "title": title})


def lines(
    rows: Rows, y_title: str, colours: Mapping[str, str], level: float | None = None, percent: bool = False
) -> str:
    """Plot ``y`` over ``epoch``, a line for each ``label``; ``level`` is drawn dashed for comparison."""
    rows = [row for row in rows if row["y"] is not None]
    epochs = sorted({row["epoch"] for row in rows})
    stride = max(1, -(-len(rows) // MOST_POINTS))
    with_tooltip = {*epochs[::stride], *epochs[-1:]}
    epoch_axis = {"tickMinStep": 1, "format": "d", "tickCount": 6, "grid": False}
    y_axis = {"format": ".0%" if percent else "~g", "tickCount": 5}
    line = {
        "x": _number("epoch", title="epoch", axis=epoch_axis, scale={"nice": False}),
        "y": _number("y", title=y_title, scale={"zero": False}, axis=y_axis),
        "color": _by("label", colours, _columns(colours, 280)),
        "strokeDash": _by("label", _repeated(colours, DASHES), _columns(colours, 280)),
    }
    point = {key: line[key] for key in ("x", "y", "color")} | {"description": _name("tip")}
    point_mark = {"type": "point", "filled": True, "size": 12 if len(epochs) <= 30 else 4, "opacity": 1}
    layers = [
        _layer(rows, {"type": "line", "strokeWidth": 1.8, "aria": False}, line),
        _layer(
            [row for row in rows if row["epoch"] in with_tooltip],
            {**point_mark, "strokeWidth": 9, "strokeOpacity": 0},
            point,
        ),
    ]
    if level is not None:
        rule = {"type": "rule", "color": MUTED, "strokeDash": [4, 3], "aria": False}
        layers.insert(0, _layer([{"y": level}], rule, {"y": _number("y")}))
    return draw({"layer": layers, "width": 280, "height": 170})


def probabilities(rows: Rows, ops: Mapping[str, str], edges: Sequence[str]) -> str:
    """Plot every operation's ``probability`` over ``epoch``, stacked to 1, in a panel for each of ``edges``."""
    epochs = {"tickMinStep": 1, "format": "d", "tickCount": 4, "grid": False}
    shares = {"values": [0, 0.5, 1], "grid": False}
    area = {
        "mark": {"type": "area", "strokeWidth": 0.5, "stroke": PAPER, "interpolate": "linear"},
        "encoding": {
            "x": _number("epoch", title=None, axis=epochs, scale={"nice": False}),
            "y": _number("probability", title=None, stack="zero", scale={"domain": [0, 1]}, axis=shares),
            "color": _by("op", ops, columns=3),
            "order": _number("order"),
            "description": _name("tip"),
        },
        "width": 128,
        "height": 64,
    }
    panels = _name("edge", title=None, sort=list(edges))
    return draw({**_data(rows), "facet": panels, "spec": area, "columns": 2, "spacing": {"row": 8, "column": 14}})


def heat_map(panel: Panel, domain: tuple[float, float], per_ms: float | None) -> str:
    """Plot a panel of a table as a heat map of latencies in ms, on a logarithmic scale that panels share.

    With ``per_ms``, the number of units in a millisecond, the cells are annotated in that unit.
    """
    cells: list[Spec] = [
        {
            "row": row,
            "column": column,
            "ms": ms,
            "text": short_number(ms * (per_ms or 1)),
            "tip": f"{row}; {column}; {ms:.4g} ms",
        }
        for row, values in zip(panel.rows, panel.ms, strict=True)
        for column, ms in zip(panel.columns, values, strict=True)
        if ms is not None
    ]
    middle = (domain[0] * domain[1]) ** 0.5
    long_labels = max(map(len, panel.columns)) > 6
    bare = {"ticks": False, "domain": False, "labelLimit": 220, "labelOverlap": False}
    above = {"orient": "top", "labelAngle": -60 if long_labels else 0, **bare}
    position = {
        "x": _name("column", title=None, sort=list(panel.columns), axis=above),
        "y": _name("row", title=None, sort=list(panel.rows), axis=bare),
    }
    legend = {"title": "ms", "format": ".2~g", "gradientLength": 200, "direction": "horizontal"}
    colour = _number(
        "ms",
        scale={"type": "log", "scheme": "viridis", "domain": list(domain), "clamp": True},
        legend={**legend, "values": [domain[0], middle, domain[1]]},
    )
    tip = {"description": _name("tip")}
    layers = [
        _layer(
            [cell for cell in cells if cell["ms"] > 0],
            {"type": "rect", "stroke": PAPER},
            {**position, "color": colour, **tip},
        ),
        _layer(
            [cell for cell in cells if cell["ms"] <= 0],
            {"type": "rect", "color": GREY, "stroke": PAPER},
            {**position, **tip},
        ),
    ]
    if per_ms:
        for bright in (True, False):
            shown = [cell for cell in cells if (cell["ms"] > middle) == bright]
            text = {"type": "text", "fontSize": 9, "color": "black" if bright else "white", "aria": False}
            layers.append(_layer(shown, text, {**position, "text": _name("text")}))
    return draw({"layer": layers, "width": {"step": 34 if per_ms else 20}, "height": {"step": 22}})


def additivity(rows: Rows, colours: Mapping[str, str]) -> str:
    """Plot ``predicted_ms`` of networks against ``measured_ms``, by ``label``; both are equal on the dashed line."""
    ends = [f(row[key] for row in rows for key in ("predicted_ms", "measured_ms")) for f in (min, max)]
    both = {"scale": {"zero": False, "domain": ends, "padding": 8, "nice": False}, "axis": {"tickCount": 5}}
    position = {
        "x": _number("measured_ms", title="measured, ms", **both),
        "y": _number("predicted_ms", title="predicted, ms", **both),
    }
    dashed = {"type": "line", "color": MUTED, "strokeDash": [4, 3], "strokeWidth": 1.2, "aria": False}
    layers = [
        _layer([{"measured_ms": end, "predicted_ms": end} for end in ends], dashed, position),
        _layer(
            rows,
            {"type": "point", "filled": True, "size": 42, "opacity": 0.8},
            {**position, "color": _by("label", colours, columns=2), "description": _name("tip")},
        ),
    ]
    return draw({"layer": layers, "width": 270, "height": 270})


def predictions(rows: Rows, roles: Sequence[str]) -> str:
    """Plot ``predicted`` of trainings, with bars from ``least`` to ``most``, against ``value``, by ``role``.

    Both are equal on the dashed line. ``roles`` are all that a page has: each has the same look in every chart.
    """
    looks = {role: look for role, *look in zip(roles, PALETTE, SHAPES, strict=False)}
    present = [role for role in roles if any(row["role"] == role for row in rows)]
    colours, shapes = ({role: looks[role][index] for role in present} for index in (0, 1))
    ends = [f(row[key] for row in rows for key in ("predicted", "value")) for f in (min, max)]
    both = {"scale": {"zero": False, "padding": 8, "nice": False}, "axis": {"tickCount": 5}}
    x, y = _number("predicted", title="predicted", **both), _number("value", title="after the training", **both)
    colour = _by("role", colours)
    dashed = {"type": "line", "color": MUTED, "strokeDash": [4, 3], "strokeWidth": 1.2, "aria": False}
    layers = [
        _layer([{"predicted": end, "value": end} for end in ends], dashed, {"x": x, "y": y}),
        _layer(
            rows,
            {"type": "rule", "strokeWidth": 1.2, "opacity": 0.6, "aria": False},
            {"x": _number("least", title="predicted"), "x2": {"field": "most"}, "y": y, "color": colour},
        ),
        _layer(
            rows,
            {"type": "point", "size": 60, "opacity": 1, "filled": True},
            {
                "x": x,
                "y": y,
                "color": colour,
                "shape": _by("role", shapes),
                "description": _name("tip"),
            },
        ),
    ]
    return draw({"layer": layers, "width": 270, "height": 230})


def verification(rows: Rows, labels: Sequence[str]) -> str:
    """Plot ``ms`` in a line for each network; ``what`` is "budget", "predicted" or "measured"."""
    kinds = {"budget": ("M0,-1V1", PALETTE[1]), "predicted": ("circle", GREY), "measured": ("diamond", PALETTE[0])}
    shapes, colours = ({kind: looks[index] for kind, looks in kinds.items()} for index in (0, 1))
    x = _number("ms", title="latency, ms", scale={"zero": False, "padding": 14}, axis={"tickCount": 5})
    y = _lanes(labels)
    layers = [
        _layer(
            [row for row in rows if row["least_ms"] is not None],
            {"type": "rule", "strokeWidth": 2, "color": PALETTE[0], "aria": False},
            {"x": _number("least_ms"), "x2": {"field": "most_ms"}, "y": y},
        ),
        _layer(
            rows,
            {"type": "point", "size": 90, "opacity": 1, "strokeWidth": 2.4},
            {"x": x, "y": y, "color": _by("what", colours), "shape": _by("what", shapes), "description": _name("tip")},
        ),
    ]
    return draw({"layer": layers, "width": 250, "height": {"step": 30}})


def strip(rows: Rows, means: Rows, levels: Rows, x_title: str, names: Sequence[str], percent: bool = False) -> str:
    """Plot the ``value`` of every seed as a point in the line of its ``label``, the ``means`` as bars, and levels.

    ``levels`` are drawn dashed for comparison. ``href`` links a point to its section of the page; ``tip`` is the
    tooltip of a point, bar or level.
    """
    axis = {"format": ".0%" if percent else ",~f", "tickCount": 5}
    tip = {"description": _name("tip")}
    position = {"x": _number("value", title=x_title, scale={"zero": True, "padding": 8}, axis=axis), "y": _lanes(names)}
    layers = [
        _layer(
            levels,
            {"type": "rule", "strokeDash": [4, 3], "strokeWidth": 1.6, "color": MUTED},
            {"x": _number("value"), **tip},
        ),
        _layer(
            means,
            {"type": "tick", "orient": "vertical", "thickness": 3, "size": 19, "color": INK, "opacity": 1},
            {**position, **tip},
        ),
        _layer(
            rows,
            {"type": "point", "filled": True, "size": 52, "opacity": 0.85, "color": PALETTE[0]},
            {**position, "yOffset": {"field": "seed", "type": "ordinal"}, "href": _name("href"), **tip},
        ),
    ]
    return draw({"layer": layers, "width": 210, "height": {"step": 25, "for": "position"}})


def scatter(panels: Mapping[str, tuple[Rows, Rows]], looks: Mapping[str, str], x_title: str, side_by_side: bool) -> str:
    """Plot, for each panel, points of ``x`` and ``y`` by ``label``, and their means larger.

    ``href`` links a small point to its section of the page. Panels are ``side_by_side`` or below each other.
    """
    scale = {"zero": False, "padding": 10}
    columns = _columns(looks, 900 if side_by_side else 310)
    small = {"type": "point", "size": 42, "fill": PAPER, "strokeWidth": 2, "opacity": 1}
    charts = []
    for title, (rows, means) in panels.items():
        look = {
            "x": _number("x", title=x_title, scale=scale, axis={"tickCount": 5}),
            "y": _number("y", title=title, scale=scale, axis={"tickCount": 6}),
            "color": _by("label", looks, columns),
            "shape": _by("label", _repeated(looks, SHAPES), columns),
            "description": _name("tip"),
        }
        layers = [
            _layer(means, {"type": "point", "size": 150, "filled": True, "opacity": 1}, look),
            _layer(rows, small, {**look, "href": _name("href")}),
        ]
        charts.append({"layer": layers, "width": 262, "height": 230})
    return draw({"hconcat" if side_by_side else "vconcat": charts})


def _data(rows: Rows) -> Spec:
    return {"data": {"values": [dict(row) for row in rows]}}


def _layer(rows: Rows, mark: Spec, encoding: Spec) -> Spec:
    """Return a layer of a chart: a mark for every row, or a line through all."""
    return {**_data(rows), "mark": mark, "encoding": encoding}


def _number(field: str, **options: Any) -> Spec:
    """Return an encoding channel that shows a number of each row."""
    return {"field": field, "type": "quantitative", **options}


def _name(field: str, **options: Any) -> Spec:
    """Return an encoding channel that shows a text of each row."""
    return {"field": field, "type": "nominal", **options}


def _lanes(names: Sequence[str]) -> Spec:
    """Return the vertical channel of a chart with a line for each of ``names``."""
    axis = {"labelLimit": 150, "grid": True, "ticks": False, "domain": False}
    return _name("label", title=None, sort=list(names), axis=axis)


def _by(field: str, looks: Mapping[str, Any], columns: int | None = None) -> Spec:
    """Return an encoding channel that maps every name to its look, with a legend."""
    names = list(looks)
    scale = {"domain": names, "range": list(looks.values())}
    legend = {} if columns is None else {"legend": {"columns": columns, "title": None}}
    return _name(field, title=None, sort=names, scale=scale, **legend)


def _repeated(names: Iterable[str], looks: Sequence[Any]) -> dict[str, Any]:
    """Return a look for each name, the next one each time that the palette repeats."""
    return {name: looks[number // len(PALETTE) % len(looks)] for number, name in enumerate(names)}


def _columns(names: Mapping[str, str], width: int) -> int:
    """Return the number of legend entries that fit side by side."""
    longest = min(LABEL_PIXELS, 7 * max(map(len, names), default=1) + 30)
    return max(1, width // longest)
