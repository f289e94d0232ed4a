"""Peak memory: against what a dispatcher sees alive in real torch modules, and derivation within budgets of it."""

from __future__ import annotations

import json
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

from hwnas.budgets.budget import parse_budget, preview, share_within
from hwnas.budgets.derive import cheapest, derive
from hwnas.budgets.infeasible import conflicting_limits, least_under_others
from hwnas.budgets.pareto import pareto
from hwnas.cost import metric as cost_metric
from hwnas.cost.build import CostFunction, build_metrics
from hwnas.cost.memory import memory_access_model
from hwnas.cost.peak import FREE, PeakModel, peak_model
from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.spaces import (
    SPACES,
    Architecture,
    CellInstance,
    FixedModule,
    Network,
    SearchSpace,
    Setting,
    SizedSpace,
    Workload,
)
from hwnas.spaces.encoding import encode, every_choice, live_edges, random_choices
from hwnas.tables.io import write_table
from support.command import Run
from support.few_digits import FEW_DIGITS
from support.fitting import CIFAR
from support.searches import COSTS
from support.spaces import DARTS, NB201, SMALL
from support.tables import make_table

MEMORY_ACCESS, PEAK_MEMORY = cost_metric.MEMORY_ACCESS.name, cost_metric.PEAK_MEMORY.name


class Lifetimes(TorchDispatchMode):
    """Watches every operator that torch runs: which storages it reads, which it writes.

    Views share a storage. A batch norm behind a convolution (or the joined halves of one) and the padding of a shifted
    image write nothing of their own.
    """

    def __init__(self, module: nn.Module, image: torch.Tensor) -> None:
        super().__init__()
        self.weights = {t.untyped_storage().data_ptr() for t in module.state_dict().values()}
        self.held = [image]  # nothing is freed, so no storage gets another's address
        self.same: dict[int, int] = {}
        self.made_by: dict[int, str] = {}
        self.events: list[tuple[list[int], int, int]] = []

    def storage(self, tensor: torch.Tensor) -> int:
        pointer = tensor.untyped_storage().data_ptr()
        return self.same.get(pointer, pointer)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        output = result[0] if isinstance(result, tuple) else result
        name = func.overloadpacket.__name__
        flat = [a for group in args for a in (group if isinstance(group, list) else [group])]
        given = [a for a in flat if isinstance(a, torch.Tensor)]
        reads = [self.storage(a) for a in given if a.untyped_storage().data_ptr() not in self.weights]
        pointer = output.untyped_storage().data_ptr()
        self.held.append(output)
        if pointer in self.weights or self.storage(output) in reads:
            return result  # a view
        folded = "batch_norm" in name and self.made_by[reads[0]] in ("convolution", "joined convolution")
        if folded or name == "constant_pad_nd":
            self.same[pointer] = reads[0]
            return result
        joined = name == "cat" and len(reads) == 2 and all(self.made_by[r] == "convolution" for r in reads)
        self.made_by[pointer] = "joined convolution" if joined else name
        self.events.append(([] if name == "new_zeros" else reads, pointer, 4 * output.numel()))
        return result


def measured_peak_bytes(child: ChildNetwork) -> int:
    """Run the real network on an image and add up, at every operator, the tensors that are still to be read."""
    setting = child.network.setting
    image = torch.zeros(1, setting.image_channels, setting.height, setting.width)
    with torch.no_grad(), Lifetimes(child, image) as lifetimes:
        child.eval()(image)
    read = {pointer for reads, _, _ in lifetimes.events for pointer in reads}
    # Zeros that nobody reads are an artefact of how the module is written.
    events = [e for e in lifetimes.events if not (lifetimes.made_by[e[1]] == "new_zeros" and e[1] not in read)]
    first = image.untyped_storage().data_ptr()
    born, size, dies = {first: 0}, {first: 4 * image.numel()}, {first: 0}
    for now, (reads, written, size_bytes) in enumerate(events):
        born[written], size[written], dies[written] = now, size_bytes, now
        dies.update(dict.fromkeys(reads, now))
    return max(sum(size[p] for p in born if born[p] <= now <= dies[p]) for now in range(len(events)))


PEAK_SETTINGS = {
    "nasbench201": [SMALL["nasbench201"], Setting(channels=3, depth=2, height=19, width=14)],
    "darts": [
        SMALL["darts"],
        Setting(channels=4, depth=6, height=16, width=16),
        Setting(channels=3, depth=4, height=15, width=18, pool_norm=True),
        Setting(channels=4, depth=3, height=64, width=64, stem="imagenet", classes=1000),
    ],
}
CASES = [(name, number) for name, sizes in PEAK_SETTINGS.items() for number in range(len(sizes))]


@cache
def peaks(name: str, number: int = 0) -> PeakModel:
    return peak_model(SizedSpace(SPACES[name], PEAK_SETTINGS[name][number]))


@st.composite
def sparse_architectures(draw: st.DrawFn, name: str) -> Architecture:
    """Architectures with more or less ``none`` and ``skip_connect`` than a uniform draw has."""
    space = SPACES[name]
    extra = draw(st.sampled_from([(), ("none",) * 8, ("skip_connect",) * 8, ("none", "skip_connect") * 8]))
    ops = st.sampled_from(space.operations + extra)
    return space.architecture(tuple(tuple(draw(ops) for _ in cell.edges) for cell in space.cells.values()))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "number"), CASES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_peak_memory_is_that_of_the_network_as_torch_runs_it(name: str, number: int, data: st.DataObject) -> None:
    architecture = data.draw(sparse_architectures(name))
    child = ChildNetwork(SizedSpace(SPACES[name], PEAK_SETTINGS[name][number]), architecture, prune=True)
    assert peaks(name, number).predict(architecture) == measured_peak_bytes(child)


@pytest.mark.parametrize(("name", "number"), CASES)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_part_of_a_pattern_is_not_above_any_pattern_that_has_it(name: str, number: int, data: st.DataObject) -> None:
    """Freed edges, and operations that need as much, never make the bound too high, as cuts require."""
    model, space = peaks(name, number), SPACES[name]
    ours, others = (encode(space, [data.draw(sparse_architectures(name))])[0] for _ in range(2))
    start, completed, parts = 0, others.copy(), []
    for kind, cell in space.cells.items():
        chosen = ours[start : start + len(cell.edges)]
        live = cell.live_edges(tuple(space.operations[o] for o in chosen))
        whole = [FREE if o and not live[e] else int(o) for e, o in enumerate(chosen)]  # operation 0 is none
        fixed = [o if data.draw(st.booleans()) else FREE for o in whole]
        for e, o in enumerate(fixed):
            if o != FREE:
                completed[start + e] = data.draw(st.sampled_from(model._as_bad[kind][e][o]))
        parts.append((kind, tuple(whole), tuple(fixed)))
        start += len(cell.edges)
    exact, other = model.predict_many(np.stack([ours, completed]))
    assert max(model.fixed_bytes, *(model.pattern_bytes(kind, whole) for kind, whole, _ in parts)) == exact
    part = max(model.fixed_bytes, *(model.pattern_bytes(kind, fixed) for kind, _, fixed in parts))
    assert model.floor_bytes <= part <= min(exact, other)


CHAINS = sorted(name for name, space in SPACES.items() if space.is_chain)


@pytest.mark.parametrize("name", CHAINS)
def test_a_layer_of_a_chain_needs_as_much_whatever_the_others_are(name: str) -> None:
    """A bound with freed layers is below every chain that has the others, and a layer alone is bound by its tensors."""
    sized = SizedSpace.named(SPACES[name], "cifar")
    model, space = peak_model(sized), sized.space
    (kind,) = space.cells
    generator = np.random.default_rng(0)
    choices = random_choices(space, 200, generator)
    for row, exact in zip(choices, model.predict_many(choices), strict=True):
        freed = np.where(generator.random(len(row)) < generator.random(), FREE, row)
        assert model.floor_bytes <= max(model.fixed_bytes, model.pattern_bytes(kind, tuple(freed.tolist()))) <= exact
        alone = []
        for e, op in enumerate(row):
            single = np.full(len(row), FREE)
            single[e] = op
            alone.append(model.pattern_bytes(kind, tuple(single.tolist())))
        assert max(model.fixed_bytes, *alone) == exact


@pytest.mark.parametrize("name", CHAINS)
def test_the_least_peak_of_a_chain_skips_what_it_can(name: str) -> None:
    """Least by layer: the peak is the maximum over layers, whose tensors do not depend on each other's operations."""
    sized = SizedSpace.named(SPACES[name], "cifar")
    model, space = peak_model(sized), sized.space
    ((kind, cell),) = space.cells.items()
    patterns = []
    for e in range(len(cell.edges)):
        pattern = [FREE] * len(cell.edges)
        for o in map(space.operations.index, cell.offered(e, space.operations)):
            pattern[e] = o
            patterns.append((e, model.pattern_bytes(kind, tuple(pattern))))
    by_layer = [min(size for at, size in patterns if at == e) for e in range(len(cell.edges))]
    assert model.predict(cheapest(model)) == max(model.fixed_bytes, *by_layer)


def test_what_a_later_part_reads_is_alive_while_others_run() -> None:
    """image > narrow > wide > narrow again, and the two narrow ones added: the first is held to the end."""
    wide, narrow = (Workload("nor_conv_1x1", a, b, 8, 8) for a, b in ((4, 16), (16, 4)))
    parts = [FixedModule(str(n), w, (n - 1,)) for n, w in enumerate((Workload("relu", 4, 4, 8, 8), wide, narrow))]
    last = FixedModule("sum", Workload("sum", 4, 4, 8, 8), (0, 2))
    setting = Setting(channels=4, depth=1, image_channels=4, height=8, width=8)
    chain = replace(NB201, build_network=lambda setting: Network(setting, tuple(parts)))
    added = replace(NB201, build_network=lambda setting: Network(setting, (*parts, last)))
    image_bytes = 4 * 4 * 8 * 8
    assert peak_model(SizedSpace(chain, setting)).fixed_bytes == (4 + 4) * image_bytes  # the wide one and its ReLU
    assert peak_model(SizedSpace(added, setting)).fixed_bytes == (4 + 4 + 1) * image_bytes


def test_operations_that_differ_in_their_kernel_are_one_to_peak_memory() -> None:
    model = peak_model(SizedSpace(NB201, CIFAR))
    costs = model.predict_many(every_choice(NB201))
    assert len(model._known) <= 4**6  # of 15,625
    assert 4 * 2 * 16 * 32 * 32 <= costs.min() < costs.max() < 4 * 10 * 16 * 32 * 32


KEPT_EDGES = (0, 1, 4, 6, 8, 11)  # of a DARTS cell


def small_darts() -> SearchSpace:
    """DARTS with six edges a cell and five operations: few enough to try each, too many to enumerate them all."""
    operations = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "sep_conv_5x5")

    def smaller(part: FixedModule | CellInstance) -> FixedModule | CellInstance:
        if isinstance(part, FixedModule):
            return part
        return replace(part, candidates=tuple({o: part.candidates[e][o] for o in operations} for e in KEPT_EDGES))

    def build_network(setting: Setting) -> Network:
        return Network(setting, tuple(smaller(part) for part in DARTS.build_network(setting).parts))

    cell = DARTS.cells["normal"]
    cells = {kind: replace(cell, edges=tuple(cell.edges[e] for e in KEPT_EDGES)) for kind in DARTS.cells}
    return replace(DARTS, operations=operations, cells=cells, build_network=build_network)


TINY, TINY_SIZES = small_darts(), Setting(channels=4, depth=4, height=16, width=16)
CELL_CHOICES = (np.arange(5**6)[:, None] // 5 ** np.arange(5, -1, -1)) % 5
CONNECTED = live_edges(TINY.cells["normal"], CELL_CHOICES != 0).any(axis=1)


@cache
def tiny_metrics() -> dict[str, CostFunction]:
    return build_metrics(make_table(SizedSpace(TINY, TINY_SIZES)), SizedSpace(TINY, TINY_SIZES))


@cache
def tiny_costs(metric: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the costs of every normal and reduction cell next to the pair of least peak, and of that pair."""
    pair = encode(TINY, [cheapest(tiny_metrics()[PEAK_MEMORY])])[0]
    model, many = tiny_metrics()[metric], (len(CELL_CHOICES), 1)
    normal = model.predict_many(np.concatenate([CELL_CHOICES, np.tile(pair[6:], many)], axis=1))
    reduction = model.predict_many(np.concatenate([np.tile(pair[:6], many), CELL_CHOICES], axis=1))
    return normal, reduction, float(model.predict_many(pair[None])[0])


TINY_PEAKS = (40_960, 45_056, 49_152)  # bytes; a uniform draw is at the greatest in four of five cases


@pytest.mark.slow
def test_the_peaks_of_the_small_space_are_few_and_most_are_the_greatest() -> None:
    sample = np.random.default_rng(0).integers(5, size=(500, 12))
    found, often = np.unique(tiny_metrics()[PEAK_MEMORY].predict_many(sample), return_counts=True)
    assert (tuple(found), tiny_costs(PEAK_MEMORY)[2]) == (TINY_PEAKS, TINY_PEAKS[0])
    assert often[-1] > 350


def best_by_brute_force(log_p: dict[str, np.ndarray], metric: str, bound: float, peak_bound: float) -> float:
    """The greatest log probability of a pair of cells within both limits: every cell of either kind is tried."""
    (normal, reduction, both), (peak_n, peak_r, _) = tiny_costs(metric), tiny_costs(PEAK_MEMORY)
    scores = [log_p[kind][np.arange(6), CELL_CHOICES].sum(axis=1) for kind in TINY.cells]
    first, second = (CONNECTED & (peak <= peak_bound) for peak in (peak_n, peak_r))
    order = np.argsort(normal[first])
    costs, best = normal[first][order], np.maximum.accumulate(scores[0][first][order])
    left = np.searchsorted(costs, bound - (reduction[second] - both) + 1e-9, side="right")
    return float(np.max(np.where(left > 0, best[np.maximum(left, 1) - 1] + scores[1][second], -np.inf)))


@pytest.mark.slow
@settings(max_examples=16, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    concentration=st.sampled_from([0.1, 0.5, 5.0]),
    metric=st.sampled_from(["latency_ms", MEMORY_ACCESS]),
    quantile=st.floats(0.1, 1),
    rank=st.integers(0, 1),
)
def test_derivation_within_peak_memory_equals_brute_force(
    seed: int, concentration: float, metric: str, quantile: float, rank: int
) -> None:
    generator = np.random.default_rng(seed)
    log_p = {kind: np.log(generator.dirichlet(np.full(5, concentration), 6) + 1e-20) for kind in TINY.cells}
    model, peak = tiny_metrics()[metric], tiny_metrics()[PEAK_MEMORY]
    sample = generator.integers(5, size=(500, 12))
    bound = float(np.quantile(model.predict_many(sample), quantile))
    peak_bound = float(TINY_PEAKS[rank])
    derived = derive(TINY, log_p, {metric: (model, bound), PEAK_MEMORY: (peak, peak_bound)})
    assert peak.predict(derived) <= peak_bound
    assert model.predict(derived) <= bound
    score = np.concatenate([log_p[kind] for kind in TINY.cells])[np.arange(12), encode(TINY, [derived])[0]].sum()
    assert score == pytest.approx(best_by_brute_force(log_p, metric, bound, peak_bound), abs=1e-4)


@pytest.mark.slow
def test_the_least_peak_is_that_of_brute_force() -> None:
    model = tiny_metrics()[PEAK_MEMORY]
    assert isinstance(model, PeakModel)
    least = model.predict(cheapest(model))
    every = np.concatenate([CELL_CHOICES, CELL_CHOICES], axis=1)[CONNECTED]
    alone = [
        replace(model, sites={**dict.fromkeys(TINY.cells, ()), kind: sites}, _known={}, _covers={})
        for kind, sites in model.sites.items()
    ]
    assert least == max(one.predict_many(every).min() for one in alone)
    without_floor = replace(model, _known={}, _covers={})
    without_floor.__dict__["floor_bytes"] = 0  # so that it must come down step by step
    assert model.predict(cheapest(without_floor)) == least
    assert len(without_floor._covers) >= 2
    with pytest.raises(HwnasError, match="no architecture"):
        derive(TINY, {kind: np.zeros((6, 5)) for kind in TINY.cells}, {PEAK_MEMORY: (model, least - 1)})


@pytest.mark.slow
def test_peak_memory_of_the_whole_darts_space_is_kept() -> None:
    """The published search size; the most probable architecture without a limit is over this one."""
    model = peak_model(SizedSpace(DARTS, DARTS.settings["search"]))
    generator = np.random.default_rng(1)
    log_p = {kind: np.log(generator.dirichlet(np.full(8, 0.3), 14) + 1e-20) for kind in DARTS.cells}
    for values in log_p.values():
        values[:, 0] -= 6  # few edges prefer none
    free = model.predict(derive(DARTS, log_p, {}))
    least = model.predict(cheapest(model))
    assert model.floor_bytes <= least < free
    for share in (0.2, 0.6):
        bound = least + share * (free - least)
        derived = derive(DARTS, log_p, {PEAK_MEMORY: (model, bound)})
        child = ChildNetwork(SizedSpace(DARTS, DARTS.settings["search"]), derived, prune=True)
        assert measured_peak_bytes(child) == model.predict(derived) <= bound


def test_the_pareto_set_of_peak_memory_is_that_of_brute_force() -> None:
    log_p = {kind: np.log(np.random.default_rng(5).dirichlet(np.full(5, 0.5), 6)) for kind in TINY.cells}
    latency, peak = tiny_metrics()["latency_ms"], tiny_metrics()[PEAK_MEMORY]
    bound = float(np.quantile(tiny_costs("latency_ms")[0], 0.8))
    found = pareto(TINY, log_p, peak, {"latency_ms": (latency, bound)})
    best = [best_by_brute_force(log_p, "latency_ms", bound, least) for least in TINY_PEAKS]
    expected = [(p, b) for i, (p, b) in enumerate(zip(TINY_PEAKS, best, strict=True)) if b > max([-np.inf, *best[:i]])]
    assert found.whole
    assert [point.cost for point in found.points] == [p for p, _ in expected]
    assert [point.worth for point in found.points] == pytest.approx([b for _, b in expected], abs=1e-4)


def test_peak_memory_and_another_limit_that_contradict_each_other_say_how_far_each_goes() -> None:
    latency, peak = tiny_metrics()["latency_ms"], tiny_metrics()[PEAK_MEMORY]
    least = latency.predict(cheapest(latency))
    limits = {"latency_ms": (latency, least * 0.999), PEAK_MEMORY: (peak, float(TINY_PEAKS[0]))}
    assert conflicting_limits(limits) == {"latency_ms": pytest.approx(least)}
    possible = {"latency_ms": (latency, least * 1.001), PEAK_MEMORY: (peak, float(TINY_PEAKS[-1]))}
    assert conflicting_limits(possible) == {}
    under = least_under_others(possible)
    normal, reduction, both = tiny_costs("latency_ms")
    assert latency.predict(cheapest(latency, possible)) == pytest.approx(under["latency_ms"])
    within = [  # the pairs of cells that keep the latency
        (n, r)
        for n in np.flatnonzero(CONNECTED & (normal - both + reduction[CONNECTED].min() <= least * 1.001))
        for r in np.flatnonzero(CONNECTED & (reduction + normal[n] - both <= least * 1.001))
    ]
    pairs = np.array([np.concatenate([CELL_CHOICES[n], CELL_CHOICES[r]]) for n, r in within])
    assert under[PEAK_MEMORY] == peak.predict_many(pairs).min()


# --- budgets of peak memory -------------------------------------------------------------------------------------------


def test_budgets_of_peak_memory_are_read() -> None:
    previews = preview(COSTS["nasbench201"])
    spread = previews[PEAK_MEMORY]
    assert parse_budget("2MB-peak-memory", previews).limits == {PEAK_MEMORY: 2e6}
    assert parse_budget("60%-peak-memory", previews).limits == {PEAK_MEMORY: 0.6 * spread.greatest}
    both = parse_budget("mild,moderate-peak-memory", previews)
    assert both.limits[PEAK_MEMORY] == np.percentile(spread.costs, 50)
    kept = (spread.costs <= both.limits[PEAK_MEMORY]) & (previews["latency_ms"].costs <= both.limits["latency_ms"])
    assert share_within(previews, both) == kept.mean()


@pytest.mark.slow
def test_preview_of_peak_memory_is_exact_where_all_are_known_else_has_error_bars(run: Run, tmp_path: Path) -> None:
    for name, exact in (("nasbench201", True), ("darts", False)):
        sizes = SMALL[name]
        file = tmp_path / f"{name}.json"
        write_table(file, make_table(SizedSpace(SPACES[name], sizes)))
        options = ("--channels", sizes.channels, "--layers", sizes.depth, "--input", "3x16x16")
        budget = ("--budget", "95%-peak-memory,90%")
        result = run("space", "preview", "--table", file, "--space", name, *options, *budget, "--json")
        assert result.exit_code == 0, result.output
        printed = json.loads(result.stdout)
        spread = printed["metrics"][PEAK_MEMORY]
        assert spread["least"] <= spread["aggressive"] <= spread["moderate"] <= spread["mild"] <= spread["greatest"]
        assert ("moderate_standard_error" in spread) != exact
        assert 0 < printed["budgets"][0]["share_of_architectures"] < 1
        costs = preview(COSTS[name])[PEAK_MEMORY].costs
        assert spread["least"] <= costs.min() + (costs.max() if exact else 0)
        assert spread["greatest"] >= costs.max()
        shown = run("space", "preview", "--table", file, "--space", name, *options)
        assert "peak_activation_bytes" in shown.stdout
        assert ("±" in shown.stdout) != exact


@pytest.mark.end_to_end
def test_search_keeps_peak_memory_and_logs_how(run: Run, table_file: Path, tmp_path: Path) -> None:
    """One target with peak memory alone, one with other limits, too; the real child is measured."""
    budgets = ("--budget", "70%-peak-memory", "--budget", "mild,80%-peak-memory,90%-memory-access")
    small = ("--data", FEW_DIGITS, "--channels", 4, "--cells", 1, "--recipe", "snas-short", "--epochs", 2)
    result = run("search", "--table", table_file, *small, "--child-epochs", 0, *budgets, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "only derivation enforces it" in result.output
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [set(line["lambda"]) for line in lines[:2]] == [set(), {"latency_ms", MEMORY_ACCESS}]
    targets = {
        target["budget"]: target for target in json.loads((tmp_path / "run/summary.json").read_text())["targets"]
    }
    for text, target in targets.items():
        folder = tmp_path / "run" / text.replace("%", "pct").replace(",", "_")
        content = json.loads((folder / "architecture.json").read_text())
        for metric, bound in content["budget"]["limits"].items():
            assert content["costs"][metric] <= bound
        child = ChildNetwork(
            SizedSpace(NB201, Setting(**content["setting"])), NB201.parse(content["architecture"]), prune=True
        )
        assert content["costs"][PEAK_MEMORY] == measured_peak_bytes(child) == target[PEAK_MEMORY]
        assert content["costs"][MEMORY_ACCESS] == target[MEMORY_ACCESS]


def test_space_count_prints_both(run: Run) -> None:
    text = NB201.format(NB201.parse("|nor_conv_3x3~0|+|none~0|nor_conv_1x1~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"))
    printed = json.loads(run("space", "count", "--architecture", text, "--json").stdout)
    sizes = NB201.settings[printed["setting"]]
    child = ChildNetwork(SizedSpace(NB201, sizes), NB201.parse(text), prune=True)
    assert printed[PEAK_MEMORY] == measured_peak_bytes(child)
    assert printed[MEMORY_ACCESS] == memory_access_model(SizedSpace(NB201, sizes)).predict(NB201.parse(text))
    shown = run("space", "count", "--architecture", text).stdout
    assert f"{printed[PEAK_MEMORY]:,}" in shown
    assert f"{printed[MEMORY_ACCESS]:,}" in shown
