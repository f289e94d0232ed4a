"""Charts of the report's pages, drawn with Altair in the light colours of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hwnas.imports import require_extra
from hwnas.report.theme import FONT, GREY, GRID, INK, MUTED, PALETTE, PAPER
from hwnas.tables.plot import Panel
from hwnas.text import printable, short_number

if TYPE_CHECKING:
    import altair as alt
else:
    alt = require_extra("altair", "report", "writing a report")

Rows = Sequence[Mapping[str, Any]]
LABEL_PIXELS = 300
SHAPES = ("circle", "square", "diamond", "triangle-up")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3])
MOST_POINTS = 400  # of a line chart that have a tooltip


class Data:
    """The rows of a chart by name: Altair would validate rows inside the chart one by one."""

    def __init__(self) -> None:
        self._sets: dict[str, list[dict[str, Any]]] = {}

    def __call__(self, rows: Rows) -> alt.NamedData:
        name = f"rows{len(self._sets)}"
        self._sets[name] = [dict(row) for row in rows]
        return alt.NamedData(name=name)

    def draw(self, chart: Any) -> str:
        """Return the SVG of a chart of these rows."""
        vl_convert = require_extra("vl_convert", "report", "writing a report")
        look = {"labelColor": MUTED, "titleColor": INK, "labelFontSize": 11, "titleFontSize": 12}
        lines = {"gridColor": GRID, "domainColor": MUTED, "tickColor": MUTED}
        styled = (
            chart.configure(background=PAPER, font=FONT, padding=6)
            .configure_view(stroke=None)
            .configure_axis(**look, **lines, titleFontWeight="normal", labelOverlap="greedy")
            .configure_legend(
                **look, titleFontWeight="normal", orient="bottom", labelLimit=LABEL_PIXELS, symbolOpacity=1
            )
            .configure_title(color=INK, fontSize=12, fontWeight="bold", anchor="start", limit=300)
            .configure_header(labelColor=INK, labelFontSize=11, labelAnchor="start", labelPadding=3, labelLimit=170)
        )
        version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
        svg: str = vl_convert.vegalite_to_svg(_clean(styled.to_dict() | {"datasets": self._sets}), vl_version=version)
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
    networks: Rows, front: Rows, colours: Mapping[str, str], title: str, y_title: str, size: tuple[int, int]
) -> str:
    """Plot networks by ``latency_ms`` and ``accuracy`` with their ``budget_ms``, and the Pareto front as steps.

    ``label`` names a network, ``href`` links to its section of the page, ``tip`` is its tooltip. ``size`` is width and
    height in pixels.
    """
    data, (width, height) = Data(), size
    x = alt.X(
        "latency_ms:Q",
        title="latency, ms",
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(tickCount=max(4, width // 90)),
    )
    y = alt.Y(
        "accuracy:Q",
        title=y_title,
        scale=alt.Scale(zero=False, padding=14),
        axis=alt.Axis(format=".1%", tickCount=6),
    )
    colour = _by("label", colours, alt.Color, columns=_columns(colours, width))
    shape = _by("label", _repeated(colours, SHAPES), alt.Shape, columns=_columns(colours, width))
    layers = [
        alt.Chart(data([row for row in networks if row["budget_ms"] is not None]))
        .mark_rule(strokeDash=[5, 4], strokeWidth=1.6)
        .encode(x=alt.X("budget_ms:Q"), color=colour, description="budget_tip:N"),
        alt.Chart(data(front))
        .mark_line(interpolate="step-after", color=GREY, strokeWidth=1.2, aria=False)
        .encode(x=x, y=y),
        alt.Chart(data([row for row in networks if row["least_ms"] is not None]))
        .mark_rule(strokeWidth=1.6, aria=False)
        .encode(x=alt.X("least_ms:Q"), x2="most_ms:Q", y=y, color=colour),
    ]
    for measured in (True, False):
        fill = {"filled": True} if measured else {"fill": PAPER, "strokeWidth": 2.5}
        layers.append(
            alt.Chart(data([row for row in networks if row["measured"] == measured]))
            .mark_point(size=150, opacity=1, **fill)
            .encode(x=x, y=y, color=colour, shape=shape, href="href:N", description="tip:N")
        )
    return data.draw(alt.layer(*layers).properties(width=width, height=height, title=title))


def lines(
    rows: Rows, y_title: str, colours: Mapping[str, str], level: float | None = None, percent: bool = False
) -> str:
    """Plot ``y`` over ``epoch``, a line for each ``label``; ``level`` is drawn dashed for comparison."""
    data = Data()
    rows = [row for row in rows if row["y"] is not None]
    epochs = sorted({row["epoch"] for row in rows})
    epoch_axis = alt.Axis(tickMinStep=1, format="d", tickCount=6, grid=False)
    x = alt.X("epoch:Q", title="epoch", axis=epoch_axis, scale=alt.Scale(nice=False))
    y = alt.Y(
        "y:Q", title=y_title, scale=alt.Scale(zero=False), axis=alt.Axis(format=".0%" if percent else "~g", tickCount=5)
    )
    colour = _by("label", colours, alt.Color, columns=_columns(colours, 280))
    dashes = _by("label", _repeated(colours, DASHES), alt.StrokeDash, columns=_columns(colours, 280))
    stride = max(1, -(-len(rows) // MOST_POINTS))
    with_tooltip = {*epochs[::stride], *epochs[-1:]}
    tooltips = [row for row in rows if row["epoch"] in with_tooltip]
    layers = []
    if level is not None:
        layers.append(
            alt.Chart(data([{"y": level}])).mark_rule(color=MUTED, strokeDash=[4, 3], aria=False).encode(y="y:Q")
        )
    layers += [
        alt.Chart(data(rows)).mark_line(strokeWidth=1.8, aria=False).encode(x=x, y=y, color=colour, strokeDash=dashes),
        alt.Chart(data(tooltips))
        .mark_point(filled=True, size=12 if len(epochs) <= 30 else 4, opacity=1, strokeWidth=9, strokeOpacity=0)
        .encode(x=x, y=y, color=colour, description="tip:N"),
    ]
    return data.draw(alt.layer(*layers).properties(width=280, height=170))


def probabilities(rows: Rows, ops: Mapping[str, str], edges: Sequence[str]) -> str:
    """Plot every operation's ``probability`` over ``epoch``, stacked to 1, in a panel for each of ``edges``."""
    data = Data()
    epochs = alt.Axis(tickMinStep=1, format="d", tickCount=4, grid=False)
    shares = alt.Axis(values=[0, 0.5, 1], grid=False)
    chart = (
        alt.Chart(data(rows))
        .mark_area(strokeWidth=0.5, stroke=PAPER, interpolate="linear")
        .encode(
            x=alt.X("epoch:Q", title=None, axis=epochs, scale=alt.Scale(nice=False)),
            y=alt.Y("probability:Q", title=None, stack="zero", scale=alt.Scale(domain=[0, 1]), axis=shares),
            color=_by("op", ops, alt.Color, columns=3),
            order="order:Q",
            description="tip:N",
        )
        .properties(width=128, height=64)
        .facet(alt.Facet("edge:N", title=None, sort=list(edges)), columns=2, spacing={"row": 8, "column": 14})
    )
    return data.draw(chart)


def heat_map(panel: Panel, domain: tuple[float, float], per_ms: float | None) -> str:
    """Plot a panel of a table as a heat map of latencies in ms, on a logarithmic scale that panels share.

    With ``per_ms``, the number of units in a millisecond, the cells are annotated in that unit.
    """
    data = Data()
    cells: list[dict[str, Any]] = [
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
    bare: dict[str, Any] = {"ticks": False, "domain": False, "labelLimit": 220, "labelOverlap": False}
    above = alt.Axis(orient="top", labelAngle=-60 if long_labels else 0, **bare)
    base = {
        "x": alt.X("column:N", title=None, sort=list(panel.columns), axis=above),
        "y": alt.Y("row:N", title=None, sort=list(panel.rows), axis=alt.Axis(**bare)),
    }
    colour = alt.Color(
        "ms:Q",
        scale=alt.Scale(type="log", scheme="viridis", domain=list(domain), clamp=True),
        legend=alt.Legend(
            title="ms", format=".2~g", gradientLength=200, values=[domain[0], middle, domain[1]], direction="horizontal"
        ),
    )
    layers = [
        alt.Chart(data([cell for cell in cells if cell["ms"] > 0]))
        .mark_rect(stroke=PAPER)
        .encode(**base, color=colour, description="tip:N"),
        alt.Chart(data([cell for cell in cells if cell["ms"] <= 0]))
        .mark_rect(color=GREY, stroke=PAPER)
        .encode(**base, description="tip:N"),
    ]
    if per_ms:
        for bright in (True, False):
            shown = [cell for cell in cells if (cell["ms"] > middle) == bright]
            text = alt.Chart(data(shown)).mark_text(fontSize=9, color="black" if bright else "white", aria=False)
            layers.append(text.encode(**base, text="text:N"))
    return data.draw(alt.layer(*layers).properties(width=alt.Step(34 if per_ms else 20), height=alt.Step(22)))


def additivity(rows: Rows, colours: Mapping[str, str]) -> str:
    """Plot ``predicted_ms`` of networks against ``measured_ms``, by ``label``; both are equal on the dashed line."""
    data = Data()
    ends = [f(row[key] for row in rows for key in ("predicted_ms", "measured_ms")) for f in (min, max)]
    scale = alt.Scale(zero=False, domain=ends, padding=8, nice=False)
    x = alt.X("measured_ms:Q", title="measured, ms", scale=scale, axis=alt.Axis(tickCount=5))
    y = alt.Y("predicted_ms:Q", title="predicted, ms", scale=scale, axis=alt.Axis(tickCount=5))
    equal = [{"measured_ms": end, "predicted_ms": end} for end in ends]
    chart = alt.layer(
        alt.Chart(data(equal)).mark_line(color=MUTED, strokeDash=[4, 3], strokeWidth=1.2, aria=False).encode(x=x, y=y),
        alt.Chart(data(rows))
        .mark_point(filled=True, size=42, opacity=0.8)
        .encode(x=x, y=y, color=_by("label", colours, alt.Color, columns=2), description="tip:N"),
    )
    return data.draw(chart.properties(width=270, height=270))


def verification(rows: Rows, labels: Sequence[str]) -> str:
    """Plot ``ms`` in a line for each network; ``what`` is "budget", "predicted" or "measured"."""
    data = Data()
    kinds = {"budget": ("M0,-1V1", PALETTE[1]), "predicted": ("circle", GREY), "measured": ("diamond", PALETTE[0])}
    x = alt.X("ms:Q", title="latency, ms", scale=alt.Scale(zero=False, padding=14), axis=alt.Axis(tickCount=5))
    y = alt.Y(
        "label:N", title=None, sort=list(labels), axis=alt.Axis(labelLimit=150, grid=True, ticks=False, domain=False)
    )
    names = list(kinds)
    shapes, colours = zip(*kinds.values(), strict=True)
    chart = alt.layer(
        alt.Chart(data([row for row in rows if row["least_ms"] is not None]))
        .mark_rule(strokeWidth=2, color=PALETTE[0], aria=False)
        .encode(x=alt.X("least_ms:Q"), x2="most_ms:Q", y=y),
        alt.Chart(data(rows))
        .mark_point(size=90, opacity=1, strokeWidth=2.4)
        .encode(
            x=x, y=y,
            color=alt.Color("what:N", title=None, sort=names, scale=alt.Scale(domain=names, range=list(colours))),
            shape=alt.Shape("what:N", title=None, sort=names, scale=alt.Scale(domain=names, range=list(shapes))),
            description="tip:N",
        ),
    )  # fmt: skip
    return data.draw(chart.properties(width=250, height=alt.Step(30)))


def strip(rows: Rows, means: Rows, levels: Rows, x_title: str, names: Sequence[str], percent: bool = False) -> str:
    """Plot the ``value`` of every seed as a point in the line of its ``label``, the ``means`` as bars, and levels.

    ``levels`` are drawn dashed for comparison. ``href`` links a point to its section of the page; ``tip`` is the
    tooltip of a point, bar or level.
    """
    data = Data()
    axis = alt.Axis(format=".0%" if percent else ",~f", tickCount=5)
    x = alt.X("value:Q", title=x_title, scale=alt.Scale(zero=True, padding=8), axis=axis)
    y = alt.Y(
        "label:N", title=None, sort=list(names), axis=alt.Axis(labelLimit=150, grid=True, ticks=False, domain=False)
    )
    chart = alt.layer(
        alt.Chart(data(levels))
        .mark_rule(strokeDash=[4, 3], strokeWidth=1.6, color=MUTED)
        .encode(x="value:Q", description="tip:N"),
        alt.Chart(data(means))
        .mark_tick(orient="vertical", thickness=3, size=19, color=INK, opacity=1)
        .encode(x=x, y=y, description="tip:N"),
        alt.Chart(data(rows))
        .mark_point(filled=True, size=52, opacity=0.85, color=PALETTE[0])
        .encode(x=x, y=y, yOffset=alt.YOffset("seed:O"), href="href:N", description="tip:N"),
    )
    return data.draw(chart.properties(width=210, height=alt.Step(25, **{"for": "position"})))


def scatter(panels: Mapping[str, tuple[Rows, Rows]], looks: Mapping[str, str], x_title: str, side_by_side: bool) -> str:
    """Plot, for each panel, points of ``x`` and ``y`` by ``label``, and their means larger.

    ``href`` links a small point to its section of the page. Panels are ``side_by_side`` or below each other.
    """
    data = Data()
    charts = []
    for title, (rows, means) in panels.items():
        x = alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=5))
        y = alt.Y("y:Q", title=title, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=6))
        columns = _columns(looks, 900 if side_by_side else 310)
        look = {
            "x": x,
            "y": y,
            "color": _by("label", looks, alt.Color, columns=columns),
            "shape": _by("label", _repeated(looks, SHAPES), alt.Shape, columns=columns),
            "description": "tip:N",
        }
        layers = [
            alt.Chart(data(means)).mark_point(size=150, filled=True, opacity=1).encode(**look),
            alt.Chart(data(rows))
            .mark_point(size=42, fill=PAPER, strokeWidth=2, opacity=1)
            .encode(**look, href="href:N"),
        ]
        charts.append(alt.layer(*layers).properties(width=262, height=230))
    return data.draw((alt.hconcat if side_by_side else alt.vconcat)(*charts))


def _by(field: str, looks: Mapping[str, Any], channel: Any, columns: int) -> Any:
    """Return an encoding channel that maps every name to its look, with a legend."""
    names = list(looks)
    scale = alt.Scale(domain=names, range=list(looks.values()))
    return channel(f"{field}:N", title=None, sort=names, scale=scale, legend=alt.Legend(columns=columns, title=None))


def _repeated(names: Iterable[str], looks: Sequence[Any]) -> dict[str, Any]:
    """Return a look for each name, the next one each time that the palette repeats."""
    return {name: looks[number // len(PALETTE) % len(looks)] for number, name in enumerate(names)}


def _columns(names: Mapping[str, str], width: int) -> int:
    """Return the number of legend entries that fit side by side."""
    longest = min(LABEL_PIXELS, 7 * max(map(len, names), default=1) + 30)
    return max(1, width // longest)
