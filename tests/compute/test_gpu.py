"""Search and training on a GPU: recorded passes, which change no result, and steps that wait for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hwnas.networks.supernet import Supernet
from hwnas.search.search import Search
from hwnas.training.child import Trainer
from hwnas.training.optimizers import make_optimizer
from support.searches import searching
from support.training import DATA, recipe_of, tiny_child

STEPS = 5


@pytest.fixture(autouse=True)
def gpu() -> None:
    """Skip where there is no GPU, or where torch takes the simulated device of other tests for its accelerator."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA GPU on this machine")
    if torch.accelerator.current_accelerator() != torch.device("cuda"):
        pytest.skip("another test file has registered the simulated device: run this file in a process of its own")


@contextmanager
def no_waiting() -> Iterator[None]:
    """Make every synchronisation with the GPU an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def after_steps(name: str, records: bool) -> Search:
    """Return a search after some steps, of which the last waited for nothing."""
    search = searching(name.split("/")[0], name, epochs=4, drop_path=0.2)
    assert search.device.type == "cuda"
    search.supernet_state.passes.enabled = records
    for _ in range(STEPS):
        search.take_step()
    with no_waiting():
        search.take_step()
    assert search.supernet_state.passes.enabled == records  # it could be recorded
    return search


def tensors_of(search: Search) -> dict[str, Tensor]:
    """Return the weights, statistics and logits of a search."""
    tensors = {**search.supernet.state_dict(), **search.targets[0].distribution.state_dict()}
    return {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}


@pytest.mark.parametrize("name", ["darts/snas", "darts/darts", "nasbench201/drnas"])
def test_recorded_passes_agree_with_single_operators_and_nothing_waits(name: str) -> None:
    recorded, single = (tensors_of(after_steps(name, records)) for records in (True, False))
    for key, value in single.items():
        torch.testing.assert_close(recorded[key], value, rtol=1e-3, atol=1e-4, msg=f"{key} differs")


def test_a_search_continues_after_a_recording_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that waits for the GPU cannot be recorded; DrNAS's next draw needs random numbers of the GPU."""
    forward, stream = Supernet.forward, torch.cuda.current_stream()
    lines: list[str] = []

    def waits(supernet: Supernet, images: Tensor, *rest: Any) -> Tensor:
        float(images.sum())
        return forward(supernet, images, *rest)

    monkeypatch.setattr(Supernet, "forward", waits)
    search = searching("nasbench201", "nasbench201/drnas", epochs=4)
    search.supernet_state.passes.log = lines.append
    for _ in range(STEPS):
        search.take_step()
    assert len(lines) == 1
    assert "CUDA graphs cannot record the supernet" in lines[0]
    assert torch.cuda.current_stream() == stream
    search.state()  # raises where a loss is not finite


def test_a_training_step_waits_for_nothing() -> None:
    recipe = recipe_of(epochs=2, auxiliary_weight=0.4, drop_path=0.2, cutout=4, ema=0.9)
    trainer = Trainer(tiny_child(), DATA, recipe)
    for _ in range(trainer.batches.steps_per_epoch + 1):
        trainer.take_step()
    with no_waiting():
        trainer.take_step()
    trainer.state()


def test_all_parameters_are_stepped_at_once() -> None:
    weights = [nn.Parameter(torch.ones(3, device="cuda"))]
    assert make_optimizer(recipe_of().optimizer, weights).defaults["fused"]
