"""SynFlow: the flow through a network's weights (Tanaka et al., NeurIPS 2020; Abdelfattah et al., ICLR 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hwnas.scores.isolation import run_isolated

FLOATS = np.finfo(np.float64)
LEAST, GREATEST = float(np.log(FLOATS.tiny)), float(np.log(FLOATS.max))  # about -708 and 709


def synflow(network: nn.Module, shape: tuple[int, int, int]) -> float:
    """Return log sum |theta * dR/dtheta| of a network that reads images of ``shape`` (channels, height, width).

    R is the sum of the outputs for one image of ones when every parameter is replaced by its absolute value. theta are
    the kernels: parameters of two or more dimensions, not biases or the factors of norms. Batch norms use the
    statistics that they have; initial ones leave values as they are, but for their epsilon. The computation is in
    float64 and does not change the network.

    A network in which no kernel lies on a path from the image to an output has the least score, ``LEAST``. No score is
    above ``GREATEST``, that of a sum too large for float64.
    """
    parameters = {name: p.detach().double().abs().requires_grad_() for name, p in network.named_parameters()}
    kernels = [parameter for parameter in parameters.values() if parameter.ndim > 1]
    ones = torch.ones(1, *shape, dtype=torch.float64)
    flow = run_isolated(network, ones, training=False, parameters=parameters).sum()
    if not kernels or not flow.requires_grad:
        return LEAST
    gradients = torch.autograd.grad(flow, kernels, allow_unused=True)
    total = sum(
        float((kernel.detach() * gradient).abs().sum())
        for kernel, gradient in zip(kernels, gradients, strict=True)
        if gradient is not None
    )
    if not np.isfinite(total):
        return GREATEST
    return float(np.log(total)) if total > FLOATS.tiny else LEAST
