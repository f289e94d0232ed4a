"""Search and training on another device than the CPU: the same numbers, and no synchronisation inside a step.

The device is simulated (tests/support/accelerator.py) and computes with the CPU's arithmetic. The tests that need a GPU
are in test_gpu.py.
"""

from __future__ import annotations

import math
import re
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import hwnas.training.batches
from hwnas.compute.device import CPU, choose_device, describe, layout_on, to_device
from hwnas.compute.precision import choose_precision, multiply_in
from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.networks import fast
from hwnas.networks.fast import cuda_graphs, fused_edges
from hwnas.networks.fast.cuda_graphs import MOST_GRAPHS, GraphReplay
from hwnas.networks.supernet import Supernet
from hwnas.operations import DilatedDepthwise
from hwnas.recipe import known_recipes, read_recipe
from hwnas.search.pace import Pace
from hwnas.search.resume import run_to_end
from hwnas.search.search import Search
from hwnas.training.child import Trainer, train_child
from hwnas.training.optimizers import ParameterOptimizer
from hwnas.training.processes import Processes
from support.accelerator import DEVICE, WAITS, Accelerator, There
from support.searches import searching
from support.training import DATA, recipe_of, tiny_child

METHODS = [
    *(name for name in known_recipes() if name.startswith("nasbench201/")),
    *(f"darts/{name}" for name in ("darts", "drnas-progressive")),  # other operations, two kinds of cells, stages
]
STEPS = 2


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put search and training on the simulated device."""
    monkeypatch.setattr(hwnas.training.batches, "choose_device", lambda asked: DEVICE)
    # As on the processor, to compare to the bit; tests/networks/fast/test_fused_edges.py compares fused edges.
    together = fused_edges._together
    monkeypatch.setattr(fused_edges, "_together", lambda mine, x: together(mine, torch.empty(0)))
    monkeypatch.setattr(DilatedDepthwise, "is_faster", lambda conv, device: True)
    with Accelerator():
        yield


def leaves(state: Any, name: str = "") -> dict[str, Any]:
    """Return every tensor (on the CPU) and number of a state by its path."""
    pairs = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list | tuple) else None
    if pairs is None:
        return {name: state.held if isinstance(state, There) else state}
    return {path: leaf for key, value in pairs for path, leaf in leaves(value, f"{name}/{key}").items()}


def require_equal(found: Any, expected: Any) -> None:
    mine, theirs = leaves(found), leaves(expected)
    assert list(mine) == list(theirs)
    for path, value in theirs.items():
        if isinstance(value, Tensor | float):
            torch.testing.assert_close(mine[path], value, rtol=0, atol=0, msg=lambda m, at=path: at + m)
        else:
            assert mine[path] == value, path


def some_steps(recipe: str) -> tuple[Search, list[Counter[str]]]:
    """Return a search after some steps, and the synchronisations of each step."""
    space = "darts" if recipe.startswith("darts/") else "nasbench201"
    search = searching(space, recipe, epochs=4, drop_path=0.2)
    waits = []
    for _ in range(STEPS):
        WAITS.clear()
        search.take_step()
        waits.append(Counter(WAITS))
    return search, waits


EXPECTED: dict[str, Any] = {}


@pytest.fixture(params=METHODS)
def recipe(request: pytest.FixtureRequest) -> str:
    """A recipe whose search on the CPU has been recorded in EXPECTED."""
    EXPECTED[request.param] = some_steps(request.param)[0].state()
    return str(request.param)


@pytest.mark.slow
def test_a_search_on_another_device_equals_that_on_the_cpu(recipe: str, there: None) -> None:
    """Bit-identical weights, statistics, logits, optimisers, multipliers and sums."""
    search, waits = some_steps(recipe)
    assert {parameter.device for parameter in search.supernet_state.weights.parameters} == {DEVICE}
    require_equal(search.state(), EXPECTED.pop(recipe))
    learns = search.recipe.learning.name
    if search.targets[0].device == DEVICE:
        assert search.recipe.runs.name == "all"
        assert not any(waits[1:])  # in the first, the images' statistics and costs are put there
    elif learns == "weights_only":
        assert not any(waits[1:])
    else:  # the gradients of what is drawn here come back, kind by kind
        assert all(set(waited) <= {"_to_copy", "copy_"} for waited in waits[1:]), waits
    (row,) = search.epoch_report()
    assert math.isfinite(row.train_loss)
    if search.recipe.selection.name == "probable":
        search.evaluator.choose(search.targets[0])


@pytest.mark.slow
def test_the_state_of_a_search_moves_between_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = some_steps("nasbench201/drnas")
    with monkeypatch.context() as patched, Accelerator():
        patched.setattr(hwnas.training.batches, "choose_device", lambda asked: DEVICE)
        start, _ = some_steps("nasbench201/drnas")
        state = start.state()
    state = torch.utils._pytree.tree_map_only(There, lambda tensor: tensor.held, state)  # as a checkpoint has it
    back = searching("nasbench201", "nasbench201/drnas", epochs=4, drop_path=0.2)
    back.load_state(state)
    for search in (whole, back):
        search.take_step()
    require_equal(back.state(), whole.state())


def test_every_synchronisation_is_noticed(there: None) -> None:
    """The tests above rely on this."""
    x = torch.arange(3.0).to(DEVICE, non_blocking=True)
    WAITS.clear()
    (x + 1).relu_().sum()
    assert not WAITS
    doings: list[Callable[[], object]] = [
        lambda: float(x.sum()),
        lambda: bool(x[0] > 0),
        x.cpu,
        x.tolist,
        x.nonzero,
        lambda: x[x > 0],
        lambda: torch.ones(3).to(DEVICE),
        lambda: x.copy_(torch.ones(3)),
    ]
    for number, do in enumerate(doings):
        do()
        assert len(WAITS) == number + 1, number
    with pytest.raises(RuntimeError, match="two devices"):
        x + torch.ones(3)
    to_device(torch.ones(3), DEVICE)
    assert len(WAITS) == len(doings)
    with pytest.raises(RuntimeError, match="not waited for"):
        x.to(CPU, non_blocking=True)
    assert to_device(x, CPU).tolist() == [1, 1, 1]
    assert len(WAITS) == len(doings) + 1


@pytest.mark.slow
def test_a_training_on_another_device_equals_that_on_the_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recipe = recipe_of(epochs=2, auxiliary_weight=0.4, drop_path=0.2, cutout=4, ema=0.9)
    expected = train_child(tiny_child(), DATA, recipe, tmp_path / "a", "a test", lambda *a: None)
    monkeypatch.setattr(hwnas.training.batches, "choose_device", lambda asked: DEVICE)
    monkeypatch.setattr(DilatedDepthwise, "is_faster", lambda conv, device: True)  # as on the processor
    with Accelerator():
        child = tiny_child()
        found = train_child(child, DATA, recipe, tmp_path / "b", "a test", lambda *a: None)
        assert {parameter.device for parameter in child.parameters()} == {CPU}
        trainer = Trainer(tiny_child(), DATA, recipe)
        trainer.take_step()
        WAITS.clear()
        trainer.take_step()
        assert not WAITS
    require_equal([found.history, found.weights], [expected.history, expected.weights])


def test_a_loss_that_is_not_finite_is_reported_and_not_saved(there: None) -> None:
    search, _ = some_steps("nasbench201/darts")
    with torch.no_grad():
        search.supernet_state.weights.parameters[0].fill_(math.nan)
    search.take_step()  # queued: not yet known
    with pytest.raises(HwnasError, match="the loss became nan"):
        search.state()
    with pytest.raises(HwnasError, match="the loss became nan"):
        search.epoch_report()


def recorded_as_torch_does(calls: list[tuple[int, bool]]) -> Callable[..., nn.Module]:
    """Return a stand-in for ``torch.cuda.make_graphed_callables`` without graphs: it makes the warm-up passes, keeps
    inputs, outputs and gradients in one place, and fixes which parameters require a gradient.
    """

    def record(module: nn.Module, samples: tuple[Tensor, ...], allow_unused_input: bool = False) -> nn.Module:
        parameters = tuple(module.parameters())
        run, inputs = module.forward, (*samples, *parameters)
        wanted = [value.requires_grad for value in inputs]
        calls.append((len(samples), any(wanted[len(samples) :])))

        def gradients(scores: Tensor, slope: Tensor) -> list[Tensor | None]:
            asked = [value for value, wants in zip(inputs, wanted, strict=True) if wants]
            got = iter(torch.autograd.grad(scores, asked, slope, allow_unused=allow_unused_input))
            return [next(got) if wants else None for wants in wanted]

        places: list[Tensor | None] = []
        for _ in range(3):
            scores = run(*samples)
            places = gradients(scores, torch.ones_like(scores))

        class Replayed(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *given: Tensor) -> Tensor:
                for sample, value in zip(samples, given[: len(samples)], strict=True):
                    sample.data.copy_(value)
                with torch.enable_grad():
                    # Parameters as they were recorded, not as they are now.
                    before = [p.requires_grad for p in parameters]
                    for p, wants in zip(parameters, wanted[len(samples) :], strict=True):
                        p.requires_grad_(wants)
                    ctx.scores = run(*samples)
                    for p, wants in zip(parameters, before, strict=True):
                        p.requires_grad_(wants)
                return ctx.scores.detach()

            @staticmethod
            def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
                for place, value in zip(places, gradients(ctx.scores, slope), strict=True):
                    if place is not None and value is not None:
                        place.copy_(value)
                return tuple(None if place is None else place.detach() for place in places)

        module.forward = lambda *given: Replayed.apply(*given, *parameters)  # type: ignore[method-assign, assignment]
        return module

    return record


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["darts/snas", "darts/pc-darts", "nasbench201/snas", "nasbench201/darts", "nasbench201/darts-second"]
)
def test_recorded_passes_change_no_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for CUDA graphs, check the recorded passes, their arguments and the state after recording."""
    expected = some_steps(name)[0].state()
    calls: list[tuple[int, bool]] = []
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded_as_torch_does(calls))

    class Recording(GraphReplay):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.enabled = True

    monkeypatch.setattr(fast, "GraphReplay", Recording)
    require_equal(some_steps(name)[0].state(), expected)
    space, method = name.split("/")
    cells = 2 if space == "darts" else 1
    arguments = 1 + cells + (cells if method == "pc-darts" else 0)  # images, a mixture a kind of cell (and its edges)
    first = {"snas": [(arguments + 1, True)], "darts-second": [(arguments + 1, True), (arguments, True)]}
    frozen_then_weights = [(arguments, False), (arguments + 1, True)]
    kinds = first.get(method, frozen_then_weights)
    assert calls[: len(kinds)] == kinds
    assert len(calls) <= MOST_GRAPHS


def test_the_number_of_recorded_passes_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, bool]] = []
    heard: list[str] = []
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", recorded_as_torch_does(calls))
    search = searching("nasbench201", "nasbench201/snas")
    passes = GraphReplay(search.supernet, "float32", True, heard.append)
    draw = search.current_step.draw(search.targets[0], Purpose.WEIGHTS_DRAW)
    mixture, _ = search.current_step.runs(search.supernet, search.targets[0].distribution, draw)
    for images in range(2, 2 + MOST_GRAPHS + 3):
        passes(torch.zeros(images, *search.data.shape), mixture, {}, None, False)
    assert len(calls) == MOST_GRAPHS
    assert len(heard) == 1


def test_a_pass_that_cannot_be_recorded_still_runs_and_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, heard = some_steps("nasbench201/darts")[0].state(), []

    def fails(module: nn.Module, samples: tuple[Tensor, ...], allow_unused_input: bool) -> nn.Module:
        module(*samples)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    class Recording(GraphReplay):
        def __init__(self, supernet: Supernet, precision: str, *others: Any) -> None:
            super().__init__(supernet, precision, True, heard.append)

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", fails)
    monkeypatch.setattr(fast, "GraphReplay", Recording)
    require_equal(some_steps("nasbench201/darts")[0].state(), expected)
    assert len(heard) == 1
    assert "operation not permitted when stream is capturing" in heard[0]


def test_a_failed_recording_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch is brought back to its stream, even if the recording that resets its random numbers fails, too."""
    calls: list[object] = []

    @contextmanager
    def records(graph: object) -> Iterator[None]:
        calls.append(graph)
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
        yield

    stream: Any = types.SimpleNamespace(device=CPU)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: "graph")
    monkeypatch.setattr(torch.cuda, "graph", records)
    monkeypatch.setattr(torch.cuda, "set_stream", calls.append)
    cuda_graphs._leave_recording(stream)
    assert calls == ["graph", stream]


def test_unavailable_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == CPU
    with pytest.raises(HwnasError, match="no CUDA GPU"):
        choose_device("cuda")
    with pytest.raises(HwnasError, match="tf32 needs a GPU"):
        choose_precision("tf32", CPU)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA T4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert describe(choose_device("auto")) == "NVIDIA T4 (cuda:1)"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert choose_device("cpu") == CPU
    with pytest.raises(HwnasError, match="3 processes cannot share the 2 GPUs") as caught:
        choose_device("auto")
    assert "--nproc-per-node 2" in caught.value.fix


def test_too_little_memory_names_the_batch_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a search and in a training; the text is torch's."""

    def fails(*arguments: Any) -> None:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.25 GiB. GPU 0 has a total capacity of 8 GiB"
        )

    search = searching("nasbench201", "nasbench201/snas", batch_size=16)
    monkeypatch.setattr(search, "take_step", fails)
    with pytest.raises(HwnasError, match=r"step of 16 images \(2.25 GiB more") as caught:
        run_to_end(search, tmp_path, "a digest", lambda *a: None, lambda row: None)
    assert "--batch-size, such as 8" in caught.value.fix
    for fails_in in ("take_step", "__init__"):
        monkeypatch.setattr(Trainer, fails_in, fails)
        with pytest.raises(HwnasError, match="step of 8 images"):
            train_child(tiny_child(), DATA, recipe_of(), tmp_path / "child", "a test", lambda *a: None)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_an_optimiser_steps_as_its_device_does_whatever_it_resumes(name: str) -> None:
    """The state was saved where a step is one fused kernel."""
    settings = read_recipe("nasbench201/snas", {}).logits if name == "adam" else recipe_of().optimizer
    start, resumed = (ParameterOptimizer(settings, [nn.Parameter(torch.ones(3))], Processes()) for _ in range(2))
    start.parameters[0].grad = torch.ones(3)
    start.step()
    state = start.state_dict()
    for group in state["param_groups"]:
        group["fused"] = True
    resumed.load_state_dict(state)
    assert [group["fused"] for group in resumed.optimizer.param_groups] == [None]
    assert [group["fused"] for group in state["param_groups"]] == [True]


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_models_are_exported_whatever_the_precision_of_products(precision: str) -> None:
    """After a search on a GPU; torch.export reads how float32 is multiplied."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    try:
        multiply_in(precision, torch.device("cuda", 0))
        assert matmul.allow_tf32 == cudnn.allow_tf32 == (precision == "tf32")
        newer = matmul.fp32_precision, cudnn.conv.fp32_precision  # type: ignore[attr-defined]
        assert ("tf32" in newer) == (precision == "tf32")
        torch.export.export(nn.Conv2d(3, 4, 3).eval(), (torch.zeros(1, 3, 8, 8),))
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


@pytest.mark.slow
def test_a_search_states_its_pace(there: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwnas.search.pace.peak_gpu_bytes", lambda device: 8_400_000_000)
    search, lines = searching("nasbench201", "nasbench201/snas", epochs=2), []
    run_to_end(search, tmp_path, "a digest", lambda *a: None, lambda row: None, log=lines.append)
    assert lines.pop(0) == "0 MB of images are in the memory of the GPU"
    assert len(lines) == 2
    assert re.fullmatch(r"[\d.e+]+ steps a second, 8.40 GB of GPU memory, ends at about .* left\)", lines[0])
    assert lines[1].endswith("GPU memory")
    monkeypatch.undo()
    times = iter([0.0, 10.0, 20.0])
    pace = Pace(CPU, 1_000_040, 0, lambda: next(times), lambda: datetime(2026, 5, 4, 23, 59, 0))
    assert pace.describe(999_900) == "1e+05 steps a second, ends at about 23:59:00 (0 s left)"
    assert pace.describe(999_920) == "2 steps a second, ends at about 00:00:00 (60 s left)"


def test_depthwise_convolutions_are_channels_first_on_a_gpu() -> None:
    gpu = torch.device("cuda", 0)
    dense, depthwise = nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4)
    assert layout_on(gpu, dense) == layout_on(CPU, dense) == layout_on(CPU, depthwise) == torch.channels_last
    assert layout_on(gpu, depthwise) == torch.contiguous_format
