"""Run jobs one after another in the process that asks for them, which starts no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from hwnas.jobs.executor import Executor, Item, Result, Shared, name_errors

END = object()


class InProcess(Executor):
    """Runs one job at a time in this process. torch's threads and random numbers here are as if no job had run."""

    def __init__(self, threads: int = 1) -> None:
        super().__init__(1, threads)

    def stream(
        self, job: Callable[[Shared, Item], Iterator[Result]], shared: Shared, items: Mapping[str, Item]
    ) -> Iterator[tuple[str, Result]]:
        for name, item in items.items():
            results = job(shared, item)
            inside = replace(_TorchState.now(), threads=self.threads)
            while True:
                outside = _TorchState.now()
                inside.restore()
                try:
                    with name_errors(name):
                        result = next(results, END)
                finally:
                    inside = _TorchState.now()
                    outside.restore()
                if result is END:
                    break
                yield name, result  # type: ignore[misc]


@dataclass(frozen=True)
class _TorchState:
    """Number of threads, and states of the generators of the CPU and of every GPU in use."""

    threads: int
    cpu: Tensor
    gpus: list[Tensor]

    @classmethod
    def now(cls) -> _TorchState:
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
        return cls(torch.get_num_threads(), torch.get_rng_state(), gpus)

    def restore(self) -> None:
        torch.set_num_threads(self.threads)
        torch.set_rng_state(self.cpu)
        for index, state in enumerate(self.gpus):
            torch.cuda.set_rng_state(state, index)
