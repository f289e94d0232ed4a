"""``hwnas table show`` and ``hwnas table predict``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import command, table_app
from hwnas.cli.options import AsJson, Channels, Classes, InputShape, Layers, SettingName, TableSpace, parse_input
from hwnas.cli.output import open_table, show_json, show_notes, show_table

if TYPE_CHECKING:
    from hwnas.spaces import SizedSpace
    from hwnas.tables.schema import LatencyTable


@command(table_app, "show", "hwnas table show cpu.json --plot cpu.png")
def table_show(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    plot: Annotated[Path | None, typer.Option(help="Draw a heat map into this .png or .svg file.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with heat maps and predicted against measured networks.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print a latency table: device, protocol, accuracy, every entry and every edge's cost."""
    content = open_table(table)
    if plot:
        from hwnas.tables.plot import plot_table

        plot_table(content, plot)
    if html:
        from hwnas.report.page import write_table_page
        from hwnas.tables.io import table_name

        write_table_page(content, table_name(table), html)
    if as_json:
        show_json({**content.content(), "sha256": content.sha256})
        return
    _show_header(table, content)
    _show_entries(content)
    _show_edge_costs(content)
    print(f"sha256 {content.sha256}")
    if plot:
        print(f"picture: {plot}")
    if html:
        print(f"page: {html}")


def _show_header(path: Path, table: LatencyTable) -> None:
    from hwnas.text import printable

    protocol, quality = table.protocol, table.quality
    lines = [
        f"{path}: {table.provenance} on {table.describe()}",
        f"{table.device.os}, {table.device.cores or 'unknown'} cores; {protocol.date}, hwnas {protocol.tool_version}",
        f"{protocol.rounds} rounds; {protocol.statistic}",
    ]
    for key, report in quality.additivity.items():
        lines.append(f"{key}: {report.describe()}")
        if correction := table.correction.get(key):
            lines.append(f"  {correction.describe()}")
        if key in quality.residual:
            lines.append(f"  with the residual predictor: {quality.residual[key].describe()}")
    for line in lines:
        print(printable(line))


def _show_entries(table: LatencyTable) -> None:
    from hwnas.text import printable

    rows = [
        [
            printable(e.op),
            f"{e.in_channels} > {e.out_channels}",
            f"{e.height}x{e.width}",
            str(e.stride),
            *(f"{ms:.4f}" for ms in (e.latency_ms, e.p10_ms, e.p90_ms)),
            *(f"{number:,}" for number in (e.macs, e.params)),
        ]
        for e in sorted(table.entries, key=lambda e: e.workload)
    ]
    if rows:
        show_table(
            "", ["op", "channels", "input", "stride", "latency ms", "p10", "p90", "MACs (fvcore)", "params"], rows
        )


def _show_edge_costs(table: LatencyTable) -> None:
    """Print one table of edges by operations for every cell of every network."""
    from hwnas.spaces import NONE
    from hwnas.tables.diff import edge_amounts
    from hwnas.tables.plot import edge_labels
    from hwnas.text import first_few, plural, printable

    for network, costs in table.edge_costs.items():
        prior = f"; prior: {plural(len(costs.pool), 'other device')}: {first_few(costs.pool, 3)}" if costs.pool else ""
        print("\n" + printable(f"{network}: costs by edge, from {costs.measurements} networks{prior}"))
        print(
            f"the fixed part takes {costs.base_ms:.4f} ms; a single latency scatters by "
            f"{costs.scatter_ms:.4f} ms and {costs.scatter_share:.1%}\n"
        )
        ops = [printable(op) for op in costs.operations if op != NONE]
        for kind, cell in costs.cells.items():
            labels = edge_labels(network, kind, cell)
            rows = [[label] for label in labels]
            for edge, _, amount in edge_amounts(costs, cell):
                rows[edge].append(f"{amount.ms:.4f} ± {amount.error_ms:.4f}")
            show_table(f"{printable(kind)}: ms where the edge is live", ["edge", *ops], rows)


@command(table_app, "predict", "hwnas table predict cpu.json --architectures cells.txt")
def table_predict(
    table: Annotated[Path, typer.Argument(help="A latency table.")],
    architectures: Annotated[Path, typer.Option(help="A file with one architecture on each line, or a CSV file.")],
    space: TableSpace = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    as_json: AsJson = False,
) -> None:
    """Predict latency, MACs, parameters, memory access and peak memory of architectures from a table.

    Where the table gives its error, +- is half the interval that holds nine in ten latencies. Where the table has whole
    networks, the last column is the latency with the correction of a residual predictor fitted on them.
    """
    from hwnas.api import size_changes
    from hwnas.cost.carried_head import head_notes
    from hwnas.tables.network_key import choose_network

    content = open_table(table)
    changes = size_changes(channels, layers, parse_input(input_shape), classes)
    sized = choose_network(content, space, setting, **changes)
    rows = _predictions(content, sized, architectures)
    show_notes(head_notes({str(table): content}, sized))
    if as_json:
        show_json(rows)
    else:
        _show_predictions(sized, rows)


def _predictions(table: LatencyTable, sized: SizedSpace, file: Path) -> list[dict[str, Any]]:
    """Return one row for each architecture, as ``--json`` prints it."""
    from hwnas.calibration.intervals import LEVEL, half_intervals
    from hwnas.calibration.residual import fit_residual
    from hwnas.cost.build import build_metrics
    from hwnas.cost.carried_head import known_network
    from hwnas.cost.metric import LATENCY, Metric
    from hwnas.spaces.encoding import encode
    from hwnas.spaces.listing import read_architectures

    models, space = build_metrics(table, sized), sized.space
    architectures = read_architectures(file, space)
    choices = encode(space, [architecture for _, architecture in architectures])
    costs = {metric: model.predict_many(choices) for metric, model in models.items()}
    residual = (
        fit_residual(table, sized).predict_many(choices) if known_network(table, sized).key in table.networks else None
    )
    interval = half_intervals(table, sized, choices)
    others = [metric for name in costs if (metric := Metric.parse(name)) != LATENCY]
    return [
        {
            "architecture": text,
            LATENCY.name: float(costs[LATENCY.name][i]),
            **(
                {}
                if interval is None
                else {LATENCY.derived("interval").name: float(interval[i]), "interval_level": LEVEL}
            ),
            **{metric.name: metric.exact(float(costs[metric.name][i])) for metric in others},
            **({} if residual is None else {LATENCY.derived("residual_latency").name: float(residual[i])}),
        }
        for i, (text, _) in enumerate(architectures)
    ]


def _show_predictions(sized: SizedSpace, rows: list[dict[str, Any]]) -> None:
    from hwnas.calibration.intervals import LEVEL
    from hwnas.cost.metric import LATENCY, MACS, Metric

    interval, residual = LATENCY.derived("interval"), LATENCY.derived("residual_latency")
    titles = {
        interval.name: f"+- ({LEVEL:.0%})",
        MACS.name: f"MACs ({sized.space.macs_convention})",
        residual.name: "with residual",
    }
    derived = {metric.name: metric for metric in (interval, residual)}
    names = [name for name in rows[0] if name not in ("architecture", "interval_level")]
    metrics = [derived.get(name) or Metric.parse(name) for name in names]
    columns = [titles.get(metric.name, metric.quantity.replace("_", " ")) for metric in metrics]
    cells = [[row["architecture"], *(metric.format(row[metric.name]) for metric in metrics)] for row in rows]
    show_table("", ["architecture", *columns], cells)
