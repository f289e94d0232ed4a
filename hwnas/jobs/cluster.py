"""Run jobs on the machines of a Ray cluster.

Ray sends the shared input once to every machine, starts a process for each job, and starts a job again where its
machine or process is lost. Every machine must have the same hwnas and the same torch: a job checks that before it runs.
The bits of a result depend on the kind of processor, as everywhere.

Ray's client, which connects to a cluster from outside (ray://HOST:PORT), streams no results: those of a job arrive
together when it ends.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from hwnas import __version__
from hwnas.errors import HwnasError
from hwnas.imports import require_extra
from hwnas.jobs.executor import Executor, Item, Result, Shared, name_errors
from hwnas.text import quoted

CLIENT = "ray://"
PATIENCE_S = 5.0
MAX_RETRIES = 3  # of a job whose machine or process is lost


class RayExecutor(Executor):
    """Runs every job as a task of a Ray cluster, in a process of its own.

    ``workers`` is the number of jobs for which the cluster has processors now, or ``jobs``, the most that may run at
    the same time. With ``gpu`` every job gets a GPU, if the cluster has any. Raises HwnasError without Ray and without
    a cluster that answers.
    """

    def __init__(self, text: str, jobs: int | None, threads: int, gpu: bool) -> None:
        self._ray: Any = require_extra("ray", "cluster", f"--executor {quoted(text)}")
        _connect(self._ray, text)
        resources = self._ray.cluster_resources()
        super().__init__(jobs or max(1, int(resources.get("CPU", 0)) // threads), threads)
        self._limit = jobs
        self._gpus = int(gpu and "GPU" in resources)
        self._streams = not self._ray.util.client.ray.is_connected()

    def stream(
        self, job: Callable[[Shared, Item], Iterator[Result]], shared: Shared, items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        ray = self._ray
        task = ray.remote(max_calls=1)(_run if self._streams else _run_to_end)
        options: dict[str, Any] = {"num_cpus": self.threads, "num_gpus": self._gpus, "max_retries": MAX_RETRIES}
        if self._streams:
            options["num_returns"] = "streaming"
        with self._errors():
            inputs, build = ray.put(shared), describe_build()
        waiting = iter(items.items())
        running: dict[Any, str] = {}

        def start_next() -> None:
            for name, item in waiting:
                started = task.options(name=f"hwnas: {name}", **options).remote(build, self.threads, job, inputs, item)
                running[started] = name
                break

        try:
            for _ in range(self._limit or len(items)):
                start_next()
            while running:
                for ready in ray.wait(list(running))[0]:
                    name = running[ready]
                    with name_errors(name), self._errors():
                        results, is_over = self._receive(ready)
                    for result in results:
                        yield name, result
                    if is_over:
                        del running[ready]
                        start_next()
        finally:
            for each in running:
                ray.cancel(each, force=True)

    def _receive(self, ready: Any) -> tuple[list[Any], bool]:
        """Return the results of a job that have arrived, and whether it is over."""
        if not self._streams:
            return self._ray.get(ready), True
        result = next(ready, None)
        return ([], True) if result is None else ([self._ray.get(result)], False)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Raise the exception of a job as it was, and one of Ray as a HwnasError."""
        errors = self._ray.exceptions
        try:
            yield
        except errors.RayTaskError as error:
            if isinstance(error.cause, errors.RayError):
                raise _unreadable(error) from error
            error.cause.add_note(f"In a task of Ray:\n{error}")
            raise error.cause from None
        except errors.RayError as error:
            raise HwnasError(
                f"its machine or process was lost {MAX_RETRIES + 1} times ({type(error).__name__})",
                "run the same command again to resume; if memory is short, lower --jobs",
            ) from error
        except ImportError as error:  # of Ray's client, which sends inputs through a machine of the cluster
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> HwnasError:
    return HwnasError(
        f"a machine of the cluster cannot read the job: {_last_line(error)}",
        "install the same hwnas, and what the job imports, on every machine of the cluster",
    )


def _connect(ray: Any, text: str) -> None:
    """Connect to the cluster that ``text`` names, unless this process is connected. Raises HwnasError if none answers.

    Without a look at the port first, Ray would try for minutes.
    """
    if ray.is_initialized():
        return
    try:
        address = _find(ray) if text == "ray" else text
        host, _, port = address.removeprefix(CLIENT).rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError) as error:
        raise HwnasError(
            f"no Ray cluster answers --executor {quoted(text)}: {_last_line(error)}",
            "start one: 'ray start --head' on one machine, 'ray start --address=HOST:6379' on the others",
        ) from error
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    # Ray prints notices of the cluster, such as a lost machine, to standard output, which is for results.
    show = ray._private.worker.print_to_stdstream
    ray._private.worker.print_to_stdstream = lambda data, ignore_prefix: show({**data, "is_err": True}, ignore_prefix)


def _find(ray: Any) -> str:
    """Return the address of the cluster that RAY_ADDRESS names, or else that this machine belongs to."""
    named = os.environ.get("RAY_ADDRESS", "")
    return named if named.startswith(CLIENT) else ray._private.services.canonicalize_bootstrap_address("auto")


def _last_line(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]


def _run(
    build: Mapping[str, str],
    threads: int,
    job: Callable[[Shared, Item], Iterator[Result]],
    shared: Shared,
    item: Item,
) -> Iterator[Result]:
    """Run a job on a machine of the cluster. Raises HwnasError where hwnas or torch is another."""
    for name, found in describe_build().items():
        if found != build[name]:
            raise HwnasError(
                f"a machine of the cluster has {name} {found}, and this one {build[name]}",
                f"install the same {name} on every machine of the cluster",
            )
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    yield from job(shared, item)


def _run_to_end(*arguments: Any) -> list[Any]:
    return list(_run(*arguments))


@cache
def describe_build() -> dict[str, str]:
    """Return the versions on this machine of what decides the bits of a result; of hwnas with a hash of its source."""
    package = Path(__file__).parents[1]
    content = hashlib.sha256()
    for file in sorted([*package.rglob("*.py"), *package.rglob("*.cpp")]):
        content.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return {"hwnas": f"{__version__} ({content.hexdigest()[:8]})", "torch": metadata.version("torch")}
