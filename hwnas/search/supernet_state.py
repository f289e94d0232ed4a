"""The state of the supernet in a search: its weights, their optimiser and its recorded forward passes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwnas.compute.device import layout_on
from hwnas.compute.seeds import Purpose, seed_of
from hwnas.networks.drop_path import DropPath, drop_path
from hwnas.networks.dropout import Dropout
from hwnas.networks.fast import accelerate
from hwnas.networks.fast.kernels import choose_kernels
from hwnas.networks.pretrained import Fit, read_weights
from hwnas.networks.pretrained_supernet import load_into_supernet
from hwnas.networks.supernet import Supernet
from hwnas.networks.widen import widen
from hwnas.recipe import Recipe
from hwnas.search.axes import Running
from hwnas.spaces import SizedSpace
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.processes import Processes


def mixed_channels(sized: SizedSpace, partial: int) -> int:
    """Return the number of channels in the mixture of the first cells.

    It is 0 in a chain, where layers sum nothing, and in recurrent cells, which kernels do not compute.
    """
    return 0 if sized.space.is_chain or sized.space.is_recurrent else sized.setting.channels // partial


class SupernetState:
    """A supernet on its device, its optimiser and its recorded passes; a wider supernet replaces all of them.

    ``replays`` says whether forward passes are recorded as CUDA graphs. ``fit`` says which layers of the recipe's
    pretrained weights the supernet started from; None without any.
    """

    fit: Fit | None = None

    def __init__(
        self,
        sized: SizedSpace,
        recipe: Recipe,
        device: torch.device,
        precision: str,
        replays: bool,
        processes: Processes,
        log: Callable[[str], None],
    ) -> None:
        self.sized, self.recipe = sized, recipe
        self.device, self.precision, self.replays = device, precision, replays
        self.processes, self.log = processes, log

    def build(self, partial_channels: int) -> None:
        """Start from a new supernet, its weights drawn from the recipe's seed or as far as they fit pretrained.

        Raises HwnasError where no pretrained weights fit.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.recipe.seed, Purpose.SUPERNET))
            supernet = self._new(partial_channels)
            if file := self.recipe.pretrained:
                self.fit = load_into_supernet(supernet, read_weights(Path(file)), file)
            self.use(supernet)

    def _new(self, partial_channels: int) -> Supernet:
        recipe = self.recipe
        affine = recipe.pretrained is not None
        return Supernet(self.sized, partial_channels, recipe.shared_features, recipe.shared_blocks, affine)

    def use(self, supernet: Supernet) -> None:
        """Put a supernet on the device, with a new optimiser and no recorded passes."""
        self.processes.share_norms(supernet)
        self.layout = layout_on(self.device, supernet)
        self.module = supernet.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        self.accelerate()
        self.weights = ParameterOptimizer(self.recipe.weights, self.module.parameters(), self.processes)

    def accelerate(self) -> None:
        """Prepare fast forward passes; call it again when the candidates that run have changed for good."""
        channels = mixed_channels(self.sized, self.module.partial)
        kernels, _ = choose_kernels(
            self.recipe.kernels, self.precision, channels, self.device, self.processes.is_single
        )
        self.passes = accelerate(
            self.module, precision=self.precision, compiled=kernels == "compiled", replay=self.replays, log=self.log
        )

    def cast(self, images: Tensor) -> Tensor:
        """Return images in the type and the memory layout of the supernet; numbers of words as they are."""
        if not images.is_floating_point():
            return images
        return images.to(self.weights.parameters[0].dtype).contiguous(memory_format=self.layout)

    def scores(self, images: Tensor, running: Running, drop: DropPath | Dropout | None, frozen: bool) -> Tensor:
        """Return the class scores of a batch; ``frozen``: no gradient of the weights will be computed."""
        return self.passes(images, *running, drop, frozen).to(self.weights.parameters[0].dtype)

    def drop(self, generator: torch.Generator, total: int, share: slice) -> DropPath | Dropout | None:
        """Draw what is dropped of this process's ``share`` of a batch of ``total`` images or windows of words."""
        if self.recipe.dropout:
            return Dropout(self.recipe.dropout, generator, total, share)
        if self.recipe.drop_path:
            return drop_path(self.recipe.drop_path, generator, self.module.num_edges, total, share, self.device)
        return None

    def own_gradient(self, gradient: Tensor) -> Tensor:
        """Return a gradient in memory of its own: recorded passes write into the same memory each time."""
        return gradient.clone() if self.passes.enabled else gradient

    def widen(self, partial_channels: int, generator: torch.Generator) -> None:
        """Widen the mixtures to 1/``partial_channels`` of the channels; the optimiser's momentum is widened, too."""
        if partial_channels == self.module.partial:
            return
        state = self.weights.optimizer.state
        names = {p: name for name, p in self.module.named_parameters()}
        momentum = {n: state[p]["momentum_buffer"] for p, n in names.items() if "momentum_buffer" in state.get(p, {})}
        self.use(widen(self.module, partial_channels, momentum, generator))
        for name, parameter in self.module.named_parameters():
            if name in momentum:
                self.weights.optimizer.state[parameter]["momentum_buffer"] = momentum[name]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Undo to the bit what the body does to the weights, their optimiser's state and the running statistics."""
        tensors = [*self.module.parameters(), *self.module.buffers()]
        before = [tensor.detach().clone() for tensor in tensors]
        state = self.weights.optimizer.state
        kept = {p: {k: v.clone() if isinstance(v, Tensor) else v for k, v in own.items()} for p, own in state.items()}
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, value in zip(tensors, before, strict=True):
                    tensor.copy_(value)
            state.clear()
            state.update(kept)

    def state(self) -> dict[str, Any]:
        return {"supernet": self.module.state_dict(), "weight_optimizer": self.weights.state_dict()}

    def load_state(self, state: Mapping[str, Any], partial_channels: int) -> None:
        if partial_channels != self.module.partial:
            self.use(self._new(partial_channels))
        self.module.load_state_dict(state["supernet"])
        self.weights.load_state_dict(state["weight_optimizer"])
