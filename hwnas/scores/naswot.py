"""NASWOT: how differently an untrained network treats images (Mellor et al., ICML 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hwnas.scores.isolation import run_isolated

RELUS = {nn.functional.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


def naswot(network: nn.Module, images: Tensor) -> float:
    """Return the log determinant of the kernel of a network's ReLU codes for ``images`` [N, C, H, W], N at least 2.

    The code of an image is the list of all ReLUs' outputs, 1 where positive, else 0. Entry i, j of the kernel is the
    number of units in which the codes of images i and j agree. Batch norms normalise by the batch, as in training. The
    network is not changed.
    """
    with torch.no_grad(), _AgreementOfCodes(len(images)) as codes:
        run_isolated(network, images, training=True)
    return log_determinant(codes.kernel)


def log_determinant(kernel: Tensor) -> float:
    """Return log det(K + I) of a kernel [N, N] of codes.

    The paper takes log det K, which is -inf where two codes coincide. Adding I gives every image one unit in which it
    agrees with no other; networks have thousands of units.
    """
    identity = torch.eye(len(kernel), dtype=kernel.dtype)
    return float(torch.linalg.slogdet(kernel + identity).logabsdet)


class _AgreementOfCodes(TorchFunctionMode):
    """While active, adds the codes of every ReLU that runs, as a module or as a function, to ``kernel`` [N, N]."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.kernel = torch.zeros(images, images, dtype=torch.float64)

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = function(*args, **(kwargs or {}))
        if function in RELUS:
            self.kernel += agreement((output > 0).flatten(1))
        return output


def agreement(codes: Tensor) -> Tensor:
    """Return the number of units [N, N] in which the codes [N, units] of two images agree."""
    signs = codes.float() * 2 - 1  # the products' sums are whole numbers, exact in float32 up to 2**24 units
    return (codes.shape[1] + signs @ signs.T) / 2
