"""Cells of the supernet: EnTranNAS's engine and transit cells and thresholds, PC-DARTS's channels, widening."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from hwnas.compute.seeds import Purpose
from hwnas.errors import HwnasError
from hwnas.networks.mixed_cell import Mixed, MixedCell, shuffled
from hwnas.networks.supernet import Supernet
from hwnas.networks.widen import widen
from hwnas.recipe import read_recipe
from hwnas.search.distribution import Draw, DrawContext
from hwnas.search.methods.entrannas import EngineTransit, Thresholded
from hwnas.search.methods.pcdarts import SoftmaxEdges
from hwnas.search.search import Search
from hwnas.spaces import CellInstance, SearchSpace, SizedSpace
from support.lazy import Lazy
from support.searches import make_search
from support.spaces import CELL_SPACES, SEARCH_SPACES, SMALL

IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def random_weights(space: SearchSpace, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {kind: (len(cell.edges), len(space.operations)) for kind, cell in space.cells.items()}
    return {k: torch.rand(shape, generator=generator, dtype=torch.float64) for k, shape in shapes.items()}


def supernet(space: SearchSpace, partial: int = 1, shared: bool = False, channels: int = 4) -> Supernet:
    torch.manual_seed(0)
    return Supernet(SizedSpace(space, replace(SMALL[space.name], channels=channels)), partial, shared).double()


def by_hand(net: Supernet, x: Tensor, cell_of: Callable[[int, MixedCell, list[Tensor]], Tensor]) -> Tensor:
    """Return the network's output; ``cell_of`` computes that of a cell (part number, module, its inputs)."""
    values = {-1: x}
    for index, (part, module) in enumerate(zip(net.network.parts, net.parts, strict=True)):
        inputs = [values[source] for source in part.inputs]
        values[index] = cell_of(index, module, inputs) if isinstance(module, MixedCell) else module(*inputs)
    return values[len(net.parts) - 1]


def cell_by_hand(cell: MixedCell, inputs: list[Tensor], edge: Callable[[int, Tensor], list[Tensor]]) -> Tensor:
    """Return the cell's output; ``edge`` returns the terms that an edge adds to its node."""
    nodes = [prepare(x) for prepare, x in zip(cell.preprocess, inputs, strict=True)]
    for node in cell.cell.inner_nodes:
        terms = [t for e in cell.cell.edges_into(node) for t in edge(e, nodes[cell.cell.edges[e][0]])]
        nodes.append(torch.stack(terms).sum(dim=0) if terms else cell.zeros(inputs[0], cell.out_channels))
    outputs = [nodes[n] for n in cell.cell.outputs]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


# EnTranNAS.


@pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)
def test_shared_features_are_tied_weights(space: SearchSpace) -> None:
    """Sharing equals a supernet whose edges out of a node have the same weights, and sums the gradients of these.

    There is one set of modules for every node that edges leave, not for every edge.
    """
    shared, apart = supernet(space, shared=True), supernet(space)
    tied: dict[str, list[str]] = {}  # of every shared parameter the names of those it stands for
    state = shared.state_dict()
    for name in apart.state_dict():
        cell = apart.get_submodule(".".join(name.split(".")[:2]))
        own = name
        if isinstance(cell, MixedCell) and ".edges." in name:
            pieces = name.split(".")
            sources = [source for source, _ in cell.cell.edges]
            pieces[3] = str(list(dict.fromkeys(sources)).index(sources[int(pieces[3])]))
            own = ".".join(pieces)
        tied.setdefault(own, []).append(name)
    assert set(tied) == set(state)
    apart.load_state_dict({name: state[own] for own, names in tied.items() for name in names})
    weights = random_weights(space)
    mixture = {kind: Mixed(w) for kind, w in weights.items()}
    outputs = [net(IMAGES, mixture) for net in (shared, apart)]
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-10, rtol=1e-10)
    for output in outputs:
        (output * torch.linspace(-1, 1, 10)).sum().backward()
    gradients = dict(apart.named_parameters())
    for own, parameter in shared.named_parameters():
        total = sum(gradients[name].grad for name in tied[own])  # type: ignore[misc]
        torch.testing.assert_close(parameter.grad, total, atol=1e-9, rtol=1e-8)
    real = len(space.operations) - 1
    for one, many in zip(shared.parts, apart.parts, strict=True):
        if isinstance(one, MixedCell):
            assert isinstance(many, MixedCell)
            sets, edges = {"darts": (5, 14), "nasbench201": (3, 6)}[space.name]
            assert sum(len(candidates) for candidates in one.edges) == sets * real  # type: ignore[arg-type]
            assert sum(len(candidates) for candidates in many.edges) == edges * real  # type: ignore[arg-type]


@pytest.mark.parametrize("engines", [1, 2, 5])
def test_transit_cells_run_the_derived_operations_and_engine_cells_the_mixture(engines: int) -> None:
    """Compute NAS-Bench-201 with two cells a stage by hand. The engines are spread evenly."""
    space = CELL_SPACES["nasbench201"]
    torch.manual_seed(0)
    net = Supernet(SizedSpace(space, replace(SMALL["nasbench201"], depth=2)), shared=True).double()
    recipe = read_recipe("short/entrannas", {"logits_mean": 0.0, "logits_std": 1.0, "without": ()})
    search = make_search("nasbench201", recipe)
    distribution = search.targets[0].distribution.double()
    draw = distribution.draw(DrawContext(torch.Generator()))
    mixture, places = EngineTransit(engines)(net, distribution, draw)
    cells = [i for i, part in enumerate(net.network.parts) if isinstance(part, CellInstance)]
    where = {1: [3], 2: [1, 4], 5: [0, 1, 3, 4, 5]}[engines]  # of six cells: (2 n + 1) 6 / (2 engines), rounded down
    assert list(places) == [cells[i] for i in where]
    p = torch.softmax(distribution.logits["cell"], dim=1)
    best = [space.operations[o] for o in p.argmax(dim=1).tolist()]

    def cell_of(index: int, cell: MixedCell, inputs: list[Tensor]) -> Tensor:
        def edge(e: int, x: Tensor) -> list[Tensor]:
            if index not in places:
                return [cell.candidate(e, best[e])(x)] if best[e] != "none" else []
            return [p[e, o] * cell.candidate(e, op)(x) for o, op in enumerate(space.operations) if op != "none"]

        return cell_by_hand(cell, inputs, edge)

    torch.testing.assert_close(net(IMAGES, mixture, places), by_hand(net, IMAGES, cell_of), atol=1e-10, rtol=1e-10)


def top_two(space: SearchSpace, p: np.ndarray, kind: str) -> list[str]:
    """Apply DARTS's rule: keep the two edges of a node whose most probable operation but ``none`` is most probable."""
    real = [o for o, op in enumerate(space.operations) if op != "none"]
    chosen = ["none"] * len(p)
    for node in space.cells[kind].inner_nodes:
        into = sorted(space.cells[kind].edges_into(node), key=lambda e: max(p[e, o] for o in real))
        for e in into[-2:]:
            chosen[e] = space.operations[max(real, key=lambda o: p[e, o])]
    return chosen


def test_transit_cells_in_the_darts_space_take_the_two_strongest_edges() -> None:
    search = make_search("darts", read_recipe("darts/entrannas", {"logits_std": 1.0}))
    distribution, space = search.targets[0].distribution, search.space
    mixture, _ = search.current_step.runs(
        search.supernet, distribution, distribution.draw(DrawContext(torch.Generator()))
    )
    for kind, p in distribution.probabilities().items():
        expected = top_two(space, p.detach().double().numpy(), kind)
        assert [[space.operations[o] for o in row] for row in mixture[kind].active] == [[op] for op in expected]


TRANSIT = Lazy(("darts-extended",), lambda name: make_search(name, read_recipe(f"{name}/entrannas", {}), ("100%",)))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 4), st.floats(0, 8))
def test_transit_cells_in_a_free_topology_are_what_derivation_takes(seed: int, spread: float, pull: float) -> None:
    """Whatever the logits, even if ``none`` is the likeliest everywhere; the budget excludes nothing."""
    search = TRANSIT["darts-extended"]
    space, (target,) = search.space, search.targets
    generator, none = torch.Generator().manual_seed(seed), search.space.operations.index("none")
    for values in target.logits.values():
        values.data = spread * torch.randn(values.shape, generator=generator)
        values.data[:, none] += pull
    draw = target.distribution.draw(DrawContext(generator))
    mixture, _ = search.current_step.runs(search.supernet, target.distribution, draw)
    chosen = tuple(tuple(space.operations[o] for (o,) in mixture[kind].active or []) for kind in space.cells)
    assert search.evaluator.choose(target) == space.architecture(chosen)


THRESHOLDED = Lazy(CELL_SPACES, lambda name: make_search(name, read_recipe(f"{name}/entrannas-dst", {})))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(CELL_SPACES)), st.integers(0, 2**32 - 1), st.floats(0.1, 4), st.floats(-4, 4))
def test_the_engine_of_the_last_epoch_is_the_derived_architecture(
    name: str, seed: int, spread: float, threshold: float
) -> None:
    """For any logits and thresholds each remaining edge runs one operation with weight 1, and each node has an edge."""
    search = THRESHOLDED[name]
    space, target = search.space, search.targets[0]
    distribution = target.distribution
    assert isinstance(distribution, Thresholded)
    generator = torch.Generator().manual_seed(seed)
    for values in distribution.logits.values():
        values.data = spread * torch.randn(values.shape, generator=generator)
    for values in distribution.thresholds.values():
        values.data = threshold + torch.randn(values.shape, generator=generator)
    draw = distribution.draw(DrawContext(generator, progress=1.0))
    graph = []
    for kind, cell in space.cells.items():
        support = draw.support[kind]  # type: ignore[index]
        assert all(len(row) <= 1 for row in support)
        for node in cell.inner_nodes:
            assert any(support[e] for e in cell.edges_into(node))
        weights = draw.mixture[kind].detach()
        assert weights.sum(dim=1).tolist() == pytest.approx([float(len(row)) for row in support])
        none = space.operations.index("none")
        best = target.log_probability()[kind].argmax(axis=1).tolist()
        assert best == [row[0] if row else none for row in support]
        graph.append(tuple(space.operations[o] for o in best))
    assert search.evaluator.selection.best(search.evaluator, target, {}).__next__()[0] == space.architecture(
        tuple(graph)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 4), st.floats(-4, 4), st.floats(0, 1))
def test_thresholded_weights_are_those_of_the_equations(
    seed: int, spread: float, threshold: float, progress: float
) -> None:
    """Written down again with loops: the ratio to the node's largest p, the threshold, what is too far from the best
    of its edge, scaled to sum to 1.
    """
    search = THRESHOLDED["darts"]
    space, distribution = search.space, search.targets[0].distribution
    assert isinstance(distribution, Thresholded)
    generator = np.random.default_rng(seed)
    for values in distribution.logits.values():
        values.data = torch.from_numpy(spread * generator.normal(size=values.shape)).float()
    for values in distribution.thresholds.values():
        values.data = torch.from_numpy(threshold + generator.normal(size=values.shape)).float()
    draw = distribution.draw(DrawContext(torch.Generator(), progress=progress))
    real = [o for o, op in enumerate(space.operations) if op != "none"]
    for kind, cell in space.cells.items():
        logits = distribution.logits[kind].detach().double().numpy()[:, real]
        p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        for number, node in enumerate(cell.inner_nodes):
            t = 1 / (1 + np.exp(-float(distribution.thresholds[kind].detach()[number])))
            largest = max(p[e].max() for e in cell.edges_into(node))
            for e in cell.edges_into(node):
                u = p[e] / largest
                q = np.array([max(v - t, 0.0) if v >= progress * u.max() else 0.0 for v in u])
                expected = q / q.sum() if q.sum() > 0 else q
                if np.abs(u - t).min() > 1e-5 and np.abs(u - progress * u.max()).min() > 1e-5:
                    got = draw.mixture[kind][e].detach().numpy()
                    np.testing.assert_allclose(got[real], expected, atol=1e-3)
                    assert draw.support[kind][e] == [real[i] for i in np.flatnonzero(expected)]  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("nasbench201", 4), ("darts", 2), ("darts-extended", 2)])
def test_a_search_with_thresholds_derives_the_graph_of_its_engine(name: str, steps: int) -> None:
    """After all steps of a search, under a budget that excludes nothing."""
    changes = {"epochs": 2, "batch_size": 100, "logits_warm_up": 0.0, "logits.lr": 0.3, "logits.lr_end": 0.3}
    search = make_search(name, read_recipe(f"{name}/entrannas-dst", changes), ("100%",))
    moved = {k: v.detach().clone() for k, v in search.targets[0].distribution.state_dict().items()}
    for step in range(steps):
        # Some of its steps, the first of the last epoch among them.
        search.step = step * search.schedule.total_steps // steps
        search.take_step()
    target = search.targets[0]
    assert any(not torch.equal(v, moved[k]) for k, v in target.distribution.state_dict().items() if "thresholds" in k)
    search.step = search.schedule.total_steps - 1
    draw = search.current_step.draw(target, Purpose.WEIGHTS_DRAW)
    architecture = search.evaluator.choose(target)
    for (kind, support), chosen in zip(draw.support.items(), architecture.cells, strict=True):  # type: ignore[union-attr]
        assert [[search.space.operations[o] for o in row] or ["none"] for row in support] == [[op] for op in chosen], (
            kind
        )


# PC-DARTS.


def test_channels_are_shuffled_in_groups() -> None:
    """Twelve channels in three groups: 0 4 8 1 5 9 …"""
    x = torch.arange(12.0).view(1, 12, 1, 1).expand(2, 12, 3, 5)
    assert shuffled(x, 3)[1, :, 2, 4].tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert torch.equal(shuffled(x, 1), x)


@pytest.mark.slow
@pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)
@pytest.mark.parametrize("partial", [1, 2, 4])
def test_partial_channels_by_hand(space: SearchSpace, partial: int) -> None:
    """The first 1/k of the channels through the mixture, the others past it (pooled where the edge halves), dealt out
    in turn, the edge weighed by gamma; with k = 1 the plain mixture.
    """
    net, weights = supernet(space, partial, channels=8), random_weights(space)
    gamma = {
        kind: torch.rand(len(w), generator=torch.Generator().manual_seed(3)).double() for kind, w in weights.items()
    }

    def cell_of(index: int, cell: MixedCell, inputs: list[Tensor]) -> Tensor:
        kind = net.network.parts[index].kind  # type: ignore[union-attr]

        def edge(e: int, x: Tensor) -> list[Tensor]:
            count = x.shape[1] // partial
            mine = sum(
                weights[kind][e, o] * cell.candidate(e, op)(x[:, :count])
                for o, op in enumerate(space.operations)
                if op != "none"
            )
            if partial == 1:
                return [gamma[kind][e] * mine]
            rest = x[:, count:]
            if rest.shape[2] != mine.shape[2]:  # type: ignore[union-attr]
                rest = rest.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5))
            y = torch.cat([mine, rest], dim=1)  # type: ignore[list-item]
            order = [block * count + place for place in range(count) for block in range(partial)]
            return [gamma[kind][e] * y[:, order]]

        return cell_by_hand(cell, inputs, edge)

    mixture = {kind: Mixed(w, edges=gamma[kind]) for kind, w in weights.items()}
    torch.testing.assert_close(net(IMAGES, mixture), by_hand(net, IMAGES, cell_of), atol=1e-9, rtol=1e-9)
    if partial == 1:
        plain = {kind: Mixed(gamma[kind][:, None] * w) for kind, w in weights.items()}
        torch.testing.assert_close(net(IMAGES, mixture), net(IMAGES, plain), atol=1e-9, rtol=1e-9)


def test_gamma_sums_to_one_over_the_edges_into_a_node() -> None:
    search = make_search("darts", read_recipe("darts/pc-darts", {}))
    distribution = search.targets[0].distribution
    assert isinstance(distribution, SoftmaxEdges)
    for kind, beta in distribution.edge_logits.items():
        beta.data = torch.randn(beta.shape, generator=torch.Generator().manual_seed(1))
        for node in search.space.cells[kind].inner_nodes:
            into = search.space.cells[kind].edges_into(node)
            mine = distribution.gamma()[kind][into].detach()
            torch.testing.assert_close(mine, torch.softmax(beta.data[into], dim=0))
            assert float(mine.sum()) == pytest.approx(1)


def set_logits(search: Search, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    for values in search.targets[0].parameters:
        values.data = spread * torch.randn(values.shape, generator=generator)


DARTS_RULE = Lazy(("darts", "pc-darts"), lambda name: make_search("darts", read_recipe(f"darts/{name}", {}), ("100%",)))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(st.sampled_from(sorted(DARTS_RULE)), st.integers(0, 2**32 - 1), st.floats(0.1, 3))
def test_under_a_loose_budget_derivation_equals_the_rule_of_darts(method: str, seed: int, spread: float) -> None:
    """PC-DARTS's rule uses gamma * p."""
    search = DARTS_RULE[method]
    set_logits(search, seed, spread)
    target = search.targets[0]
    distribution, expected = target.distribution, []
    for kind, p in distribution.probabilities().items():
        strength = p.detach().double().numpy()
        if isinstance(distribution, SoftmaxEdges):
            strength = strength * distribution.gamma()[kind].detach().double().numpy()[:, None]
        expected.append(tuple(top_two(search.space, strength, kind)))
    assert next(search.evaluator.selection.best(search.evaluator, target, {}))[0].cells == tuple(expected)


# Widening.


def stages(space: SearchSpace) -> tuple[int, int, int]:
    """Return the channels, and k before and after widening."""
    return (12, 6, 4) if space.name == "darts" else (8, 4, 2)


@pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)
def test_widening_keeps_the_old_channels_and_copies_the_new_ones(space: SearchSpace) -> None:
    """Every new slice of a candidate's tensors, outgoing and incoming, is an old one, bit for bit, momentum too and by
    the same channels; what is outside the mixtures stays as it is.
    """
    channels, before, after = stages(space)
    narrow = supernet(space, before, channels=channels)
    for number, buffer in enumerate(narrow.buffers()):
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(number))
    # As momentum every entry's own number: this tells where each came from.
    numbers = {n: torch.arange(float(p.numel())).view(p.shape).double() for n, p in narrow.named_parameters()}
    momentum = {name: value.clone() for name, value in numbers.items()}
    wide = widen(narrow, after, momentum, torch.Generator().manual_seed(0))
    plain = supernet(space, after, channels=channels)
    assert {n: v.shape for n, v in wide.state_dict().items()} == {n: v.shape for n, v in plain.state_dict().items()}
    old, grown = dict(narrow.named_parameters()), 0
    for name, value in wide.named_parameters():
        assert momentum[name].shape == value.shape
        assert torch.equal(value.to(old[name].dtype).flatten(), old[name].flatten()[momentum[name].long().flatten()])
        inside = ".edges." in name
        assert inside or torch.equal(value.to(old[name].dtype), old[name])
        grown += value.shape != old[name].shape
        if inside and "even" not in name and "odd" not in name:
            first = tuple(slice(size) for size in old[name].shape)
            assert torch.equal(value[first].to(old[name].dtype), old[name])
    assert grown >= 36
    for name, buffer in wide.named_buffers():
        assert set(buffer.flatten().tolist()) == set(narrow.get_buffer(name).to(buffer.dtype).flatten().tolist())


@pytest.mark.parametrize("op", ["nor_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "skip_connect"])
def test_a_widened_candidate_is_the_old_one_on_copied_channels(op: str) -> None:
    """Fed with copies of its channels it gives copies of what the old one gives when each incoming channel counts as
    often as it has copies: Net2Wider would divide by their number, DrNAS does not. Each of the old outputs is there.
    """
    space = CELL_SPACES["nasbench201" if op == "nor_conv_3x3" else "darts"]
    channels, before, after = stages(space)
    narrow = supernet(space, before, channels=channels)
    wide = widen(narrow, after, {}, torch.Generator().manual_seed(0)).double()
    kind = list(space.cells)[-1]
    index = next(i for i, p in enumerate(narrow.network.parts) if isinstance(p, CellInstance) and p.kind == kind)
    old, new = (net.parts[index].candidate(0, op) for net in (narrow, wide))  # type: ignore[operator]
    pairs = [(a, b) for a, b in zip(old.modules(), new.modules(), strict=True) if isinstance(a, nn.Conv2d)]
    copies: list[int] = []  # of every new incoming channel the old one
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for a, b in pairs:
            if a.groups > 1:
                continue
            own = [tuple(row.flatten().tolist()) for row in a.weight.transpose(0, 1)]
            rows = b.weight[: a.out_channels].transpose(0, 1)
            copies = [own.index(tuple(row.flatten().tolist())) for row in rows]
            assert copies[: a.in_channels] == list(range(a.in_channels))
            often = torch.bincount(torch.tensor(copies)).view(1, -1, 1, 1)
            assert int(often.max()) > 1
            x = torch.randn(2, a.in_channels, 8, 8, dtype=torch.float64, generator=generator)
            torch.testing.assert_close(b(x[:, copies])[:, : a.out_channels], a(x * often))
        x = torch.randn(2, pairs[0][0].in_channels, 8, 8, dtype=torch.float64, generator=generator)
        channels_out = {tuple(round(v, 9) for v in y.flatten().tolist()) for y in new(x[:, copies]).transpose(0, 1)}
    assert len(channels_out) == narrow.parts[index].out_channels // before  # type: ignore[operator]


def test_single_channels_are_widened() -> None:
    """A depthwise convolution of one channel has one group, like any other."""
    space = CELL_SPACES["darts"]
    narrow = supernet(space, 4)
    wide = widen(narrow, 2, {}, torch.Generator().manual_seed(0))
    assert wide(IMAGES.float(), {kind: Mixed(w.float()) for kind, w in random_weights(space).items()}).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("space", SEARCH_SPACES.values(), ids=SEARCH_SPACES)
def test_a_search_in_stages_widens_prunes_and_carries_momentum(
    space: SearchSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels, before, after = stages(space)
    monkeypatch.setitem(SMALL, space.name, replace(SMALL[space.name], channels=channels))
    changes = {"epochs": 2, "batch_size": 8, "logits_warm_up": 0.0}
    search = make_search(space.name, read_recipe(f"{space.name}/drnas-progressive", changes))
    assert search.supernet.partial == before
    search.take_step()
    names = {p: n for n, p in search.supernet.named_parameters()}
    old = {names[p]: s["momentum_buffer"].clone() for p, s in search.supernet_state.weights.optimizer.state.items()}
    rows, kept = [], [stage.operations for stage in search.schedule.stages]
    first = {k: v.detach().clone() for k, v in search.targets[0].logits.items()}
    search.step = search.schedule.steps_per_epoch
    search.enter_stages()
    assert (search.supernet.partial, search.position.stage) == (after, 1)
    state = search.supernet_state.weights.optimizer.state
    for name, parameter in search.supernet.named_parameters():
        momentum = state[parameter]["momentum_buffer"]
        assert momentum.shape == parameter.shape
        assert set(momentum.flatten().tolist()) == set(old[name].flatten().tolist())
    for kind, logits in first.items():
        mask = search.targets[0].distribution.allowed(kind)
        rows += mask.sum(dim=1).tolist()
        was = logits.masked_fill(torch.tensor([op in search.recipe.without for op in space.operations]), -torch.inf)
        assert torch.equal(mask, was >= was.topk(kept[1], dim=1).values[:, -1:])
    assert set(rows) == {kept[1]}
    search.take_step()


def stages_of(*parts: tuple[float, int]) -> list[dict[str, object]]:
    return [{"share": share, "partial_channels": partial, "operations": 3} for share, partial in parts]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"partial_channels": 3}, "4 channels cannot be divided into 3 parts"),
        ({"stages": stages_of((0.5, 4), (0.5, 2), (0.1, 1))}, "do not sum to 1"),
        ({"stages": stages_of((1, 4)), "partial_channels": 2}, "set in each stage"),
        ({"stages": stages_of((1, 4)), "shared_features": True}, "cannot be combined"),
        ({"stages": stages_of((0.5, 2), (0.5, 4))}, "fewer channels"),
        ({"stages": stages_of((0.5, 4), (0.5, 3))}, "cannot be divided into 3 parts"),
    ],
)
def test_channels_that_do_not_fit_are_refused_before_the_search(changes: dict, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        make_search("nasbench201", read_recipe("short/drnas", changes))


def test_a_discrete_runner_needs_a_discrete_draw() -> None:
    search = make_search("nasbench201", read_recipe("short/darts", {"runs": "sampled"}))
    with pytest.raises(HwnasError, match="draws one operation an edge"):
        search.current_step.runs(search.supernet, search.targets[0].distribution, Draw({}))
