"""Data-parallel training by several processes, started by torchrun: each has a share of every batch.

The result is that of one process with the same batches, up to rounding: every process draws the random numbers of the
whole batch and uses its share of them, gradients are averaged, batch norms normalise by the whole batch, and losses
have the value of the whole batch. Only rank 0 writes files and logs.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.rendezvous import rendezvous

from hwnas.compute.device import to_device
from hwnas.errors import HwnasError
from hwnas.training.step_profile import span

Number = TypeVar("Number", int, float)

GRACE_S = 10.0  # for the process that failed first to report its error, before the launcher ends the others


class Processes:
    """The process group of a run, seen from its process ``rank`` of ``count``. With one process every call is free.

    All processes must call each method but ``share`` and ``one_batch`` at the same point. Raises HwnasError where
    another process has ended.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self.sizes: list[int] = []  # inside one_batch: the number of images of each process

    @property
    def is_single(self) -> bool:
        return self.count == 1

    @property
    def is_rank_zero(self) -> bool:
        """True in the process that writes files and logs."""
        return self.rank == 0

    def share(self, images: int, rank: int | None = None) -> slice:
        """Return the slice of a batch that is this process's, or ``rank``'s; shares differ by one image at most."""
        rank = self.rank if rank is None else rank
        return slice(images * rank // self.count, images * (rank + 1) // self.count)

    def require(self, images: int) -> None:
        """Raise HwnasError where a batch has fewer images than there are processes."""
        if images < self.count:
            raise HwnasError(
                f"a batch of {images} images cannot be divided among {self.count} processes",
                "start fewer processes, or give a larger --batch-size",
            )

    @contextmanager
    def one_batch(self, images: int) -> Iterator[None]:
        """Treat the inputs inside as shares of one batch: batch norms normalise by the whole batch."""
        if not self.is_single:
            bounds = (self.share(images, rank) for rank in range(self.count))
            self.sizes = [bound.stop - bound.start for bound in bounds]
        try:
            yield
        finally:
            self.sizes = []

    def whole_batch(self, loss: Tensor, correct: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean loss and number of correctly classified images of the whole batch, from those of the share.

        The gradient of the loss stays the share's, weighted so that the mean over processes is the whole batch's.
        """
        if self.is_single:
            return loss, correct
        mine = loss * (self.count * self.sizes[self.rank] / sum(self.sizes))
        values = self._sum(torch.stack([mine.detach().double() / self.count, correct.double()]))
        return _WithValue.apply(mine, values[0].to(mine)), values[1]

    def means(self, tensors: list[Tensor]) -> list[Tensor]:
        """Return the mean of each tensor over all processes."""
        if self.is_single or not tensors:
            return tensors
        with span("averaging"):
            flat = self._sum(torch.cat([tensor.flatten() for tensor in tensors])) / self.count
            flats = flat.split([tensor.numel() for tensor in tensors])
            return [mean.view_as(tensor).to(tensor.dtype) for mean, tensor in zip(flats, tensors, strict=True)]

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each tensor, in place, by its mean over all processes."""
        for tensor, mean in () if self.is_single else zip(tensors, self.means(tensors), strict=True):
            tensor.copy_(mean)

    def total(self, number: Number) -> Number:
        """Return the sum of a number over all processes."""
        if self.is_single:
            return number
        exact = torch.int64 if isinstance(number, int) else torch.float64
        return type(number)(self._sum(torch.tensor(number, dtype=exact)))

    def from_rank_zero(self, state: Any) -> Any:
        """Return rank 0's value of anything a checkpoint can hold; on rank 0 the same object."""
        if self.is_single:
            return state
        buffer = io.BytesIO()
        if self.is_rank_zero:
            torch.save(state, buffer)
        size = torch.tensor(buffer.tell())
        self._call(dist.broadcast, size, 0)
        own = bytearray(buffer.getvalue()) if self.is_rank_zero else bytearray(int(size))
        content = torch.frombuffer(own, dtype=torch.uint8)
        self._call(dist.broadcast, content, 0)
        return state if self.is_rank_zero else torch.load(io.BytesIO(own), map_location="cpu", weights_only=True)

    @contextmanager
    def rank_zero_first(self) -> Iterator[None]:
        """Run the body on rank 0 before the other ranks run it."""
        if not (self.is_single or self.is_rank_zero):
            self._call(dist.barrier)
        yield
        if self.is_rank_zero and not self.is_single:
            self._call(dist.barrier)

    def share_norms(self, module: nn.Module) -> None:
        """Let the batch norms of ``module`` normalise by whole batches."""
        for norm in () if self.is_single else module.modules():
            if type(norm) is nn.BatchNorm2d:
                norm.__class__ = SharedBatchNorm
                norm.processes = self  # type: ignore[assignment]

    def gather(self, mine: Tensor) -> Tensor:
        """Return [count, …]: the tensor of every process."""
        gathered = [torch.empty_like(mine) for _ in range(self.count)]
        self._call(dist.all_gather, gathered, mine)
        return torch.stack(gathered)

    def _sum(self, mine: Tensor) -> Tensor:
        self._call(dist.all_reduce, mine)
        return mine

    def _call(self, operation: Callable[..., Any], *arguments: Any) -> None:
        try:
            operation(*arguments)
        except RuntimeError as error:
            raise HwnasError(
                f"another process of this run has ended ({str(error).splitlines()[0]})",
                "start all of them again: the same command resumes from the last checkpoint",
            ) from error


SINGLE_PROCESS = Processes()


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm that, in training, uses mean and variance of the whole batch, of which every process has a share.

    Outside ``Processes.one_batch`` it is an ordinary batch norm. (torch's SyncBatchNorm supports GPUs only.)
    """

    processes: Processes

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.processes.sizes):
            return super().forward(x)
        sizes = self.processes.sizes
        with torch.no_grad():
            wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
            own = torch.stack(torch.batch_norm_update_stats(wide, None, None, 0.0))  # many times faster than var_mean
            means, variances = self.processes.gather(own).unbind(1)
            weights = to_device(torch.tensor(sizes, dtype=own.dtype), own.device)[:, None] / sum(sizes)
            mean = (weights * means).sum(0)
            variance = (weights * (variances + (means - mean) ** 2)).sum(0)
            count = sum(sizes) * x.shape[2] * x.shape[3]
            self._update_running(mean, variance * (count / max(count - 1, 1)))
        return _Normalised.apply(x, self.weight, self.bias, mean, variance, self.eps, count, self.processes)

    def _update_running(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), factor)
        self.running_var.lerp_(variance.to(self.running_var), factor)


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, with mean and variance over all processes' x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: int,
        processes: Processes,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.rest = eps, count, processes
        return nn.functional.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """With y = (x - mean) / sigma: dL/dx = weight / sigma * (dL/dz - mean of dL/dz - y * mean of (y dL/dz))."""
        x, weight, mean, variance = ctx.saved_tensors
        eps, count, processes = ctx.rest
        scale = torch.rsqrt(variance + eps)
        factor = torch.ones_like(scale) if weight is None else weight
        # The gradient for constant mean and variance; the sums over x that correct it come with it. On a GPU the
        # statistics of a batch may be empty, not missing.
        nothing = mean.new_empty(0)
        straight, with_y, total = torch.ops.aten.native_batch_norm_backward(
            slope, x, factor, mean, variance, nothing, nothing, False, eps, [True, True, True]
        )
        sums = processes._sum(torch.stack([total, with_y])) * (factor * scale / count)
        first, second = (s.view(1, -1, 1, 1).to(x.dtype) for s in (sums[0], sums[1] * scale))
        straight = straight.sub_(first).addcmul_(x - mean.view(1, -1, 1, 1).to(x.dtype), second, value=-1)
        own = (None, None) if weight is None else (with_y, total)
        return straight, *own, None, None, None, None, None


class _WithValue(torch.autograd.Function):
    """Returns ``value``, with the gradient of ``mine``."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


def process_group() -> Processes:
    """Return the process group that this process has joined."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else SINGLE_PROCESS


def leave_group() -> Processes:
    """Let rank 0 continue alone, with the threads of the other processes on this machine."""
    torch.set_num_threads(torch.get_num_threads() * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return SINGLE_PROCESS


@contextmanager
def join_process_group() -> Iterator[None]:
    """Join the process group that torchrun has started, and silence all ranks but 0.

    An error in one process ends all; only the process that fails first reports it.
    """
    store, rank, count = next(rendezvous("env://"))
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=count)
    try:
        with _silenced(rank > 0):
            yield
        if on_gpu:
            torch.cuda.empty_cache()
            wait_for_all(store, count)
    except BaseException as error:
        if _is_reported(store):
            if not isinstance(error, KeyboardInterrupt):
                with suppress(KeyboardInterrupt):
                    time.sleep(GRACE_S)
            raise SystemExit(1) from None
        raise
    finally:
        dist.destroy_process_group()


def wait_for_all(store: dist.Store, count: int) -> None:
    """Wait until all processes are here: NCCL ends a group only in all of its processes at once.

    Rank 0 works on alone for as long as a training takes, so there is no limit of time.
    """
    if store.add("finished", 1) == count:
        store.set("all finished", "")
    store.wait(["all finished"], timedelta(days=365))


def _is_reported(store: dist.Store) -> bool:
    """True where another process failed before this one and reports its error, also where it took the store with it."""
    try:
        return store.add("failed", 1) > 1
    except RuntimeError:
        return True


@contextmanager
def _silenced(silent: bool) -> Iterator[None]:
    if not silent:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as null, redirect_stdout(null), redirect_stderr(null):
        yield
