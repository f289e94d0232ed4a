"""Chains whose stages have several widths: workloads, costs against built networks, expectation, exact derivation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from hwnas.budgets import derive as derivation
from hwnas.budgets.budget import parse_budget, preview
from hwnas.budgets.derive import cheapest, derive_best, follows_rules, largest, scores
from hwnas.cost.build import CostFunction, build_metrics
from hwnas.cost.expectation import ExpectedCost
from hwnas.cost.model import CostModel
from hwnas.cost.peak import FREE, PeakModel
from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.operations import build_operation
from hwnas.profiling.sample import random_architectures
from hwnas.spaces import Architecture, SizedSpace, Workload
from hwnas.spaces.encoding import decode, encode, every_choice, offered, possible, random_choices
from support.chains import WIDTHS, small_chain
from support.tables import make_table

SPACE = small_chain(WIDTHS)
SIZED = SizedSpace.named(SPACE, "tiny")
INDEPENDENT = small_chain(WIDTHS.replace("skips: last, least: 1", "skips: any"))  # no choice excludes another
WORDS = "w12 k3_e1 skip k5_e3 w24 k3_e2 skip"


@cache
def models() -> dict[str, CostFunction]:
    return build_metrics(make_table(SIZED), SIZED)


def independent(metric: str) -> CostModel:
    sized = SizedSpace.named(INDEPENDENT, "tiny")
    model = build_metrics(make_table(sized), sized)[metric]
    assert isinstance(model, CostModel)
    return model


def built_workloads(architecture: Architecture) -> list[Workload]:
    """Return the workloads of the modules that a network is made of."""
    found = []

    def build(workload: Workload | None) -> nn.Module:
        found.extend([workload] if workload else [])
        return build_operation(workload)

    ChildNetwork(SIZED, architecture, prune=True, build=build)
    return found


def test_a_layer_has_the_sizes_of_the_widths_around_it() -> None:
    architecture = SPACE.parse(WORDS)
    assert SPACE.format(architecture) == WORDS
    assert [w.key for w in built_workloads(architecture)] == [
        "conv_bn_relu6_3x3-3-8-16x16-s2",
        "mbconv_3x3_e1_r6-8-12-8x8-s1",
        "mbconv_5x5_e3_se_hs-12-16-8x8-s2",
        "mbconv_3x3_e2_r6-16-24-4x4-s1",
        "conv_bn_relu6_1x1-24-24-4x4-s1",
        "pool_linear-24-10-4x4-s1",
    ]
    same = built_workloads(SPACE.parse("w8 k3_e1 skip k5_e3 w16 k3_e2 skip"))
    assert [w.op for w in same][1:4] == ["mbconv_3x3_e1_r6_res", "mbconv_5x5_e3_se_hs", "mbconv_3x3_e2_r6_res"]
    skipped = built_workloads(SPACE.parse("w12 skip skip k5_e3 w16 k3_e2 skip"))
    assert skipped[1].key == "conv_bn_relu6_1x1-8-12-8x8-s1"
    assert len(built_workloads(SPACE.parse("w8 skip skip k5_e3 w16 k3_e2 skip"))) == 5


def test_every_architecture_is_counted_and_drawn() -> None:
    choices = every_choice(SPACE)
    assert len(choices) == SPACE.num_architectures == 3 * 4 * 4 * 2 * 2 * 2 * (1 + 2)
    drawn = random_choices(SPACE, 20_000, np.random.default_rng(0))
    assert possible(SPACE, drawn).all()
    assert len(np.unique(drawn, axis=0)) == len(choices)
    assert {a for architecture in random_architectures(SIZED, 60) for a in architecture.cells[0][:1]} == {
        "w8", "w12", "w16",
    }  # fmt: skip


def test_costs_are_those_of_the_built_networks() -> None:
    table = {entry.workload: entry.latency_ms for entry in make_table(SIZED).entries}
    assert {w for row in every_choice(SPACE)[::7] for w in built_workloads(decode(SPACE, row))} <= set(table)
    choices = random_choices(SPACE, 60, np.random.default_rng(1))
    built = [ChildNetwork(SIZED, decode(SPACE, row), prune=True) for row in choices[:10]]
    expected = [sum(table[w] for w in built_workloads(decode(SPACE, row))) for row in choices]
    np.testing.assert_allclose(models()["latency_ms"].predict_many(choices), expected)
    counts = [count_network(child) for child in built]
    assert models()["macs"].predict_many(choices[:10]).tolist() == [c.macs_fvcore for c in counts]
    assert models()["params"].predict_many(choices[:10]).tolist() == [c.params for c in counts]


def test_the_expected_cost_is_exact_and_so_is_its_gradient() -> None:
    model = independent("latency_ms")
    allowed = torch.tensor(offered(INDEPENDENT))
    logits = torch.randn(allowed.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def expected(values: torch.Tensor) -> torch.Tensor:
        return ExpectedCost(model)({"chain": values.masked_fill(~allowed, -torch.inf).softmax(dim=1)})

    p = logits.masked_fill(~allowed, -torch.inf).softmax(dim=1).numpy()
    choices = every_choice(INDEPENDENT)
    chances = p[np.arange(p.shape[0]), choices].prod(axis=1)
    assert np.isclose(float(expected(logits)), (chances * model.predict_many(choices)).sum(), rtol=1e-12)
    assert torch.autograd.gradcheck(expected, logits.requires_grad_())


def test_costs_of_one_edge_are_differences_of_whole_networks() -> None:
    model = models()["latency_ms"]
    assert isinstance(model, CostModel)
    architecture = SPACE.parse(WORDS)
    (costs,) = model.given(architecture).values()
    chosen = encode(SPACE, [architecture])[0]
    for e, op in ((0, "w16"), (1, "k5_e3"), (3, "k3_e2"), (4, "w16")):
        other = chosen.copy()
        other[e] = SPACE.operations.index(op)
        change = model.predict(decode(SPACE, other)) - model.predict(architecture)
        assert np.isclose(costs[e, other[e]] - costs[e, chosen[e]], change)


def test_main_effects_are_the_best_sum_over_edges() -> None:
    model, choices = independent("macs"), every_choice(INDEPENDENT)
    base, edges = model.linear()
    sums = base + edges["chain"][np.arange(choices.shape[1]), choices].sum(axis=1)
    costs = model.predict_many(choices)
    design = (choices[:, :, None] == np.arange(len(INDEPENDENT.operations))).reshape(len(choices), -1).astype(float)
    best, *_ = np.linalg.lstsq(design, costs, rcond=None)
    np.testing.assert_allclose(sums, design @ best, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["latency_ms", "peak_activation_bytes"])
@pytest.mark.parametrize(("seed", "share"), [(0, 0.2), (1, 0.4), (2, 1.0)])
def test_derivation_by_integer_program_is_exact(metric: str, seed: int, share: float) -> None:
    model, choices = models()[metric], every_choice(SPACE)
    costs = model.predict_many(choices)
    limits = {metric: (model, float(np.quantile(costs, share)))}
    shape = len(SPACE.cells["chain"].edges), len(SPACE.operations)
    log_p = {"chain": np.log(np.random.default_rng(seed).dirichlet(np.ones(shape[1]), size=shape[0]))}
    within = choices[(costs <= limits[metric][1]) & follows_rules(SPACE, choices, None)]
    number = 3 if isinstance(model, CostModel) else 1  # of memory a program takes long
    values = np.sort(-scores(SPACE, log_p, within))[:number]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivation, "ENUMERABLE", 0)
        found = derive_best(SPACE, log_p, limits, None, number)
        least = cheapest(model)
        if isinstance(model, CostModel):
            assert np.isclose(model.predict(largest(model, {})), costs.max())
    assert np.allclose(-scores(SPACE, log_p, encode(SPACE, found)), values, atol=1e-6)
    assert np.isclose(model.predict(least), costs.min())


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_part_of_a_pattern_needs_no_more_memory_than_the_whole(data: st.DataObject) -> None:
    model, choices = models()["peak_activation_bytes"], every_choice(SPACE)
    assert isinstance(model, PeakModel)
    ours, other = (choices[data.draw(st.integers(0, len(choices) - 1))] for _ in range(2))
    fixed = [int(o) if data.draw(st.booleans()) else FREE for o in ours]
    completed = np.array([other[e] if o == FREE else o for e, o in enumerate(fixed)])
    for e, o in enumerate(fixed):
        if o != FREE:
            completed[e] = data.draw(st.sampled_from(model._as_bad["chain"][e][o]))
    bound = max(model.fixed_bytes, model.pattern_bytes("chain", tuple(fixed)))
    assert bound <= model.predict_many(ours[None])[0]
    if possible(SPACE, completed[None])[0]:
        assert bound <= model.predict_many(completed[None])[0]


def test_a_preview_spans_the_widths() -> None:
    found = preview(models())
    for spread in found.values():
        assert spread.greatest >= spread.costs.max()
    assert found["macs"].greatest == found["macs"].costs.max()
    assert found["peak_activation_bytes"].greatest == found["peak_activation_bytes"].costs.max()
    assert parse_budget("60%-macs", found).limits["macs"] == 0.6 * found["macs"].costs.max()


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("[8, 12, 16]", "[12, 8]", r"stages.0.channels: list 2 to 8 different widths, the narrowest first"),
        ("[8, 12, 16]", "[8]", "stages.0.channels: list 2 to 8 different widths"),
        ("[8, 12, 16]", "[8, 0]", "stages.0.channels: give a number from 1 to 4096, or a list of such numbers"),
        ("  k5_e3:", "  w24:", r"candidates.w24: the name is taken"),
        (
            "conv_bn_relu6_1x1, channels: 24",
            "global_avg_pool",
            "the last stage has several widths, and the head begins",
        ),
        ("{kernel: 5, expand: 3}", "{op: nor_conv_3x3}", "candidate k5_e3 begins with relu"),
    ],
)
def test_wrong_files_are_refused(before: str, after: str, words: str) -> None:
    text = WIDTHS.replace(before, after, 1)
    assert text != WIDTHS
    with pytest.raises(HwnasError, match=words):
        small_chain(text.replace("[k3_e2, k5_e3]", "[k3_e2]"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k3_e1 skip k5_e3 k3_e2 skip", "not an architecture of space widths"),
        ("w24 k3_e1 skip k5_e3 w24 k3_e2 skip", "choice 1 does not offer w24; it offers w8, w12, w16"),
        (f"{WORDS} head", "not an architecture of space widths"),
    ],
)
def test_wrong_architectures_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError, match=words) as error:
        SPACE.parse(text)
    assert "head" not in str(error.value.fix)
