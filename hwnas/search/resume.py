"""Run a search to its end in a folder, resuming from its checkpoint: checkpoint.pt and metrics.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from hwnas.compute.device import CPU
from hwnas.compute.memory import enough_memory
from hwnas.files import append_lines
from hwnas.progress import OnProgress
from hwnas.search.epoch_row import METRICS, EpochRow
from hwnas.search.pace import Pace, describe_images
from hwnas.search.search import Search
from hwnas.training.checkpoint import Checkpoint, resume
from hwnas.training.step_profile import StepProfile


def run_to_end(
    search: Search,
    folder: Path,
    digest: str,
    on_progress: OnProgress,
    on_row: Callable[[EpochRow], None],
    profile: StepProfile | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> None:
    """Take all remaining steps of a search, from the checkpoint in ``folder`` if there is one.

    ``metrics.jsonl`` gets a line an epoch and target, which ``on_row`` gets as well. With several processes only rank
    0 reads and writes. ``profile`` measures some steps and changes nothing. On a GPU ``log`` gets the place of the
    images and, every epoch, the search's pace.

    Raises HwnasError where the memory of the GPU does not suffice.
    """
    checkpoint, writes = Checkpoint(folder / "checkpoint.pt", digest), search.processes.is_rank_zero
    resume(search, checkpoint, search.processes)
    if writes:
        drop_later_lines(folder / METRICS, search.step)
        write = append_lines(folder / METRICS)
    pace = None if search.device == CPU else Pace(search.device, search.schedule.total_steps, search.step)
    if pace:
        log(describe_images(search.data))
    with enough_memory(search.recipe.batch_size):
        for rows in remaining_steps(search, profile):
            on_progress("searching", search.step, search.schedule.total_steps)
            for row in rows:
                if writes:
                    write(json.dumps(row.to_json()))
                on_row(row)
            if rows and pace:
                log(pace.describe(search.step))
            if writes and (checkpoint.due() or search.over):
                checkpoint.save(search.state())


def remaining_steps(search: Search, profile: StepProfile | None = None) -> Iterator[list[EpochRow]]:
    """Take all remaining steps of a search; yield after each the rows of the epoch that it ends, or none."""
    while not search.over:
        if profile:
            profile.step(search.kind_of_step, search.take_step, search.evaluate)
        else:
            search.take_step()
        yield search.epoch_report() if search.schedule.is_epoch_start(search.step) else []


def drop_later_lines(metrics: Path, step: int) -> None:
    """Remove the lines that an interrupted run wrote after its last checkpoint; the resumed run writes them again."""
    if metrics.exists():
        lines = [line for line in metrics.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        metrics.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # a torn line
