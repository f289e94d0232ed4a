"""Several processes that train one network together, started by torchrun: each has its share of every batch.

They reach what one process reaches with the same batches, up to rounding: random numbers are drawn for the whole batch
by all and then divided, gradients are averaged, batch norms normalise by the whole batch, and a loss tells the value of
the whole batch. The first process leads: it alone writes and speaks.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.rendezvous import rendezvous

from hwnas.errors import HwnasError
from hwnas.training.step_profile import span

PATIENCE_S = 10.0  # for the process that says what went wrong to say it; then the launcher ends the others


class Processes:
    """All that work together, seen from the one of number ``rank`` among ``count``. Alone, nothing here costs a thing.

    Everything but ``share`` and ``one_batch`` is called by all of them at the same point.
    Raises HwnasError where another has ended.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count
        self.sizes: list[int] = []  # while a batch is divided: how many of its images each process has

    @property
    def alone(self) -> bool:
        return self.count == 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, images: int, rank: int | None = None) -> slice:
        """Which images of a batch are this process's (another's); shares differ by one image at most."""
        rank = self.rank if rank is None else rank
        return slice(images * rank // self.count, images * (rank + 1) // self.count)

    def require(self, images: int) -> None:
        """Raises HwnasError when a batch of so many images is too small to be shared."""
        if images < self.count:
            raise HwnasError(
                f"a batch of {images} images cannot be shared by {self.count} processes",
                "start fewer, or give a larger --batch-size",
            )

    @contextmanager
    def one_batch(self, images: int) -> Iterator[None]:
        """Inside, what the processes see are their shares of one batch: batch norms take it as a whole."""
        if not self.alone:
            bounds = (self.share(images, rank) for rank in range(self.count))
            self.sizes = [bound.stop - bound.start for bound in bounds]
        try:
            yield
        finally:
            self.sizes = []

    def whole(self, loss: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of a share of a batch, and how many of its images were told right, for the whole batch.

        The loss's gradient stays this process's: of these gradients the mean over processes is the whole batch's.
        """
        if self.alone:
            return loss, right
        mine = loss * (self.count * self.sizes[self.rank] / sum(self.sizes))
        values = self._sum(torch.stack([mine.detach().double() / self.count, right.double()]))
        return _Valued.apply(mine, values[0].to(mine)), values[1]

    def means(self, tensors: list[Tensor]) -> list[Tensor]:
        """The mean of each over all processes."""
        if self.alone or not tensors:
            return tensors
        with span("averaging"):
            flat = self._sum(torch.cat([tensor.flatten() for tensor in tensors])) / self.count
            flats = flat.split([tensor.numel() for tensor in tensors])
            return [mean.view_as(tensor).to(tensor.dtype) for mean, tensor in zip(flats, tensors, strict=True)]

    def average(self, tensors: list[Tensor]) -> None:
        """Replace each, in place, by its mean over all processes."""
        for tensor, mean in () if self.alone else zip(tensors, self.means(tensors), strict=True):
            tensor.copy_(mean)

    def total(self, number: int) -> int:
        """The sum of a number over all processes."""
        return number if self.alone else int(self._sum(torch.tensor(number)))

    def from_leader(self, state: Any) -> Any:
        """The first process's value of what a checkpoint can hold; the first gets its own object back."""
        if self.alone:
            return state
        buffer = io.BytesIO()
        if self.leads:
            torch.save(state, buffer)
        size = torch.tensor(buffer.tell())
        self._call(dist.broadcast, size, 0)
        own = bytearray(buffer.getvalue()) if self.leads else bytearray(int(size))
        content = torch.frombuffer(own, dtype=torch.uint8)
        self._call(dist.broadcast, content, 0)
        return state if self.leads else torch.load(io.BytesIO(own), map_location="cpu", weights_only=True)

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """The first process does what is inside before the others do."""
        if not (self.alone or self.leads):
            self._call(dist.barrier)
        yield
        if self.leads and not self.alone:
            self._call(dist.barrier)

    def share_norms(self, module: nn.Module) -> None:
        """Let the batch norms of ``module`` see whole batches."""
        for norm in () if self.alone else module.modules():
            if type(norm) is nn.BatchNorm2d:
                norm.__class__ = SharedBatchNorm
                norm.processes = self  # type: ignore[assignment]

    def gather(self, mine: Tensor) -> Tensor:
        """[count, …]: what every process has."""
        everybodys = [torch.empty_like(mine) for _ in range(self.count)]
        self._call(dist.all_gather, everybodys, mine)
        return torch.stack(everybodys)

    def _sum(self, mine: Tensor) -> Tensor:
        self._call(dist.all_reduce, mine)
        return mine

    def _call(self, operation: Callable[..., Any], *arguments: Any) -> None:
        try:
            operation(*arguments)
        except RuntimeError as error:
            raise HwnasError(
                f"another process of this run has ended ({str(error).splitlines()[0]})",
                "start them all again: the same command goes on from the last checkpoint",
            ) from error


ALONE = Processes()


class SharedBatchNorm(nn.BatchNorm2d):
    """In training, by the mean and variance of a whole batch of which every process has a share.

    (torch's SyncBatchNorm is for GPUs alone.) Outside ``Processes.one_batch`` an ordinary batch norm.
    """

    processes: Processes

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and self.processes.sizes):
            return super().forward(x)
        sizes = self.processes.sizes
        with torch.no_grad():
            wide = x.detach().to(torch.promote_types(x.dtype, torch.float32))
            own = torch.stack(torch.batch_norm_update_stats(wide, None, None, 0.0))  # many times as fast as var_mean
            means, variances = self.processes.gather(own).unbind(1)
            weights = own.new_tensor(sizes)[:, None] / sum(sizes)
            mean = (weights * means).sum(0)
            variance = (weights * (variances + (means - mean) ** 2)).sum(0)
            count = sum(sizes) * x.shape[2] * x.shape[3]
            self._remember(mean, variance * (count / max(count - 1, 1)))
        return _Normalised.apply(x, self.weight, self.bias, mean, variance, self.eps, count, self.processes)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        factor = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), factor)
        self.running_var.lerp_(variance.to(self.running_var), factor)


class _Normalised(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * weight + bias, mean and variance being those of all processes' x."""

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
        # As if mean and variance did not depend on x; the sums over x that correct this come with it.
        straight, with_y, alone = torch.ops.aten.native_batch_norm_backward(
            slope, x, factor, mean, variance, None, None, False, eps, [True, True, True]
        )
        sums = processes._sum(torch.stack([alone, with_y])) * (factor * scale / count)
        first, second = (s.view(1, -1, 1, 1).to(x.dtype) for s in (sums[0], sums[1] * scale))
        straight = straight.sub_(first).addcmul_(x - mean.view(1, -1, 1, 1).to(x.dtype), second, value=-1)
        own = (None, None) if weight is None else (with_y, alone)
        return straight, *own, None, None, None, None, None


class _Valued(torch.autograd.Function):
    """``value``, with the gradient of ``mine``."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope, None


def process_group() -> Processes:
    """Those that this one has joined."""
    return Processes(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else ALONE


def leave_group() -> Processes:
    """Of the first process, as the others leave: it has their threads on this machine to itself."""
    torch.set_num_threads(torch.get_num_threads() * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return ALONE


@contextmanager
def joined() -> Iterator[None]:
    """Inside, the processes that torchrun has started know each other, and the first alone is heard.

    What ends one of them ends all, and the first that fails is the only one that says why.
    """
    store, rank, count = next(rendezvous("env://"))
    on_gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", store=store, rank=rank, world_size=count)
    try:
        with _muted(rank > 0):
            yield
    except BaseException as error:
        if _was_said(store):
            if not isinstance(error, KeyboardInterrupt):
                with suppress(KeyboardInterrupt):
                    time.sleep(PATIENCE_S)
            raise SystemExit(1) from None
        raise
    finally:
        dist.destroy_process_group()


def _was_said(store: dist.Store) -> bool:
    """Whether another process failed before this one and says why: so does the one that takes the store along."""
    try:
        return store.add("failed", 1) > 1
    except RuntimeError:
        return True


@contextmanager
def _muted(silent: bool) -> Iterator[None]:
    if not silent:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
