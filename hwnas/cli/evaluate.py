"""``hwnas evaluate``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import AsJson, OtherData, RunFolder
from hwnas.cli.output import show_json, show_table
from hwnas.cli.results import name_of, name_on

if TYPE_CHECKING:
    from hwnas.runs.schema import EvaluationRow, RuntimeScores
    from hwnas.runs.text_schema import TextScores


@command(app, "evaluate", "hwnas evaluate runs/a --split test --confusion confusion.csv")
def evaluate_command(
    folder: RunFolder,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    data: OtherData = None,
    latency: Annotated[bool, typer.Option("--latency", help="Also time the networks on the run's devices.")] = False,
    confusion: Annotated[Path | None, typer.Option(help="Write the confusion matrices to this CSV file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate exported networks: the ONNX files with ONNX Runtime, and the same networks with torch.

    The calibration error is the expected difference of confidence and accuracy in 15 bins (Guo et al. 2017). Networks
    of words have a perplexity, and the share of words that they predict right.
    """
    from hwnas import api
    from hwnas.progress import Progress

    with Progress() as progress:
        rows = api.evaluate(folder, split, data=data, latency=latency, confusion=confusion, progress=progress)
    if as_json:
        show_json({"split": split, "targets": rows})
        return
    _show_scores(rows, split)
    if confusion:
        print(f"made {confusion}")


def _show_scores(rows: list[EvaluationRow], split: str) -> None:
    from hwnas.runs.evaluate import RUNTIME_NAMES
    from hwnas.runs.text_schema import TextScores

    shown = [
        [name_of(r, rows), RUNTIME_NAMES[runtime], f"{r.images:,}", *_score_cells(scores)]
        for r in rows
        for runtime, scores in r.scores.items()
    ]
    if any(isinstance(scores, TextScores) for r in rows for scores in r.scores.values()):
        show_table(f"on the {split} text", ["budget", "runtime", "words", "perplexity", "words right"], shown)
    else:
        columns = ["budget", "runtime", "images", "accuracy", "top-5", "calibration error"]
        show_table(f"on the {split} images", columns, shown)
    for r in rows:
        for time in r.latency:
            state = "" if time.machine_slowdown is None else " at the machine speed of the table"
            name = name_on(r, time.device, rows)
            print(f"{name}: {time.measured_ms:.4g} ± {time.measured_error_ms:.2g} ms{state}")


def _score_cells(scores: RuntimeScores | TextScores) -> list[str]:
    from hwnas.runs.text_schema import TextScores

    if isinstance(scores, TextScores):
        return [f"{scores.perplexity:,.2f}", f"{scores.accuracy:.2%}"]
    top5 = "-" if scores.top5_accuracy is None else f"{scores.top5_accuracy:.2%}"
    return [f"{scores.accuracy:.2%}", top5, f"{scores.calibration_error:.2%}"]
