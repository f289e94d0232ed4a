"""``hwnas derive``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson, RunFolder
from hwnas.cli.output import open_tables, show_json, show_notes
from hwnas.errors import HwnasError

ACCURACY = "accuracy"


@command(app, "derive", "hwnas derive runs/a --top 5 --budget 0.3ms,250k-params")
def derive_command(
    folder: RunFolder,
    top: Annotated[
        int | None, typer.Option(help="Number of most probable architectures to derive; default: 1.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Budgets instead of those of the search, written as for hwnas search.")
    ] = None,
    pareto: Annotated[
        str | None,
        typer.Option(
            help="Derive the Pareto set of probability against latency (or latency@NAME), macs, params, "
            "memory-access or peak-memory instead; or, with accuracy, that of predicted accuracy against latency."
        ),
    ] = None,
    points: Annotated[
        int | None,
        typer.Option(help="Largest number of points of the Pareto set, spread over the costs; default: all."),
    ] = None,
    table: Annotated[
        list[Path] | None,
        typer.Option(
            "--table",
            help="A latency table of any device, for --pareto accuracy; repeat it for more; default: the run's.",
        ),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the Pareto set, into a .png or .svg file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Derive further architectures from a finished search: the most probable within a budget, or the Pareto set.

    Nothing is trained. log p is the sum of the operations' log probabilities as the search left them. With --pareto,
    one --budget limits the architectures. --pareto accuracy needs a search with finalists: from their trainings it
    predicts the accuracy of all architectures.
    """
    if table and pareto != ACCURACY:
        raise HwnasError("--table belongs to --pareto accuracy", "leave it out: log p is shown for the run's tables")
    if pareto is None:
        for option, given in (("--points", points), ("--plot", plot)):
            if given is not None:
                raise HwnasError(f"{option} belongs to --pareto", "name a metric, such as --pareto latency")
        _derive_best(folder, 1 if top is None else top, budget or [], as_json)
        return
    if top is not None:
        raise HwnasError("--top and --pareto exclude each other", "give one of them")
    if len(budget or []) > 1:
        raise HwnasError("--pareto takes one --budget", "join its limits with a comma")
    within = (budget or [""])[0]
    if pareto == ACCURACY:
        _derive_accuracy(folder, table or [], within, points, plot, as_json)
    else:
        _derive_pareto(folder, pareto, within, points, plot, as_json)


def _derive_best(folder: Path, top: int, budgets: list[str], as_json: bool) -> None:
    from hwnas import api
    from hwnas.runs.derive import format_architectures

    results = api.derive(folder, top, budgets)
    show_notes(results[0].notes)
    if as_json:
        targets = [
            {
                "probabilities": result.searched.text,
                "budget": result.budget.text,
                "limits": dict(result.budget.limits),
                "architectures": [architecture.to_json() for architecture in result.architectures],
            }
            for result in results
        ]
        show_json({"targets": targets})
        return
    for result in results:
        budget, number = result.budget, len(result.architectures)
        searched = "" if budget.text == result.searched.text else f", from the search for {result.searched.text}"
        few = f" (all {number} there are)" if number < top else ""
        print(format_architectures(f"budget {budget.text}: {budget.describe()}{searched}{few}", result))


def _derive_pareto(
    folder: Path, metric: str, budget: str, points: int | None, plot: Path | None, as_json: bool
) -> None:
    from hwnas import api
    from hwnas.progress import Progress
    from hwnas.runs.derive import format_architectures

    with Progress(quiet=as_json) as progress:
        results = api.derive_pareto(folder, metric, budget=budget, points=points, plot=plot, progress=progress)
    show_notes(results[0].notes)
    if as_json:
        targets = [
            {
                "probabilities": result.searched.text,
                "whole": result.whole,
                "points": [architecture.to_json() for architecture in result.architectures],
            }
            for result in results
        ]
        limits = dict(results[0].budget.limits)
        picture = str(plot) if plot else None
        show_json({"metric": results[0].metric, "limits": limits, "plot": picture, "targets": targets})
        return
    for result in results:
        within = f" within {result.budget.describe()}" if result.budget.limits else ""
        title = f"search for {result.searched.text}: log p against {result.metric}{within}"
        print(format_architectures(title, result))
        _note_gaps(result.whole, len(result.architectures))
    if plot:
        print(f"drawn into {plot}")


def _derive_accuracy(
    folder: Path, tables: list[Path], budget: str, points: int | None, plot: Path | None, as_json: bool
) -> None:
    from hwnas import api
    from hwnas.progress import Progress
    from hwnas.runs.accuracy_front import format_front

    given = open_tables(tables) or None
    with Progress(quiet=as_json) as progress:
        results = api.derive_accuracy(folder, given, budget=budget, points=points, plot=plot, progress=progress)
    show_notes(note for result in results for note in result.notes)
    if as_json:
        fronts = [
            {
                "table": result.table,
                "limits": dict(result.budget.limits),
                "whole": result.whole,
                "points": [architecture.to_json() for architecture in result.architectures],
            }
            for result in results
        ]
        evidence = {"trainings": results[0].trainings, "epochs": results[0].epochs}
        show_json({"metric": ACCURACY, **evidence, "plot": str(plot) if plot else None, "tables": fronts})
        return
    for result in results:
        print(format_front(result))
        _note_gaps(result.whole, len(result.architectures))
    if plot:
        print(f"drawn into {plot}")


def _note_gaps(whole: bool, number: int) -> None:
    if not whole:
        print(
            f"{number} points, each exact, spread over the costs: there may be more between them (leave out --points "
            "for all)\n"
        )
