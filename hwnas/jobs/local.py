"""Run jobs in processes of this machine (hwnas.jobs.worker)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from hwnas.errors import HwnasError
from hwnas.jobs.executor import Executor, Item, Result, Shared, name_errors


class LocalExecutor(Executor):
    """Runs every job in a process of its own on this machine.

    The processes ignore Ctrl-C, which stops them through this process, and end with it however it ends.
    """

    def stream(
        self, job: Callable[[Shared, Item], Iterator[Result]], shared: Shared, items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        waiting = iter(items.items())
        running: dict[Connection, str] = {}

        def start_next(worker: Connection) -> None:
            for name, item in waiting:
                running[worker] = name
                with suppress(OSError):  # of a killed worker: receiving raises the error
                    worker.send_bytes(pickle.dumps(item))
                break

        with _workers(min(self.workers, len(items)), self.threads, (job, shared)) as workers:
            for worker in workers:
                start_next(worker)
            while running:
                ready = wait(list(running))
                for worker in [worker for worker in running if worker in ready]:
                    name = running[worker]
                    with name_errors(name):
                        kind, value = _receive(worker)
                        if kind == "error":
                            raise value
                    if kind == "result":
                        yield name, value
                    else:
                        del running[worker]
                        start_next(worker)


def _receive(worker: Connection) -> tuple[str, Any]:
    """Return the next message of a worker. Raises HwnasError if it was killed."""
    try:
        message = worker.recv_bytes()
    except (EOFError, OSError):
        raise HwnasError(
            "its process was killed", "run the same command again to resume; if memory is short, lower --jobs"
        ) from None
    return pickle.loads(message)


@contextmanager
def _workers(count: int, threads: int, work: tuple[Any, Any]) -> Iterator[list[Connection]]:
    """Start workers, which get job and shared input, and yield a connection to each; stop them in the end."""
    pipes = [Pipe() for _ in range(count)]
    theirs = [their.fileno() for _, their in pipes]
    # Newer Pythons warn of forks beside threads, which numpy's libraries start and prepare for forks. torch must not
    # start CUDA before a fork, in case that it looks for GPUs.
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore:This process", "-m", "hwnas.jobs.worker", str(threads), *map(str, theirs)],
        stdin=subprocess.PIPE,
        pass_fds=theirs,
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "PYTORCH_NVML_BASED_CUDA_CHECK": "1"},
    )
    assert process.stdin
    try:
        for _, their in pipes:
            their.close()
        with suppress(BrokenPipeError):  # of a killed process: receiving raises the error
            pickle.dump(sys.path, process.stdin)
            pickle.dump(work, process.stdin)
            process.stdin.flush()
        yield [our for our, _ in pipes]
    finally:
        for our, _ in pipes:
            our.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
