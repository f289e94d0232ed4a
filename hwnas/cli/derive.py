"""``hwnas derive``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson, RunFolder
from hwnas.cli.output import show_json, show_table
from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.budgets.pareto import ParetoSet
    from hwnas.runs.probabilities import SearchProbabilities, TargetProbabilities
    from hwnas.spaces import Architecture


@command(app, "derive", "hwnas derive runs/a --top 5 --budget 0.3ms,250k-params")
def derive_command(
    folder: RunFolder,
    top: Annotated[int | None, typer.Option(help="So many of the most probable architectures; 1 by default.")] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Other budgets than those of the search, written like them.")
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            help="Instead, the Pareto set of probability against latency (or latency@NAME), macs, params, "
            "memory-access or peak-memory."
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option(help="No more than so many points of it, spread over the costs; by default all.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the Pareto set, into a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Derive further architectures from a finished search: the most probable within a budget, or the Pareto set.

    Nothing is trained. log p is the sum of the operations' log probabilities as the search left them. With --pareto, a
    --budget (one) bounds what is looked at.
    """
    from hwnas.budgets.text import names_devices
    from hwnas.cost.metric import Metric
    from hwnas.runs.probabilities import read_probabilities

    by_device = any(map(names_devices, budget or []))
    if pareto is not None:
        if top is not None:
            raise HwnasError("--top and --pareto are two questions", "give one of them")
        if points is not None and points < 2:
            raise HwnasError(f"--points must be at least 2, not {points}", "or leave it away for all")
        if len(budget or []) > 1:
            raise HwnasError("--pareto takes one --budget", "join its limits with a comma")
        if plot:
            from hwnas.plotting import require_picture

            require_picture(plot)
        learnt = read_probabilities(folder, by_device or names_devices(pareto))
        names = {Metric.parse(metric).option: metric for metric in learnt.costs}
        metric = names.get(pareto, pareto)
        if metric not in learnt.costs:
            raise HwnasError(f"unknown metric {pareto!r}", f"use one of {', '.join(names)}")
        _show_pareto(learnt, metric, (budget or [""])[0], points, plot, as_json)
        return
    for option, given in (("--points", points), ("--plot", plot)):
        if given is not None:
            raise HwnasError(f"{option} belongs to --pareto", "say which metric, such as --pareto latency")
    number = 1 if top is None else top
    if number < 1:
        raise HwnasError(f"--top must be at least 1, not {number}")
    _show_best(read_probabilities(folder, by_device), budget or [], number, as_json)


def _show_best(learnt: SearchProbabilities, texts: list[str], number: int, as_json: bool) -> None:
    from hwnas.budgets.budget import limits_of, parse_budget, preview, require_possible
    from hwnas.budgets.derive import derive_best

    previews = preview(learnt.costs)
    budgets = [parse_budget(text, previews) for text in texts]
    rows = []
    for target in learnt.targets:
        for budget in budgets or [target.budget]:
            limits = limits_of(previews, budget)
            require_possible(budget.text, limits, learnt.inputs_per_node)
            found = derive_best(learnt.sized.space, target.log_probability, limits, learnt.inputs_per_node, number)
            rows.append((target, budget, _describe(learnt, target, found)))
    if as_json:
        show_json(
            {
                "targets": [
                    {
                        "probabilities": target.budget.text,
                        "budget": budget.text,
                        "limits": dict(budget.limits),
                        "architectures": described,
                    }
                    for target, budget, described in rows
                ]
            }
        )
        return
    for target, budget, described in rows:
        searched = "" if budget.text == target.budget.text else f", from the search for {target.budget.text}"
        few = f" ({len(described)} is all there are)" if len(described) < number else ""
        _show_rows(learnt, f"budget {budget.text}: {budget.describe()}{searched}{few}", described)


def _show_pareto(
    learnt: SearchProbabilities, metric: str, text: str, points: int | None, plot: Path | None, as_json: bool
) -> None:
    from hwnas.budgets.budget import Budget, limits_of, parse_budget, preview, require_possible
    from hwnas.budgets.pareto import pareto
    from hwnas.progress import Progress

    previews = preview(learnt.costs)
    budget = parse_budget(text, previews) if text else Budget("", {})
    limits = limits_of(previews, budget)
    if limits:
        require_possible(text, limits, learnt.inputs_per_node)
    sets: list[tuple[TargetProbabilities, ParetoSet]] = []
    with Progress(quiet=as_json) as progress:
        for target in learnt.targets:
            stage = f"Pareto points of {target.budget.text}"
            found = pareto(
                learnt.sized.space,
                target.log_probability,
                learnt.costs[metric],
                limits,
                learnt.inputs_per_node,
                points,
                lambda done, of, stage=stage: progress(stage, done, of),  # type: ignore[misc]
            )
            sets.append((target, found))
    if plot:
        from hwnas.budgets.derive import scores
        from hwnas.budgets.pareto import Point
        from hwnas.budgets.plot import Curve, plot_pareto
        from hwnas.spaces.encoding import encode

        curves = []
        for target, found in sets:
            choices = encode(learnt.sized.space, [target.chosen])
            score = float(scores(learnt.sized.space, target.log_probability, choices)[0])
            chosen = Point(target.chosen, score, learnt.costs[metric].predict(target.chosen))
            curves.append(Curve(target.budget, found, chosen))
        tables = [learnt.tables[metric]] if metric in learnt.tables else list(learnt.tables.values())
        described_tables = ", ".join(table.describe() for table in tables)
        plot_pareto(curves, f"{learnt.sized.describe()}\n{described_tables}", plot)
    described = [_describe(learnt, target, [p.architecture for p in found.points]) for target, found in sets]
    if as_json:
        targets = [
            {"probabilities": target.budget.text, "whole": found.whole, "points": rows}
            for (target, found), rows in zip(sets, described, strict=True)
        ]
        show_json(
            {"metric": metric, "limits": dict(budget.limits), "plot": str(plot) if plot else None, "targets": targets}
        )
        return
    for (target, found), rows in zip(sets, described, strict=True):
        within = f" within {budget.describe()}" if budget.limits else ""
        _show_rows(learnt, f"search for {target.budget.text}: log p against {metric}{within}", rows)
        if not found.whole:
            print(
                f"{len(found.points)} points, each exact, spread over the costs: there may be more between them "
                "(leave --points away for all)\n"
            )
    if plot:
        print(f"drawn into {plot}")


def _describe(
    learnt: SearchProbabilities, target: TargetProbabilities, architectures: list[Architecture]
) -> list[dict[str, Any]]:
    """What is known of each architecture, as JSON has it."""
    from hwnas.budgets.derive import scores
    from hwnas.calibration.intervals import LEVEL, half_intervals
    from hwnas.cost.metric import Metric
    from hwnas.spaces.encoding import encode

    choices = encode(learnt.sized.space, architectures)
    log_p = scores(learnt.sized.space, target.log_probability, choices)
    costs = {metric: model.predict_many(choices) for metric, model in learnt.costs.items()}
    within = {
        Metric.parse(metric).derived("interval").name: found
        for metric, table in learnt.tables.items()
        if (found := half_intervals(table, learnt.sized, choices)) is not None
    }
    return [
        {
            "architecture": learnt.sized.space.format(architecture, all_edges=True),
            "log_probability": float(log_p[i]),
            **{metric: float(costs[metric][i]) for metric in learnt.tables},
            **{name: float(half[i]) for name, half in within.items()},
            **({"interval_level": LEVEL} if within else {}),
            **{m: Metric.parse(m).exact(float(costs[m][i])) for m in costs if m not in learnt.tables},
        }
        for i, architecture in enumerate(architectures)
    ]


def _show_rows(learnt: SearchProbabilities, title: str, rows: list[dict[str, Any]]) -> None:
    from hwnas.calibration.intervals import LEVEL
    from hwnas.cost.metric import MACS, Metric

    columns, keys = ["architecture", "log p"], []
    for metric in map(Metric.parse, learnt.tables):
        columns.append(metric.title)
        keys.append((metric.name, metric))
        bar = metric.derived("interval").name
        if bar in rows[0]:
            columns.append(f"± ({LEVEL:.0%})")
            keys.append((bar, metric))
    counts = [metric for metric in learnt.costs if metric not in learnt.tables]
    keys += [(metric, Metric.parse(metric)) for metric in counts]
    columns += [f"MACs ({learnt.sized.space.macs_convention})" if metric == MACS.name else metric for metric in counts]
    shown = [
        [
            row["architecture"],
            f"{row['log_probability']:.3f}",
            *(metric.format(row[key]) for key, metric in keys),
        ]
        for row in rows
    ]
    show_table(title, columns, shown)
