"""The interface of executors, which run independent jobs several at a time.

A job is a function at the top level of a module that is called as ``job(shared, item)``. ``shared`` is the input that
all jobs of a call have in common, and is sent once; ``item`` is the job's own. Both can be pickled and hold no tensors
on a GPU, and so do the results. A job seeds its own random numbers, computes on the device that its input names, and
needs no file of the machine that calls it, because it may run on another.

Every job starts in the same state, with ``threads`` processor threads, so results do not depend on the number of
workers, nor on the order in which jobs end. torchrun, by contrast, makes one search or training larger
(hwnas.training.processes).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from hwnas.errors import HwnasError

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


class Executor(ABC):
    """Runs jobs, at most ``workers`` at the same time, each with ``threads`` processor threads."""

    def __init__(self, workers: int, threads: int) -> None:
        self.workers, self.threads = workers, threads

    def run(
        self, job: Callable[[Shared, Item], Result], shared: Shared, items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        """Call ``job`` with every item; yield the item's name and the result when a job ends.

        Raises what ``stream`` raises.
        """
        return self.stream(partial(_yield_result, job), shared, items)

    @abstractmethod
    def stream(
        self, job: Callable[[Shared, Item], Iterator[Result]], shared: Shared, items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        """Call the generator function ``job`` with every item; yield the item's name and each value that it yields.

        Jobs start in the order of ``items``; the values of one arrive in their order. Closing the iterator stops all
        jobs. An exception in a job stops the others and is raised here; of a HwnasError the item's name begins the
        problem. Raises HwnasError where the process of a job is killed.
        """


def _yield_result(job: Callable[[Shared, Item], Result], shared: Shared, item: Item) -> Iterator[Result]:
    yield job(shared, item)


@contextmanager
def name_errors(name: str) -> Iterator[None]:
    """Begin the problem of a HwnasError in the body with the name of its job."""
    try:
        yield
    except HwnasError as error:
        raise HwnasError(f"{name}: {error.problem}", error.fix) from None
