"""ZiCo: how little an untrained network's gradients vary between batches (Li et al., ICLR 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hwnas.scores.isolation import run_isolated


def zico(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the sum over kernels of log sum |g| / std |g|, g the gradients of the loss on two halves of a batch.

    ``images`` are [N, C, H, W], N at least 4, ``labels`` [N]; the loss is the cross-entropy. Kernels are parameters of
    two or more dimensions. Of each weight, mean and standard deviation are taken over the two halves; weights whose
    gradients do not vary are left out, as are kernels without any other. The score is 0 or more: the mean is never
    below the deviation. Batch norms normalise by the batch. The network is not changed.
    """
    halves = zip(images.tensor_split(2), labels.tensor_split(2), strict=True)
    gradients = zip(*(_gradients(network, *half) for half in halves), strict=True)
    return sum(_log_inverse_variation(torch.stack(kernel).double().abs()) for kernel in gradients)


def _log_inverse_variation(sizes: Tensor) -> float:
    """Return log sum mean / std of gradients' absolute values [2, ...], 0 where none varies."""
    mean, deviation = sizes.mean(dim=0), sizes.std(dim=0, correction=0)
    varies = deviation > 0
    return float((mean[varies] / deviation[varies]).sum().log()) if varies.any() else 0.0


def _gradients(network: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor]:
    """Return the gradients of the loss by the kernels, zeros for those that it does not depend on."""
    parameters = {name: p.detach().requires_grad_() for name, p in network.named_parameters()}
    kernels = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    if not kernels:
        return []
    scores = run_isolated(network, images, training=True, parameters=parameters)
    loss = nn.functional.cross_entropy(scores, labels)
    return list(torch.autograd.grad(loss, kernels, allow_unused=True, materialize_grads=True))
