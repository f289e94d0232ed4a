"""Run the searches of a benchmark as processes of their own (hwnas.benchmark.worker), some at a time."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from hwnas.benchmark.plan import BenchmarkRun
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from hwnas.search.epoch_row import EpochRow


def run_processes(runs: Sequence[BenchmarkRun], jobs: int, progress: Progress) -> None:
    """Run searches, ``jobs`` at a time. When one fails, the others are stopped and its HwnasError is raised."""
    try:
        asyncio.run(_run_all(runs, jobs, progress))
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _run_all(runs: Sequence[BenchmarkRun], jobs: int, progress: Progress) -> None:
    slots = asyncio.Semaphore(jobs)
    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(_run(run, slots, progress))


async def _run(run: BenchmarkRun, slots: asyncio.Semaphore, progress: Progress) -> None:
    async with slots:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hwnas.benchmark.worker", str(run.folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": str(run.threads)},
            limit=1 << 24,
        )
        try:
            assert process.stdout
            async for line in process.stdout:
                _handle_message(run, json.loads(line), progress)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if code:
        raise HwnasError(
            f"the process of {run.name} ended with exit code {code}",
            "run the same command again to resume from its checkpoint; if memory is short, lower --jobs",
        )


def _handle_message(run: BenchmarkRun, message: dict[str, Any], progress: Progress) -> None:
    """Show a worker's message: an error, the end of an epoch, or progress."""
    if "problem" in message:
        raise HwnasError(f"{run.name}: {message['problem']}", message["fix"])
    if "epoch" in message:
        row = EpochRow.model_validate(message["epoch"])
        progress.log(f"{run.name}: {row.describe(with_device=bool(row.target))}")
    else:
        progress(run.name, message["done"], message["total"])
