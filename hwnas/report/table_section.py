"""The section of a page about a latency table: heat maps, additivity, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwnas.cost.metric import LATENCY
from hwnas.cost.model import build_cost_models
from hwnas.errors import HwnasError
from hwnas.report.charts import additivity, heat_map
from hwnas.report.figure import Figure
from hwnas.report.theme import GREY, PALETTE
from hwnas.spaces import SearchSpace, SizedSpace
from hwnas.spaces.encoding import encode
from hwnas.tables.network_key import networks_of
from hwnas.tables.plot import ANNOTATED, Panel, positive_ms, table_panels, unit_of
from hwnas.tables.schema import LatencyTable

MOST_CELLS = 6_000  # of all heat maps of a table in a page
MOST_NETWORKS = 1_000  # that are drawn
HELD_OUT, FITTED = "held out: in no fit", "the correction was fitted on it"


@dataclass(frozen=True)
class Proof:
    """The error of the table's predictions for networks of one size; ``figure`` is None where it holds none."""

    network: str
    lines: list[str]
    figure: Figure | None


@dataclass(frozen=True)
class TableSection:
    """``notes`` give the reasons for what is not shown."""

    name: str
    facts: list[tuple[str, str]]
    warnings: list[str]
    maps: list[Figure]
    proofs: list[Proof]
    notes: list[str]


def table_section(table: LatencyTable, name: str, prefix: str, own: SearchSpace | None = None) -> TableSection:
    """Return the section of a table called ``name``; ``prefix`` starts the names of its figures.

    ``own`` is a user's own space that the table may have been made for.
    """
    panels = table_panels(table)
    notes = []
    if sum(len(panel.rows) * len(panel.columns) for panel in panels) > MOST_CELLS:
        notes.append(f"{len(table.entries):,} entries are too many for a picture: see hwnas table export.")
        panels = []
    proofs = _proofs(table, prefix, own)
    if not any(proof.figure for proof in proofs) and not table.networks:
        notes.append("The table holds no whole networks to compare its sums with.")
    maps = [_map(panel, number, panels, prefix) for number, panel in enumerate(panels, start=1)]
    return TableSection(name, facts_of(table), table.warnings, maps, proofs, notes)


def table_figures(section: TableSection) -> Iterator[Figure]:
    yield from section.maps
    for proof in section.proofs:
        if proof.figure:
            yield proof.figure


def facts_of(table: LatencyTable) -> list[tuple[str, str]]:
    """Return names and texts of device, runtime and protocol."""
    device, protocol, quality = table.device, table.protocol, table.quality
    facts = [
        ("device", f"{table.describe()}; {device.os}, {device.cores or 'unknown'} cores"),
        ("kind", f"{table.provenance}, {len(table.entries)} entries" + f", {table.source}" * bool(table.source)),
        ("protocol", f"{protocol.rounds} rounds, {protocol.statistic}; {protocol.date}, hwnas {protocol.tool_version}"),
    ]
    known = [
        ("processes", protocol.processes, "{}"),
        ("programs that ran before it began", protocol.load, "{:.2f}"),
        ("readings that waited for a processor", protocol.waited, "{:.1%}"),
        ("time that the host took away", protocol.stolen, "{:.1%}"),
        ("sentinel's drift", quality.sentinel_drift, "{:.1%}"),
        ("greatest error of an entry", quality.worst_relative_error, "{:.1%}"),
    ]
    conditions = [f"{what} {form.format(value)}" for what, value, form in known if value is not None]
    if quality.unstable:
        conditions.append(f"entries known less closely than asked for {len(quality.unstable)}")
    if conditions:
        facts.append(("conditions", "; ".join(conditions)))
    if protocol.gpu:
        facts.append(("GPU", protocol.gpu.describe()))
    if table.licence:
        facts.append(("licence", table.licence))
    return [*facts, ("sha256", table.sha256)]


def _map(panel: Panel, number: int, panels: Sequence[Panel], prefix: str) -> Figure:
    alike = [other for other in panels if other.scale == panel.scale]
    positive = positive_ms(alike)
    unit, per_ms = unit_of(positive)
    least, most = (min(positive), max(positive)) if positive else (1.0, 10.0)
    if most < least * 1.01:  # one value: a scale needs two
        least, most = least / 2, most * 2
    annotated = sum(len(other.rows) * len(other.columns) for other in panels) <= ANNOTATED
    caption = (panel.title or "what every operation takes at every size") + ", by colour in ms"
    caption += f"; the numbers are {unit}" * annotated
    caption += f"; columns: {panel.below}" * bool(panel.below)
    svg = heat_map(panel, (max(least, most / 1_000), most), per_ms if annotated else None)
    data = {"rows": panel.rows, "columns": panel.columns, "latency_ms": panel.ms}
    return Figure(f"{prefix}table-{number}", caption, svg, data, wide=True)


def _proofs(table: LatencyTable, prefix: str, own: SearchSpace | None) -> list[Proof]:
    reports, known = table.quality.additivity, {network.key: network for network in networks_of(table, own)}
    proofs = []
    for number, key in enumerate(dict.fromkeys([*reports, *table.networks]), start=1):
        lines = [reports[key].describe()] if key in reports else []
        if key in table.quality.residual:
            lines.append(f"with the residual predictor: {table.quality.residual[key].describe()}")
        if key in table.correction:
            lines.append(table.correction[key].describe())
        figure = None
        if table.networks.get(key) and key not in known:
            lines.append("not drawn: the definition of its space is not at hand")
        elif table.networks.get(key):
            try:
                figure = _proof(table, key, known[key], f"{prefix}additivity-{number}")
            except HwnasError as error:
                lines.append(f"not drawn: {error}")
        proofs.append(Proof(key, lines, figure))
    return proofs


def _proof(table: LatencyTable, key: str, made_for: SizedSpace, name: str) -> Figure:
    space = made_for.space
    model = build_cost_models(table, made_for)[LATENCY.name]
    networks = table.networks[key]
    predicted = model.predict_many(encode(space, [space.parse(network.architecture) for network in networks]))
    rows = [
        {
            "architecture": network.architecture,
            "measured_ms": network.latency_ms,
            "measured_error_ms": network.error_ms,
            "predicted_ms": float(ms),
            "label": FITTED if network.fitted else HELD_OUT,
            "tip": f"{network.architecture}; measured {network.latency_ms:.4g} ms; predicted {ms:.4g} ms; "
            f"{FITTED if network.fitted else HELD_OUT}",
        }
        for network, ms in zip(networks, predicted, strict=True)
    ]
    shown = rows[:: -(-len(rows) // MOST_NETWORKS)]
    part = f"{len(shown)} of " * (len(shown) < len(rows))
    caption = f"{key}: {part}{len(rows)} whole networks, predicted from the table against measured; dashed: equal"
    svg = additivity(shown, {HELD_OUT: PALETTE[0], FITTED: GREY})
    return Figure(name, caption, svg, [{k: v for k, v in row.items() if k != "tip"} for row in rows])
