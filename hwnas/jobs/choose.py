"""Choose the executor that ``--executor`` and ``--jobs`` name."""

from __future__ import annotations

import re

import torch

from hwnas.compute.device import available_cores, physical_cores
from hwnas.errors import HwnasError
from hwnas.jobs.cluster import RayExecutor
from hwnas.jobs.executor import Executor
from hwnas.jobs.in_process import InProcess
from hwnas.jobs.local import LocalExecutor


def choose_executor(
    text: str, jobs: int | None = None, threads: int | None = 1, separate: bool = False, gpu: bool = False
) -> Executor:
    """Return the executor that ``text`` names, which runs ``jobs`` jobs at a time with ``threads`` threads each.

    * ``local``: processes of this machine, by default as many as the physical cores that it may use. One job at a time
      runs in this process, unless ``separate`` asks for another. Without ``threads``, jobs share the processors.
    * ``ray``: the Ray cluster that RAY_ADDRESS names, or else that this machine belongs to; ``ray://HOST:PORT``:
      another, through Ray's client. By default as many jobs as the cluster has processors for.

    ``gpu`` says that jobs compute on a GPU where there is one: on this machine one at a time by default, on a cluster
    with one GPU each. Raises HwnasError for any other text, without Ray, and for a cluster that does not answer.
    """
    if text == "local":
        workers = jobs or (1 if gpu and torch.cuda.is_available() else max(1, physical_cores() // (threads or 1)))
        threads = threads or max(1, available_cores() // workers)
        return LocalExecutor(workers, threads) if separate or workers > 1 else InProcess(threads)
    if text == "ray" or re.fullmatch(r"ray://[^/\s]+:\d{1,5}", text):
        return RayExecutor(text, jobs, threads or 1, gpu)
    raise HwnasError(f"unknown executor {text!r}", "write local, ray or ray://HOST:PORT")
