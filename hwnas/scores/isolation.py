"""Run a network in a mode without changing it: its parameters, statistics and mode stay as they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.func import functional_call


def run_isolated(
    network: nn.Module, x: Tensor, *, training: bool, parameters: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Return a network's output for ``x``, in training or evaluation mode.

    ``parameters`` replace parameters of these names. Buffers, such as the statistics of batch norms, are copied and,
    where they hold floats, converted to the type of ``x``.
    """
    buffers = {
        name: value.to(x.dtype, copy=True) if value.is_floating_point() else value.clone()
        for name, value in network.named_buffers()
    }
    with _mode(network, training):
        return functional_call(network, {**buffers, **(parameters or {})}, (x,))


@contextmanager
def _mode(network: nn.Module, training: bool) -> Iterator[None]:
    before = [(module, module.training) for module in network.modules()]
    network.train(training)
    try:
        yield
    finally:
        for module, was_training in before:
            module.training = was_training
