"""Memory access cost: against counts that hooks take of the real torch modules, and budgets in bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from hwnas.budgets.budget import parse_budget, preview
from hwnas.budgets.derive import cheapest, derive
from hwnas.calibration.design_matrix import connected_choices
from hwnas.cost import metric as cost_metric
from hwnas.cost.build import CostFunction, build_metrics
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.memory import memory_access_bytes, memory_access_model
from hwnas.networks.child import ChildNetwork, EveryNode
from hwnas.operations import FactorizedReduce, build_operation
from hwnas.spaces import Architecture, SizedSpace, Workload, get_space, num_inputs
from hwnas.spaces.operation import registered_operations
from support.command import Run, assert_one_clear_line
from support.fitting import CIFAR, fitted, made_up_device, timed
from support.spaces import CELL_SPACES, SMALL, architectures
from support.tables import make_table

MEMORY_ACCESS, PEAK_MEMORY = cost_metric.MEMORY_ACCESS.name, cost_metric.PEAK_MEMORY.name
NB201, DARTS = get_space("nasbench201"), get_space("darts")
OF_IMAGES = [operation for operation in registered_operations() if operation.reads == "images"]
TIMED = {operation.name for operation in OF_IMAGES if operation.module is not None} - {"relu"}
MOBILE = {"conv_bn_relu6_3x3", "mbconv_3x3_e6_r6_res", "mbconv_5x5_e3_se_hs", "mbconv_3x3_e4_sei", "ir_3x3_e1_g2"}
OPERATIONS = sorted(TIMED | MOBILE | {"nor_conv_1x1", "nor_conv_3x3", "sep_conv_3x3", "dil_conv_5x5"})
# Of images with an even and an odd side; a linear layer reads the averages of the channels.
SIDES = [(op, side) for op in OPERATIONS for side in ((1,) if op == "linear" else (12, 13))]
POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)


# --- memory access ----------------------------------------------------------------------------------------------------


class BetweenLayers(TorchDispatchMode):
    """Counts what additions, concatenations of four nodes, gates and channel shuffles move, as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.moved_values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.add.Tensor and result.dim() == 4:
            self.moved_values += 3 * result.numel()
        if func is torch.ops.aten.cat.default and len(args[0]) == 4:
            self.moved_values += 2 * result.numel()
        if func is torch.ops.aten.mul.Tensor and result.dim() == 4:
            self.moved_values += sum(factor.numel() for factor in args) + result.numel()
        if func is torch.ops.aten.clone.default and result.dim() == 5:  # channels in groups
            self.moved_values += 2 * result.numel()
        return result


def moved_bytes(module: nn.Module, *images: torch.Tensor) -> int:
    """Run a real module and count, hook by hook, what its layers read, write and hold as weights."""
    moved, written_by_conv, whole = 0, {}, {}

    def before_reduce(module: FactorizedReduce, inputs: tuple[torch.Tensor]) -> None:
        whole[module.odd] = inputs[0].numel()  # it reads the image and shifts it as it reads

    def after_layer(layer: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal moved
        if isinstance(layer, nn.BatchNorm2d) and (id(inputs[0]) in written_by_conv or layer in reduce_norms):
            return
        weight = getattr(layer, "weight", None)
        weights = 0 if weight is None else weight.numel()
        moved += whole.get(layer, inputs[0].numel()) + output.numel() + weights
        if isinstance(layer, nn.Conv2d):
            written_by_conv[id(output)] = output  # kept, so that no other tensor gets its id

    reduce_norms = {m.norm for m in module.modules() if isinstance(m, FactorizedReduce)}
    for layer in module.modules():
        if isinstance(layer, FactorizedReduce):
            layer.register_forward_pre_hook(before_reduce)
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d, nn.Linear, *POOLS)):
            layer.register_forward_hook(after_layer)
    with torch.no_grad(), BetweenLayers() as between:
        module.eval()(*images)
    return 4 * (moved + between.moved_values)


def timed_workloads(name: str) -> st.SearchStrategy[Workload]:
    """A workload of a space's network at some size, odd ones among them."""
    space, names = CELL_SPACES[name], sorted(CELL_SPACES[name].settings)

    def of(name: str, channels: int, depth: int, height: int, width: int, number: int) -> Workload:
        base = space.settings[name]
        workloads = SizedSpace(
            space, replace(base, channels=2 * channels, depth=depth, height=height, width=width)
        ).network.workloads()
        return workloads[number % len(workloads)]

    sizes = st.integers(33, 48)
    return st.builds(
        of, st.sampled_from(names), st.integers(1, 8), st.integers(1, 4), sizes, sizes, st.integers(0, 10_000)
    )


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(timed_workloads))
def test_memory_access_is_what_hooks_on_the_modules_count(workload: Workload) -> None:
    image = torch.zeros(1, workload.in_channels, workload.height, workload.width)
    counted = moved_bytes(build_operation(workload), *(image for _ in range(num_inputs(workload))))
    assert memory_access_bytes(workload) == counted


@pytest.mark.parametrize(("op", "side"), SIDES)
def test_every_operation_is_counted(op: str, side: int) -> None:
    stride = {
        "factorized_reduce": 2,
        "residual_reduction": 2,
        "stem_imagenet_first": 4,
        "stem_imagenet_second": 2,
        "mbconv_5x5_e3_se_hs": 2,
    }
    out = {"concat": 24, "residual_reduction": 12}.get(op, 6)
    workload = Workload(op, 6, out, side, side, stride.get(op, 1))
    image = torch.zeros(1, 6, side, side)
    counted = moved_bytes(build_operation(workload), *(image for _ in range(num_inputs(workload))))
    assert memory_access_bytes(workload) == counted > 0


@pytest.mark.parametrize("channels", [8, 36])
@pytest.mark.parametrize(
    ("op", "stride", "values", "weights"),
    [
        ("max_pool_3x3", 1, 2, lambda c: 0),
        ("max_pool_3x3", 2, 5, lambda c: 0),
        ("avg_pool_3x3", 1, 2, lambda c: 0),
        ("avg_pool_3x3", 2, 5, lambda c: 0),
        ("dil_conv_3x3", 1, 4, lambda c: 9 * c + c * c),
        ("dil_conv_3x3", 2, 7, lambda c: 9 * c + c * c),
        ("dil_conv_5x5", 1, 4, lambda c: 25 * c + c * c),
        ("dil_conv_5x5", 2, 7, lambda c: 25 * c + c * c),
        ("sep_conv_3x3", 1, 8, lambda c: 2 * (9 * c + c * c)),
        ("sep_conv_3x3", 2, 11, lambda c: 2 * (9 * c + c * c)),
        ("sep_conv_5x5", 1, 8, lambda c: 2 * (25 * c + c * c)),
        ("sep_conv_5x5", 2, 11, lambda c: 2 * (25 * c + c * c)),
        ("factorized_reduce", 2, 9, lambda c: c * c),
    ],
)
def test_memory_access_is_that_of_snas(
    op: str, stride: int, values: int, weights: Callable[[int], int], channels: int
) -> None:
    """The table of SNAS's published code: so many times C y^2 at output resolution y, and the weights."""
    side = 14
    workload = Workload(op, channels, channels, stride * side, stride * side, stride)
    assert memory_access_bytes(workload) == 4 * (values * channels * side**2 + weights(channels))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_memory_access_of_a_network_is_what_hooks_count_with_every_chosen_edge(architecture: Architecture) -> None:
    space, sizes = CELL_SPACES[architecture.space], SMALL[architecture.space]
    child = EveryNode(ChildNetwork(SizedSpace(space, sizes), architecture))
    counted = moved_bytes(child, torch.zeros(1, 3, sizes.height, sizes.width))
    assert memory_access_model(SizedSpace(space, sizes)).predict(architecture) == counted


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_memory_access_is_linear_where_every_node_has_an_input(architecture: Architecture) -> None:
    space = CELL_SPACES[architecture.space]
    filled = [
        tuple("skip_connect" if cell.edges_into(t)[0] == e and op == "none" else op for e, (op, (_, t)) in
              enumerate(zip(chosen, cell.edges, strict=True)))
        for cell, chosen in zip(space.cells.values(), architecture.cells, strict=True)
    ]  # fmt: skip
    full = space.architecture(tuple(filled))
    model = memory_access_model(SizedSpace(space, SMALL[space.name]))
    one_hot = {
        kind: torch.tensor([[op == chosen for op in space.operations] for chosen in cell]).double()
        for kind, cell in zip(space.cells, full.cells, strict=True)
    }
    assert float(ExpectedCost(model)(one_hot)) == model.predict(full)


def test_memory_access_is_derived_within_its_budget_though_dead_edges_count() -> None:
    """Dead edges and their additions count, so the program must see them, too."""
    model = memory_access_model(SizedSpace(DARTS, SMALL["darts"]))
    generator = np.random.default_rng(0)
    spread = preview({MEMORY_ACCESS: model})[MEMORY_ACCESS]
    for quantile in (2, 20, 60):
        log_p = {k: np.log(generator.dirichlet(np.full(8, 0.3), 14) + 1e-20) for k in DARTS.cells}
        bound = spread.percentile(quantile)
        assert spread.least < model.predict(derive(DARTS, log_p, {MEMORY_ACCESS: (model, bound)})) <= bound
    assert spread.least == model.predict(cheapest(model)) <= spread.costs.min()


def test_tables_without_entries_have_memory_access() -> None:
    choices = connected_choices(NB201, 40)
    table = fitted(choices, timed(made_up_device(1), choices, 0.02))
    assert not table.entries
    metrics = build_metrics(table, SizedSpace(NB201, CIFAR))
    same = memory_access_model(SizedSpace(NB201, CIFAR))
    assert np.array_equal(metrics[MEMORY_ACCESS].predict_many(choices), same.predict_many(choices))
    assert set(parse_budget("mild,mild-memory-access", preview(metrics)).limits) == {"latency_ms", MEMORY_ACCESS}


# --- budgets in bytes -------------------------------------------------------------------------------------------------


@cache
def metrics(name: str) -> dict[str, CostFunction]:
    return build_metrics(
        make_table(SizedSpace(CELL_SPACES[name], SMALL[name])), SizedSpace(CELL_SPACES[name], SMALL[name])
    )


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("40MB-memory-access", 40e6),
        ("500 kB memory-access", 5e5),
        ("1e6B-memory-access", 1e6),
        ("2GB-memory-access", 2e9),
    ],
)
def test_budgets_in_bytes_are_read(text: str, bound: float) -> None:
    assert parse_budget(text, preview(metrics("nasbench201"))).limits == {MEMORY_ACCESS: bound}


def test_relative_budgets_of_memory_access() -> None:
    previews = preview(metrics("nasbench201"))
    spread = previews[MEMORY_ACCESS]
    assert parse_budget("60%-memory-access", previews).limits == {MEMORY_ACCESS: 0.6 * spread.greatest}
    assert parse_budget("mild-memory-access", previews).limits == {MEMORY_ACCESS: np.percentile(spread.costs, 75)}


SIZE_OPTIONS = ("--channels", 4, "--cells", 1, "--input", "3x16x16")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("4TB-memory-access", "cannot read budget"),
        ("40MB", "cannot read budget"),
        ("40M-memory-access", "cannot read budget"),
        ("10B-peak-memory", r"peak_activation_bytes of this space lies between [\d.]+ kB and [\d.]+ (kB|MB)"),
        ("mild,100%-params,9kB-peak-memory", "cannot be met"),
        ("10B-memory-access", r"memory_access_bytes of this space lies between [\d.]+ kB and [\d.]+ (kB|MB)"),
    ],
)
def test_budgets_in_bytes_that_mean_nothing_are_refused(run: Run, table_file: Path, text: str, words: str) -> None:
    result = run("space", "preview", "--table", table_file, *SIZE_OPTIONS, f"--budget={text}")
    assert_one_clear_line(result, words)
