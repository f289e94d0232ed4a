"""The processes of the local executor: ``python -m hwnas.jobs.worker THREADS DESCRIPTOR…``.

The first process reads the job and the shared input from standard input and forks a worker for every descriptor, a
connection to the executor. A worker forks once more for every item that it receives. Imports and shared input thus
cost time and memory once, and every job starts in the same state, whatever ran before it. multiprocessing would import
the user's main module again, and cannot start processes in a daemonic one.

All end when standard input closes, so no process outlives the executor's. What jobs print goes to standard error.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

Job = Callable[[Any, Any], Iterator[Any]]


def main(threads: int, descriptors: Sequence[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    connections = [Connection(descriptor) for descriptor in descriptors]
    try:
        sys.path[:] = pickle.load(sys.stdin.buffer)
        job, shared = pickle.load(sys.stdin.buffer)
    except Exception as error:
        for connection in connections:
            _send(connection, "error", error)
        return
    if torch := sys.modules.get("torch"):
        torch.optim.SGD([torch.zeros(1)], lr=0.1)  # the first optimizer imports much: here once, not in every job
    while connections:
        connection = connections.pop()
        if not os.fork():
            for other in connections:
                other.close()
            _serve(connection, job, shared, threads)
            os._exit(0)
        connection.close()
    for _ in descriptors:
        os.wait()


def _serve(connection: Connection, job: Job, shared: Any, threads: int) -> None:
    """Run each item in a process of its own, until the executor closes the connection or such a process is killed."""
    while True:
        try:
            item = connection.recv_bytes()
        except (EOFError, OSError):
            return
        process = os.fork()
        if not process:
            _run(connection, job, shared, item, threads)
            os._exit(0)
        if os.waitpid(process, 0)[1]:
            return
        _send(connection, "end", None)


def _run(connection: Connection, job: Job, shared: Any, item: bytes, threads: int) -> None:
    """Send the results of a job, and the error that ends it."""
    threading.Thread(target=_exit_with_stdin, daemon=True).start()
    if torch := sys.modules.get("torch"):  # otherwise OMP_NUM_THREADS sets it once the job imports torch
        torch.set_num_threads(threads)
    try:
        for result in job(shared, pickle.loads(item)):
            _send(connection, "result", result)
    except Exception as error:
        _send(connection, "error", error)
    sys.stdout.flush()
    sys.stderr.flush()


def _send(connection: Connection, kind: str, value: Any) -> None:
    """Send a message; an exception with its traceback as a note, as a RuntimeError if it cannot be pickled."""
    if isinstance(value, Exception):
        trace = "".join(traceback.format_exception(value))
        try:
            pickle.loads(pickle.dumps(value))
        except Exception:
            value = RuntimeError(f"{type(value).__name__}: {value}")
        value.add_note(f"In a worker process:\n{trace}")
    message = pickle.dumps((kind, value))
    try:
        connection.send_bytes(message)
    except OSError:
        os._exit(1)  # the executor has closed the connection


def _exit_with_stdin() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(descriptor) for descriptor in sys.argv[2:]])
