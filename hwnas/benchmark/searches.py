"""Run the searches of a benchmark on an executor, and write what they return to their folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hwnas.benchmark.cost_meter import cost_until
from hwnas.benchmark.plan import BenchmarkRun
from hwnas.benchmark.records import SEARCHED, read_manifest
from hwnas.benchmark.search_job import SearchInputs, SearchItem, SearchUpdate, search_cells
from hwnas.files import append_lines, write_bytes, write_json
from hwnas.finalists.evidence import read_trainings
from hwnas.jobs.executor import Executor, name_errors
from hwnas.progress import Progress
from hwnas.search.epoch_row import METRICS
from hwnas.search.resume import drop_later_lines
from hwnas.training.checkpoint import Checkpoint

CHECKPOINT, COSTS = "checkpoint.pt", "costs.jsonl"


def run_searches(runs: Sequence[BenchmarkRun], inputs: SearchInputs, executor: Executor, progress: Progress) -> None:
    """Run searches, each from its checkpoint if there is one. When one fails, the others are stopped.

    Raises HwnasError for a damaged checkpoint and where the executor does.
    """
    folders = {run.name: run.folder for run in runs}
    for name, update in executor.stream(search_cells, inputs, {run.name: _resume(run) for run in runs}):
        _write(folders[name], update)
        if update.finalists:
            progress(f"{name}: {update.finalists.stage}", update.finalists.done, update.finalists.total)
        else:
            progress(name, update.step, update.total)
        for row in update.rows:
            progress.log(f"{name}: {row.describe(with_device=bool(row.target))}")


def _resume(run: BenchmarkRun) -> SearchItem:
    """Return a search as its folder has it; lines that were written after its checkpoint are dropped."""
    manifest = read_manifest(run.folder, "run 'hwnas benchmark nasbench201'")
    file = run.folder / CHECKPOINT
    with name_errors(run.name):
        state = Checkpoint(file, manifest.digest).load()
        step = state["step"] if state else 0
        cost = cost_until(run.folder / COSTS, step)
        trainings = read_trainings(run.folder, manifest.digest)
    drop_later_lines(run.folder / METRICS, step)
    content = file.read_bytes() if state else None
    return SearchItem(manifest.settings, manifest.digest, manifest.threads, content, cost, trainings)


def _write(folder: Path, update: SearchUpdate) -> None:
    """Write an update. The checkpoint is last: what precedes it is dropped and written again without it.

    So is the training of a finalist, which would be repeated without its file.
    """
    if update.searched:
        for target, found in update.searched.items():
            write_json(folder / target / SEARCHED, found.to_json())
        return
    if update.finalists and not update.finalists.files:
        return
    append_lines(folder / COSTS)(json.dumps({"step": update.step, **asdict(update.cost)}))
    for row in update.rows:
        append_lines(folder / METRICS)(json.dumps(row.to_json()))
    if update.checkpoint:
        write_bytes(folder / CHECKPOINT, update.checkpoint)
    if update.finalists:
        update.finalists.write(folder)
