"""A bilevel problem whose solution is known, as a step that learning rules can take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.compute.seeds import Purpose
from hwnas.search.distribution import DrawContext

DECAY, RATE = 0.1, 0.2


class Quadratic:
    """L_train = 1/2 (w - B alpha)' A (w - B alpha) + decay/2 w'w,   L_val = 1/2 |w - t|^2 + c' alpha.

    With S = (A + decay)^-1 A B the weights' optimum is S alpha. ``alpha`` has one row, the logits of an edge; the
    rules find it at ``target``, and everything that they may call at ``self``. Weights learn by gradient descent.
    """

    def __init__(self, size: int = 3) -> None:
        generator = torch.Generator().manual_seed(size)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        root = drawn(size, size)
        self.A = root @ root.T / size + 0.5 * torch.eye(size, dtype=torch.float64)
        self.B, self.t, self.c = drawn(size, size) + 2 * torch.eye(size), drawn(size), drawn(size)
        self.w, self.alpha = nn.Parameter(drawn(size)), nn.Parameter(drawn(1, size))
        self.S = torch.linalg.solve(self.A + DECAY * torch.eye(size), self.A @ self.B)
        distribution = SimpleNamespace(allowed=lambda kind: torch.ones(1, size, dtype=torch.bool))
        self.target: Any = SimpleNamespace(
            parameters=[self.alpha], logits={"cell": self.alpha}, distribution=distribution, stopped=""
        )
        self.weights = SimpleNamespace(parameters=[self.w], optimizer=SimpleNamespace(param_groups=[{"lr": RATE}]))
        self.recipe = SimpleNamespace(weights=SimpleNamespace(weight_decay=DECAY))
        self.supernet, self.logits_trainable, self.turn, self.weight_steps = self, True, 0, 0
        self.seed, self.progress = 0, 0.0

    def draw_context(self, purpose: Purpose) -> DrawContext:
        return DrawContext(torch.Generator().manual_seed(self.seed), progress=self.progress)

    def weights_loss(self, target: Any) -> Any:
        """Return the task's loss, without the decay, as in a search."""
        gap = self.w - self.B @ self.alpha[0]
        return SimpleNamespace(task=0.5 * gap @ self.A @ gap)

    def logits_loss(self, target: Any, frozen: bool = True) -> tuple[Tensor, Tensor]:
        return 0.5 * ((self.w - self.t) ** 2).sum(), self.c @ self.alpha[0]

    def gradients(self, loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(loss, list(parameters), allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]

    def weights_step(self, target: Any, ahead: int = 0) -> None:
        (slope,) = self.gradients(self.weights_loss(target).task, [self.w])
        with torch.no_grad():
            self.w -= RATE * (slope + DECAY * self.w)
        self.weight_steps += 1

    def zero_grad(self, target: Any) -> None:
        self.w.grad = self.alpha.grad = None

    def step_logits(self, target: Any) -> None:
        """Leave the logits: tests read their gradient."""

    @contextmanager
    def restored(self) -> Iterator[None]:
        before = self.w.detach().clone()
        yield
        with torch.no_grad():
            self.w.copy_(before)
