"""Jobs that train a small network."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn


def train(images: Tensor, seed: int) -> dict[str, Tensor]:
    """Return the weights after some steps on uint8 images [N, C, H, W] of random classes, and the number of threads.

    torch's optimizers import much with their first step; these steps need none.
    """
    torch.manual_seed(seed)
    convolution = nn.Conv2d(images.shape[1], 8, 3)
    network = nn.Sequential(convolution, nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    inputs, targets = images.float() / 255, torch.randint(4, (len(images),))
    network(inputs)
    for _ in range(5):
        network.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter -= 0.1 * parameter.grad  # type: ignore[operator]
    return {**network.state_dict(), "threads": torch.tensor(torch.get_num_threads())}


def train_after(shared: tuple[Path, Tensor], seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield nothing learnt at once, and the weights of ``train`` once the file exists."""
    file, images = shared
    yield {}
    while not file.exists():
        time.sleep(0.02)
    yield train(images, seed)


def make_images() -> Tensor:
    return torch.randint(256, (32, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def differing(one: dict[str, dict[str, Tensor]], other: dict[str, dict[str, Tensor]]) -> list[str]:
    """Return the names of the tensors, by item, that differ in a bit or are on one side only."""
    flat = [
        {f"{item} {name}": tensor for item, found in each.items() for name, tensor in found.items()}
        for each in (one, other)
    ]
    same = {name for name in flat[0].keys() & flat[1].keys() if torch.equal(flat[0][name], flat[1][name])}
    return sorted((flat[0].keys() | flat[1].keys()) - same)
