"""Compare search methods: search on images, then look up the cells found in a table of published accuracies.

OUT/METHOD/seedN/manifest.json   settings of the search
OUT/METHOD/seedN/table.json      latency table, if there is a budget; tables/NAME.json, if there are several
OUT/METHOD/seedN/metrics.jsonl   one line an epoch; checkpoint.pt: state of the search; costs.jsonl: its cost a step
OUT/METHOD/seedN/finalists/      the trainings of its finalists, if its recipe asks for any
OUT/METHOD/seedN/searched.json   the cell found and the cost of the search
OUT/METHOD/seedN/result.json     the same with settings, and with accuracy and regret of the cell
OUT/summary.json                 one row a method, and references that need no search
OUT/benchmark.png, .svg          the same as a figure

With several targets in a search, searched.json and result.json are in OUT/METHOD/seedN/TARGET. With several targets, or
with measured latencies, summary.json has such rows for every target, and there is no figure. hwnas.benchmark.schema
describes the files.

The searches are jobs in other processes (hwnas.benchmark.search_job), which are sent neither accuracies nor measured
latencies; these are looked up once all searches have finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hwnas.benchmark.accuracy import AccuracyTable
from hwnas.benchmark.baselines import Counts
from hwnas.benchmark.judged_target import JudgedTarget
from hwnas.benchmark.plan import BenchmarkRun, PreparedBenchmark
from hwnas.benchmark.plot import draw_benchmark
from hwnas.benchmark.records import RESULT, SUMMARY, read_manifest, read_searched
from hwnas.benchmark.schema import AnySummary, Result, Summary
from hwnas.benchmark.searches import run_searches
from hwnas.benchmark.summarise import summarise
from hwnas.benchmark.truth import Truth
from hwnas.files import write_json
from hwnas.jobs.executor import Executor
from hwnas.plotting import can_draw
from hwnas.progress import Progress
from hwnas.spaces.nasbench201 import NASBENCH201


def search_all(prepared: PreparedBenchmark, executor: Executor, progress: Progress) -> None:
    """Run every search that has not finished yet; a repeated call resumes an interrupted one."""
    unfinished = [run for run in prepared.runs if not run.finished]
    if done := len(prepared.runs) - len(unfinished):
        progress.log(f"{done} of {len(prepared.runs)} searches are already finished")
    run_searches(unfinished, prepared.inputs, executor, progress)


def evaluate(
    prepared: PreparedBenchmark,
    targets: Sequence[JudgedTarget],
    truth: Truth,
    folder: Path,
    log: Callable[[str], None],
) -> AnySummary:
    """Look up the cells found; write every ``result.json``, the figure and ``summary.json``, and return the latter.

    Without matplotlib, ``log`` gets a line instead of the figure.
    """
    results = [[_result(run, target, truth.accuracies) for run in prepared.runs] for target in targets]
    for target, own in zip(targets, results, strict=True):
        for run, result in zip(prepared.runs, own, strict=True):
            write_json(run.folder / target.objective.target / RESULT, result.to_json())
    summary = summarise(results, truth, targets, Counts.of(prepared.target))
    write_json(folder / SUMMARY, summary.to_json())
    if isinstance(summary, Summary) and can_draw(log):
        draw_benchmark(summary, results[0], [folder / "benchmark.png", folder / "benchmark.svg"])
    return summary


def _result(run: BenchmarkRun, target: JudgedTarget, accuracies: AccuracyTable) -> Result:
    again = f"remove folder {run.folder} and run again"
    found = read_searched(run.folder / target.objective.target, again)
    cell = NASBENCH201.parse(found.architecture)
    return Result(
        method=run.method,
        seed=run.seed,
        settings=read_manifest(run.folder, again).settings,
        **found.to_json(),
        **target.judge(cell).to_json(),
        accuracy={name: accuracies.accuracy(name, cell) for name in accuracies.data_sets},
        regret={name: accuracies.regret(name, cell, target.within) for name in accuracies.data_sets},
        accuracy_sha256=accuracies.sha256,
    )
