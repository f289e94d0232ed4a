"""The accelerated supernet computes the same as the naive one: compiled sums, shared layers, skipped candidates."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from benchmarks.naive_mixture import NaiveSupernet
from hwnas.compute.device import CPU
from hwnas.compute.precision import choose_precision
from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.files import read_json
from hwnas.networks.fast import accelerate
from hwnas.networks.fast.kernel_layers import branches
from hwnas.networks.fast.kernels import choose_kernels, kernels
from hwnas.networks.fast.weighted_sum import Term, weighted_sum
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.supernet import Supernet
from hwnas.recipe import read_recipe
from hwnas.search.distribution import DrawContext
from hwnas.search.search import Search
from hwnas.spaces import SearchSpace, SizedSpace
from support.command import Run
from support.mixtures import ODD, step_of
from support.searches import SMALL_SEARCH, make_search
from support.spaces import CELL_SPACES, SEARCH_SPACES, SMALL

needs_compiler = pytest.mark.skipif(kernels().library is None, reason=kernels().reason)


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "torch"])
def arithmetic(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pool_norm", "drop"),
    [("darts", True, False), ("darts", False, True), ("nasbench201", False, False), ("nasbench201", False, True)],
)
def test_a_full_mixture_equals_the_naive_supernet(arithmetic: str, name: str, pool_norm: bool, drop: bool) -> None:
    """Compare loss, every gradient and every running statistic in float64."""
    space = CELL_SPACES[name]
    torch.manual_seed(0)
    net = Supernet(SizedSpace(space, replace(ODD[name], pool_norm=pool_norm))).double()
    accelerate(net, compiled=arithmetic == "compiled")
    naive = NaiveSupernet(copy.deepcopy(net))
    net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    generator = torch.Generator().manual_seed(1)
    shapes = {kind: (len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
    weights = {k: torch.rand(shape, generator=generator, dtype=torch.float64) for k, shape in shapes.items()}
    (loss, slopes), (expected, naive_slopes) = (step_of(n, weights, drop) for n in (net, naive))
    close = {"atol": 1e-10, "rtol": 1e-8}
    torch.testing.assert_close(loss, expected, **close)
    for kind, slope in slopes.items():
        assert float(slope.abs().min(dim=0).values[1:].max()) > 0
        torch.testing.assert_close(slope, naive_slopes[kind], **close)
    theirs = dict(naive.supernet.named_parameters())
    for key, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[key].grad, **close, msg=key)
    buffers = dict(naive.supernet.named_buffers())
    for key, buffer in net.named_buffers():
        torch.testing.assert_close(buffer, buffers[key], **close, msg=key)


def images_like(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return values.contiguous(memory_format=torch.channels_last).requires_grad_()


@needs_compiler
@pytest.mark.parametrize(("height", "width"), [(7, 5), (1, 4), (4, 1), (1, 1), (2, 2)])
def test_pooled_terms_equal_torchs(height: int, width: int) -> None:
    """Compare sums of terms that are pooled, or not, or twice, with norms and with slices, in float64."""
    x, y = (images_like(3, 11, height, width, seed=seed) for seed in (0, 1))
    weights = torch.tensor([0.3, -0.7, 0.9, 1.1, 0.2, -0.4], dtype=torch.float64).requires_grad_()
    factors = torch.rand(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    norm = nn.BatchNorm2d(9, affine=False).double()
    gradients = []
    for fused in (True, False):
        a, b = x[:, :9], y[:, 2:]
        if fused:
            terms = [Term(b, norm=norm), Term(a), *(Term(v, pooled=True) for v in (a, b, a)), Term(a)]
            total = weighted_sum(terms, weights, factors)
        else:
            values = norm(b), a, pool(a), pool(b), pool(a), a
            total = sum(w * f[:, None, None, None] * v for w, f, v in zip(weights, factors, values, strict=True))  # type: ignore[assignment]
        slopes = torch.autograd.grad((total * images_like(*total.shape, seed=3)).sum(), [x, y, weights])
        gradients.append([total, *slopes])
    for mine, its in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, its, atol=1e-10, rtol=1e-8)


@needs_compiler
@pytest.mark.parametrize(("straight", "rectified", "unread"), [(1, 0, ()), (3, 8, (1, 5)), (0, 2, ()), (8, 1, (0, 8))])
def test_gradients_of_all_readers_are_added(straight: int, rectified: int, unread: tuple[int, ...]) -> None:
    x = images_like(3, 11, 5, 4)
    outputs = images_like(straight + rectified, 3, 9, 5 * 4, seed=1).detach().view(-1, 3, 9, 5, 4)
    mine, its = branches(x[:, 2:], straight, rectified), ([x[:, 2:]] * straight, [x[:, 2:].relu()] * rectified)
    slopes = []
    for some in (mine, its):
        readers = [v for part in some for v in part]
        total = sum((v * g).sum() for k, (v, g) in enumerate(zip(readers, outputs, strict=True)) if k not in unread)
        slopes.append(torch.autograd.grad(total, x)[0])  # type: ignore[arg-type]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=1e-10)


@needs_compiler
def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    """Round to nearest, ties to even, in whole vectors and in the remaining channels."""
    a, b = (images_like(2, 43, 5, 4, dtype=torch.bfloat16, seed=seed) for seed in (0, 1))
    total = weighted_sum([Term(a), Term(b)], torch.ones(2))
    assert total.dtype == torch.bfloat16
    assert torch.equal(total, (a.float() + b.float()).bfloat16())
    ties = torch.tensor([1.0, 0.00390625, 0.01171875]).bfloat16()  # sums half way between two numbers
    x, y, z = (ties[k].repeat(1, 43, 2, 2).contiguous(memory_format=torch.channels_last) for k in range(3))
    for other in (y, z):
        assert torch.equal(weighted_sum([Term(x), Term(other)], torch.ones(2)), (x.float() + other.float()).bfloat16())


@needs_compiler
@pytest.mark.parametrize("outlier", [False, True])
def test_statistics_far_from_zero(outlier: bool) -> None:
    """Compare mean and variance in float32 with float64, far from zero or with an outlier as first pixel."""
    x = images_like(4, 11, 32, 32).detach()
    x[:, :, 0, 0] += 30.0 * outlier
    x += 1000 * (not outlier)
    norm = nn.BatchNorm2d(11, affine=False, momentum=1.0)
    weighted_sum([Term(x.float().contiguous(memory_format=torch.channels_last), norm=norm)], torch.ones(1))
    exact = x.float().double()
    torch.testing.assert_close(norm.running_mean, exact.mean(dim=(0, 2, 3)), rtol=1e-6, atol=2e-6, check_dtype=False)
    torch.testing.assert_close(norm.running_var, exact.var(dim=(0, 2, 3)), rtol=1e-5, atol=0.0, check_dtype=False)


@needs_compiler
def test_second_derivatives_are_refused() -> None:
    """Otherwise autograd would treat the kernels' gradients as constants."""
    net = Supernet(SizedSpace(CELL_SPACES["nasbench201"], SMALL["nasbench201"]))
    accelerate(net, compiled=True)
    scores = net(torch.randn(4, 3, 16, 16), {"cell": Mixed(torch.ones(6, 5))})
    with pytest.raises(HwnasError, match="no second derivatives"):
        torch.autograd.grad(scores.square().sum(), list(net.parameters()), create_graph=True)


@pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)
def test_candidates_of_weight_zero_do_not_run(arithmetic: str, space: SearchSpace) -> None:
    """Their outputs would not be finite, and their norms get no batch. With trainable weights they run."""
    torch.manual_seed(0)
    net = Supernet(SizedSpace(space, SMALL[space.name]))
    accelerate(net, compiled=arithmetic == "compiled")
    weights = {kind: torch.ones(len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
    zero = {"darts": "dil_conv_5x5", "nasbench201": "nor_conv_3x3"}[space.name]
    for w in weights.values():
        w[:, space.operations.index(zero)] = 0
    inside = [f".{zero}." in name for name, _ in net.named_parameters()]
    with torch.no_grad():
        for (_, parameter), is_zero in zip(net.named_parameters(), inside, strict=True):
            if is_zero:
                parameter.fill_(torch.nan)
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    scores = net(images, {kind: Mixed(w) for kind, w in weights.items()})
    assert scores.isfinite().all()
    scores.square().sum().backward()
    assert [p.grad is None for p in net.parameters()] == inside
    tracked = {name: int(b) for name, b in net.named_buffers() if name.endswith("num_batches_tracked")}
    assert all((count == 0) == (f".{zero}." in name) for name, count in tracked.items())
    learning = {kind: Mixed(w.requires_grad_()) for kind, w in weights.items()}
    assert not net(images, learning).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SEARCH_SPACES))
def test_cold_samples_skip_candidates_that_round_to_zero(name: str) -> None:
    """At a low temperature SNAS's gradients equal those of a step in which every candidate runs."""
    slopes = []
    for final in (True, False):
        search = make_search(name, read_recipe("snas-short", {"batch_size": 8}))
        target = search.targets[0]
        draw = target.distribution.draw(DrawContext(torch.Generator().manual_seed(0), temperature=0.02))
        mixture, _ = search.current_step.runs(search.supernet, target.distribution, draw)
        if not final:
            mixture = {kind: Mixed(mixed.weights) for kind, mixed in mixture.items()}
        else:
            ran = sum(len(row) for mixed in mixture.values() for row in mixed.active or [])
            assert ran < sum(mixed.weights.numel() for mixed in mixture.values())
        images = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        search.supernet(images, mixture).square().sum().backward()
        slopes.append([p.grad for p in [*target.parameters, *search.supernet.parameters()]])
    for mine, its in zip(*slopes, strict=True):
        torch.testing.assert_close(torch.zeros_like(its) if mine is None else mine, its, rtol=1e-3, atol=1e-5)


def test_optimisers_update_sampled_operations_only() -> None:
    """With one operation an edge the other candidates get no gradient, momentum or weight decay."""
    search = make_search("darts", read_recipe("darts/gdas", {"batch_size": 8, "logits_warm_up": 0.5}))
    before = {name: p.detach().clone() for name, p in search.supernet.named_parameters()}
    draw = search.current_step.draw(search.targets[0], Purpose.WEIGHTS_DRAW)
    search.take_step()
    assert draw.chosen is not None
    drawn = set()
    for index, part in enumerate(search.supernet.network.parts):
        for e, o in enumerate(draw.chosen[part.kind].tolist() if hasattr(part, "kind") else ()):
            drawn.add(f"parts.{index}.edges.{e}.{search.space.operations[o]}.")
    state = search.supernet_state.weights.optimizer.state
    for name, parameter in search.supernet.named_parameters():
        runs = ".edges." not in name or any(name.startswith(prefix) for prefix in drawn)
        assert (parameter in state) == runs, name
        assert torch.equal(parameter, before[name]) != runs, name


def step_in(precision: str, arithmetic: str, name: str) -> tuple[Search, float]:
    changes = {"batch_size": 32, "drop_path": 0.2, "precision": precision, "kernels": arithmetic}
    search = make_search(name, read_recipe(f"{name}/darts", changes))
    search.supernet.train()
    loss = search.current_step.weights_loss(search.targets[0]).task
    loss.backward()
    return search, float(loss.detach())


def test_bfloat16_is_close_and_weights_stay_float32(arithmetic: str) -> None:
    (short, loss), (exact, expected) = (step_in(p, arithmetic, "nasbench201") for p in ("bfloat16", "float32"))
    assert loss != expected
    assert loss == pytest.approx(expected, rel=0.02)
    assert {p.dtype for p in short.supernet.parameters()} == {torch.float32}
    slopes = [torch.cat([p.grad.flatten() for p in s.supernet.parameters()]) for s in (short, exact)]  # type: ignore[union-attr]
    assert float(nn.functional.cosine_similarity(*slopes, dim=0)) > 0.9


def test_cells_with_depthwise_convolutions_stay_float32(arithmetic: str) -> None:
    """torch 2.13 can get the gradient of a dilated depthwise convolution wrong in bfloat16, channels last."""
    cell = make_search("darts", read_recipe("darts/darts", {"kernels": arithmetic})).supernet.parts[1]
    x = torch.randn(4, 12, 16, 16, generator=torch.Generator().manual_seed(0)).contiguous(
        memory_format=torch.channels_last
    )
    gradients = []
    for enabled in (False, True):
        cell.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            cell(Mixed(torch.full((14, 8), 0.125)), x, x).square().sum().backward()
        gradients.append([p.grad.clone() for p in cell.parameters() if p.grad is not None])
    assert len(gradients[0]) > 100
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_search_in_bfloat16_resumes_bit_identically(arithmetic: str) -> None:
    def search() -> Search:
        changes = {"precision": "bfloat16", "kernels": arithmetic, "batch_size": 16}
        return make_search("nasbench201", read_recipe("short/drnas", changes))

    whole, first, second = search(), search(), search()
    for _ in range(4):
        whole.take_step()
    for _ in range(2):
        first.take_step()
    second.load_state(copy.deepcopy(first.state()))
    for _ in range(2):
        second.take_step()
    mine = second.supernet.state_dict()
    assert all(torch.equal(value, mine[key]) for key, value in whole.supernet.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["compiled", "torch"])
def test_a_run_records_its_precision_and_kernels(
    run: Run, tmp_path: Path, table_file: Path, asked: Literal["torch", "compiled"]
) -> None:
    out = tmp_path / "run"
    options = ("--epochs", 1, "--child-epochs", 0, "--budget", "mild", "--precision", "auto", "--batch-size", 100)
    options = (*options, "--kernels", asked)
    done = run("search", "--table", table_file, *SMALL_SEARCH, *options, "--out", out)
    computed = read_json(out / "manifest.json", "")["computed"]
    precision, why = choose_precision("auto")
    found, reason = choose_kernels(asked, precision, 4, CPU, True)
    name = {"torch": "plain torch", "compiled": "compiled kernels"}[found]
    assert computed == {
        "on": "the processor",
        "precision": precision,
        "precision_reason": why,
        "kernels": name,
        "kernels_reason": reason,
    }
    assert f"the processor computes the supernet in {precision} ({why}) with {name} ({reason})" in done.stderr


def test_without_a_compiler_plain_torch_computes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "none"))
    kernels.cache_clear()
    try:
        assert kernels().library is None
        assert choose_kernels("auto", "bfloat16", 16, CPU, True) == ("torch", "no C++ compiler")
    finally:
        kernels.cache_clear()
