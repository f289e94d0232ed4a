"""A job that trains a small network."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def train(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the weights after some steps on uint8 images [N, C, H, W], whose classes are random."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(images.shape[1], 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )
    inputs, targets = images.float() / 255, torch.randint(4, (len(images),))
    network(inputs)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return {**network.state_dict(), "threads": torch.tensor(torch.get_num_threads())}
