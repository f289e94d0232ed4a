"""Choose the executor that ``--executor`` and ``--jobs`` name."""

from __future__ import annotations

from hwnas.compute.device import available_cores, physical_cores
from hwnas.errors import HwnasError
from hwnas.jobs.executor import Executor
from hwnas.jobs.in_process import InProcess
from hwnas.jobs.local import LocalExecutor


def choose_executor(text: str, jobs: int | None = None, threads: int | None = 1, separate: bool = False) -> Executor:
    """Return the executor that ``text`` names, which runs ``jobs`` jobs at a time with ``threads`` threads each.

    ``local``: processes of this machine, by default as many as the physical cores that it may use. One job at a time
    runs in this process, unless ``separate`` asks for another. Without ``threads``, jobs share the processors.

    Raises HwnasError for any other text.
    """
    if text != "local":
        raise HwnasError(f"unknown executor {text!r}", "write --executor local")
    workers = jobs or max(1, physical_cores() // (threads or 1))
    threads = threads or max(1, available_cores() // workers)
    return LocalExecutor(workers, threads) if separate or workers > 1 else InProcess(threads)
