"""The part of a page about one run: settings, answer, networks, search, latency tables and verification."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hwnas.cost.carried_head import head_notes
from hwnas.report.answer import answer
from hwnas.report.figure import Figure
from hwnas.report.finalists_section import agreement
from hwnas.report.labels import limits_text, target_labels
from hwnas.report.run_content import RunContent
from hwnas.report.search_charts import epochs_to_draw, search_charts
from hwnas.report.table_section import TableSection, table_figures, table_section
from hwnas.report.target_section import CellStyle, TargetSection, target_section
from hwnas.report.theme import GREY, colours
from hwnas.report.verification_section import verification_figure, verification_rows
from hwnas.runs.sizes import describe_sizes
from hwnas.spaces import NONE


@dataclass(frozen=True)
class RunSection:
    """``settings`` are names and texts. ``verification`` has a row of texts for every network and device.

    ``untimed`` names the networks that were not timed.
    """

    id: str
    name: str
    answer: str
    settings: list[tuple[str, str]]
    targets: list[TargetSection]
    charts: list[Figure]
    has_probabilities: bool
    tables: list[TableSection]
    verification: list[list[str]]
    verification_figure: Figure | None
    untimed: list[str]

    def figures(self) -> Iterator[Figure]:
        for target in self.targets:
            if target.finalists and target.finalists.figure:
                yield target.finalists.figure
            for cell in target.cells:
                yield cell.graph
                if cell.probabilities:
                    yield cell.probabilities
        yield from self.charts
        for table in self.tables:
            yield from table_figures(table)
        if self.verification_figure:
            yield self.verification_figure


def run_section(run: RunContent, number: int, runs: Sequence[RunContent], prefix: str) -> RunSection:
    """Return the section of the run that is ``number`` among ``runs``; ``prefix`` starts the names of its figures."""
    labels = target_labels(run)
    ops = colours(op for op in run.space.operations if op != NONE) | {NONE: GREY}
    style = CellStyle(ops, epochs_to_draw(runs))
    return RunSection(
        id=f"r{number}",
        name=run.name,
        answer=answer(run),
        settings=_settings(run),
        targets=[
            target_section(run, target, target_number, label, f"r{number}", prefix, style)
            for target_number, (target, label) in enumerate(zip(run.targets, labels, strict=True), start=1)
        ],
        charts=search_charts(run, labels, prefix),
        has_probabilities=any(target.probabilities is not None for target in run.targets),
        tables=[_table(run, device, table_number, prefix) for table_number, device in enumerate(run.tables, start=1)],
        verification=verification_rows(run, labels),
        verification_figure=verification_figure(run, labels, prefix),
        untimed=[label for target, label in zip(run.targets, labels, strict=True) if target.kept is None],
    )


def _table(run: RunContent, device: str, number: int, prefix: str) -> TableSection:
    table = run.tables[device]
    section = table_section(table, device, f"{prefix}{number}-{device}-" if len(run.tables) > 1 else prefix, run.space)
    if run.manifest.tables[device] != table.sha256:
        section.warnings.append("The run's manifest names a table with another sha256 than that of this one.")
    section.warnings.extend(head_notes({device: table}, run.sized))
    return section


def _settings(run: RunContent) -> list[tuple[str, str]]:
    manifest, recipe = run.manifest, run.manifest.recipe
    budgets = [f"{label}: {limits_text(target)}" for target, label in zip(run.targets, target_labels(run), strict=True)]
    edges = f"{run.space.num_edges} edges, {len(run.space.operations)} operations"
    search = f"{recipe.method}, {recipe.epochs} epochs, seed {recipe.seed}"
    space = f"{run.space.name}: {edges}"
    sizes = [("space", f"{space}; {run.sized.setting.describe()}")]
    data = [("data", f"{manifest.data} (fingerprint {manifest.data_fingerprint})")]
    if run.has_proxies:
        sizes = [
            ("space", space),
            ("target network", f"{describe_sizes(run.sized.setting)}; the budgets are about it"),
            ("search network", f"{describe_sizes(run.search_sized.setting)}; the search trained it"),
        ]
    if manifest.target_data:
        data.append(("target data", f"{manifest.target_data} (fingerprint {manifest.target_data_fingerprint})"))
    return [
        ("device" + "s" * (len(run.tables) > 1), "; ".join(f"{d}: {t.describe()}" for d, t in run.tables.items())),
        ("budgets", "; ".join(budgets)),
        *data,
        *sizes,
        ("search", f"{search}; finished {run.summary.finished}"),
        *[("finalists", " ".join(lines)) for lines in [agreement(run)] if lines],
    ]
