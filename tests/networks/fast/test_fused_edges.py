"""Fused edges compute the same as the plain and the naive supernet: outputs, gradients, running statistics."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.naive_mixture import NaiveSupernet
from hwnas.networks.drop_path import drop_path
from hwnas.networks.fast import accelerate, fused_edges
from hwnas.networks.fast.cell import FastCell
from hwnas.networks.mixed_cell import CellEvaluation, Mixed, MixedCell
from hwnas.networks.supernet import Supernet
from hwnas.operations import DilatedDepthwise
from hwnas.spaces import SizedSpace
from hwnas.training.processes import Processes, SharedBatchNorm
from support.mixtures import ODD, step_of
from support.spaces import CELL_SPACES, SEARCH_SPACES

CLOSE = {"atol": 1e-10, "rtol": 1e-8}
KINDS = ("all", "dropped", "sampled", "some", "ghosts", "edges", "partial", "shared", "shared sampled")


@pytest.fixture(autouse=True)
def fuse_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fuse all edges, as on a GPU."""
    monkeypatch.setattr(fused_edges, "_together", lambda mine, x: [tuple(mine)])


def supernet(name: str, kind: str = "all", pool_norm: bool = True, size: tuple[int, int] = (15, 17)) -> Supernet:
    torch.manual_seed(0)
    setting = replace(ODD[name], pool_norm=pool_norm, height=size[0], width=size[1])
    if kind == "partial":
        setting = replace(setting, channels=8, height=16, width=16)
    net = Supernet(
        SizedSpace(CELL_SPACES[name], setting), 2 if kind == "partial" else 1, kind.startswith("shared")
    ).double()
    accelerate(net)
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def unfuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FastCell, "fusible", lambda fast, cell: False)


def mixture(name: str, kind: str) -> dict[str, Mixed]:
    space, generator = CELL_SPACES[name], torch.Generator().manual_seed(1)
    found = {}
    for part, cell in space.cells.items():
        edges, count = len(cell.edges), len(space.operations)
        weights = torch.rand(edges, count, generator=generator, dtype=torch.float64).requires_grad_()
        active = None
        if kind.endswith("sampled") or kind == "ghosts":
            active = torch.randint(count, (edges, 1), generator=generator).tolist()
        elif kind == "some":
            active = [torch.randperm(count, generator=generator)[: e % 4].tolist() for e in range(edges)]
        by_edge = torch.rand(edges, generator=generator, dtype=torch.float64).requires_grad_()
        found[part] = Mixed(weights, active, by_edge if kind in ("edges", "partial") else None, kind == "ghosts")
    return found


def outcome(net: Supernet, name: str, kind: str) -> dict[str, Tensor | None]:
    """Return the results of two steps by name: scores, gradients, buffers."""
    mixed, size = mixture(name, kind), (net.sized.setting.height, net.sized.setting.width)
    images = torch.randn(4, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    drop = drop_path(0.4, torch.Generator().manual_seed(3), 100, 4) if kind == "dropped" else None
    for _ in range(2):
        scores = net(images, mixed, None, drop)
        nn.functional.cross_entropy(10 * scores, torch.arange(4)).backward()
    found: dict[str, Tensor | None] = {"scores": scores.detach(), "images": images.grad, **dict(net.named_buffers())}
    for part, m in mixed.items():
        found |= {f"{part} weights": m.weights.grad, f"{part} edges": None if m.edges is None else m.edges.grad}
    return found | {key: parameter.grad for key, parameter in net.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*product(sorted(SEARCH_SPACES), KINDS), *(("darts-extended", kind) for kind in ("some", "shared"))],
)
def test_fused_edges_equal_the_plain_supernet(monkeypatch: pytest.MonkeyPatch, name: str, kind: str) -> None:
    """The accelerated supernet without fused edges equals it too."""
    net = supernet(name, kind)
    unfused, plain = copy.deepcopy(net), copy.deepcopy(net)
    for cell in plain.cells:
        cell.evaluation = CellEvaluation
    mine = outcome(net, name, kind)
    unfuse(monkeypatch)
    assert float(mine["scores"].std()) > 0  # type: ignore[union-attr]
    for other in (unfused, plain):
        for key, value in outcome(other, name, kind).items():
            torch.testing.assert_close(mine[key], value, **CLOSE, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pool_norm"), [("darts", True), ("darts", False), ("nasbench201", True)])
def test_fused_edges_equal_the_naive_supernet(name: str, pool_norm: bool) -> None:
    require_naive(supernet(name, pool_norm=pool_norm))


@pytest.mark.slow
def test_on_a_cpu_the_grids_of_a_node_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both dilated operations share them on all edges that leave the node; five nodes have such edges."""
    monkeypatch.undo()
    own, made = DilatedDepthwise.grids, []
    monkeypatch.setattr(DilatedDepthwise, "grids", lambda conv, x: made.append(own(conv, x)) or made[-1])  # type: ignore[func-returns-value]
    net = supernet("darts", size=(16, 16))
    require_naive(net)
    assert len(made) == 5 * sum(isinstance(part, MixedCell) for part in net.parts)
    assert all(grids is not None for grids in made)


def require_naive(net: Supernet) -> None:
    """Assert that loss, gradients and running statistics equal those of the naive supernet."""
    naive = NaiveSupernet(copy.deepcopy(net))
    weights = {kind: mixed.weights.detach() for kind, mixed in mixture(net.sized.space.name, "all").items()}
    size = net.sized.setting.height, net.sized.setting.width
    (loss, slopes), (expected, naive_slopes) = (step_of(n, weights, False, size) for n in (net, naive))
    torch.testing.assert_close(loss, expected, **CLOSE)
    for kind, slope in slopes.items():
        torch.testing.assert_close(slope, naive_slopes[kind], **CLOSE)
    theirs = dict(naive.supernet.named_parameters())
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[key].grad, **CLOSE, msg=key)
    torch.testing.assert_close(dict(net.named_buffers()), dict(naive.supernet.named_buffers()), **CLOSE)


class Counted(TorchDispatchMode):
    """Count the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = self.norms = self.all = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.convolutions += func is torch.ops.aten.convolution.default
        self.norms += "batch_norm" in func.__name__ and "backward" not in func.__name__
        self.all += 1
        return func(*args, **(kwargs or {}))


def counted(name: str) -> Counted:
    net, mixed = supernet(name), mixture(name, "all")
    cell = next(part for part in net.parts if isinstance(part, MixedCell))
    inputs = [
        torch.randn(2, module.in_channels if hasattr(module, "in_channels") else channels, 8, 8).double()
        for module, channels in zip(cell.preprocess, [18, 18] if name == "darts" else [10], strict=True)
    ]
    with Counted() as count:
        cell(next(iter(mixed.values())), *inputs).sum().backward()
    return count


# Two 1x1 convolutions in front; four convolutions of each separable one, two of each dilated one, five nodes are left.
@pytest.mark.parametrize(
    ("name", "convolutions", "norms", "alone", "norms_alone"),
    [("darts", 2 + 5 * 12, 2 + 5 * 8, 2 + 14 * 12, 2 + 14 * 8), ("nasbench201", 3 * 2, 3 * 3, 6 * 2, 6 * 3)],
)
def test_one_operation_for_all_edges_from_a_node(
    monkeypatch: pytest.MonkeyPatch, name: str, convolutions: int, norms: int, alone: int, norms_alone: int
) -> None:
    """Count the operators of a cell's forward pass."""
    mine = counted(name)
    assert (mine.convolutions, mine.norms) == (convolutions, norms)
    unfuse(monkeypatch)
    its = counted(name)
    assert (its.convolutions, its.norms) == (alone, norms_alone)
    assert mine.all < its.all


def test_edges_into_dead_nodes_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even zeros next to a live edge: momentum and weight decay would change the weights."""
    space = CELL_SPACES["nasbench201"]
    net = supernet("nasbench201")
    conv, none = (space.operations.index(op) for op in ("nor_conv_3x3", "none"))
    chosen = {(0, 1): conv, (0, 2): conv, (2, 3): conv}  # nothing leaves node 1
    active = [[chosen.get(edge, none)] for edge in space.cells["cell"].edges]
    images = torch.randn(4, 3, 15, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    other = copy.deepcopy(net)
    for n in (net, other):
        n(images, {"cell": Mixed(torch.ones(6, 5), active)}).square().sum().backward()
        unfuse(monkeypatch)
    theirs = dict(other.named_parameters())
    for key, parameter in net.named_parameters():
        assert (parameter.grad is None) == (theirs[key].grad is None), key
    torch.testing.assert_close(dict(net.named_buffers()), dict(other.named_buffers()), **CLOSE)


@pytest.mark.slow
def test_norms_without_momentum_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their running statistics are the mean of all batches."""
    net = supernet("darts")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    other = copy.deepcopy(net)
    mine = outcome(net, "darts", "all")
    unfuse(monkeypatch)
    for key, value in outcome(other, "darts", "all").items():
        torch.testing.assert_close(mine[key], value, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
def test_in_evaluation_nothing_is_fused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    net = supernet(name).eval()
    mine = outcome(net, name, "all")
    assert all(int(value) == 0 for key, value in net.named_buffers() if key.endswith("tracked"))
    unfuse(monkeypatch)
    its = outcome(supernet(name).eval(), name, "all")
    assert torch.equal(mine["scores"], its["scores"])  # type: ignore[arg-type]


def test_norms_shared_by_processes_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = supernet("nasbench201")
    Processes(0, 2).share_norms(net)
    ran = []
    own = SharedBatchNorm.forward
    monkeypatch.setattr(SharedBatchNorm, "forward", lambda norm, x: ran.append(norm) or own(norm, x))  # type: ignore[func-returns-value]
    mixed = mixture("nasbench201", "all")
    net(torch.randn(4, 3, 15, 17).double(), mixed).sum().backward()
    assert set(ran) == {m for m in net.modules() if isinstance(m, nn.BatchNorm2d)}


def test_candidates_with_other_settings_are_not_fused() -> None:
    """One edge's convolution has another dilation: it runs alone, the others are fused."""
    net = supernet("nasbench201")
    cell = next(part for part in net.parts if isinstance(part, MixedCell))
    conv = cell.candidate(1, "nor_conv_3x3")[1]  # type: ignore[index]
    conv.dilation, conv.padding = (2, 2), (2, 2)
    naive = NaiveSupernet(copy.deepcopy(net))
    weights = {kind: mixed.weights.detach() for kind, mixed in mixture("nasbench201", "all").items()}
    (loss, slopes), (expected, naive_slopes) = (step_of(n, weights, False) for n in (net, naive))
    torch.testing.assert_close(loss, expected, **CLOSE)
    torch.testing.assert_close(slopes, naive_slopes, **CLOSE)


def test_second_derivatives_of_matrix_weighted_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 2), (2, 4, 3, 2), (2, 4, 3, 2)
    tensors = tuple(torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes)
    assert torch.autograd.gradcheck(fused_edges._WeightedByMatrix.apply, tensors)
    assert torch.autograd.gradgradcheck(fused_edges._WeightedByMatrix.apply, tensors)
