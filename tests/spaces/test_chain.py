"""Chains of layers as data: offers, notation, user files, sampling, and exact derivation."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwnas.budgets import derive as derivation
from hwnas.budgets.derive import derive, derive_best, follows_rules, scores
from hwnas.cost.memory import memory_access_model
from hwnas.cost.peak import peak_model
from hwnas.errors import HwnasError
from hwnas.spaces import FixedModule, SizedSpace, get_space
from hwnas.spaces.encoding import decode, encode, every_choice, offered, possible, random_choices
from hwnas.spaces.space_files import parse_space
from hwnas.tables.network_key import choose_network, networks_of
from hwnas.tables.schema import Correction
from support.chains import SMALL, small_chain
from support.tables import make_table
from support.torchvision_models import make_divisible

SPACE = small_chain()
PROXYLESS = """
name: mine
stem:
  - {op: conv_bn_relu6_3x3, channels: 32, stride: 2}
  - {op: mbconv_3x3_e1_r6, channels: 16}
candidates:
  k3_e3: {kernel: 3, expand: 3}
  k3_e6: {kernel: 3, expand: 6}
  k5_e3: {kernel: 5, expand: 3}
  k5_e6: {kernel: 5, expand: 6}
  k7_e3: {kernel: 7, expand: 3}
  k7_e6: {kernel: 7, expand: 6}
stages:
  - {channels: 24, layers: 4, stride: 2, activation: relu6, skips: any}
  - {channels: 40, layers: 4, stride: 2, activation: relu6, skips: any}
  - {channels: 80, layers: 4, stride: 2, activation: relu6, skips: any}
  - {channels: 96, layers: 4, activation: relu6, skips: any}
  - {channels: 192, layers: 4, stride: 2, activation: relu6, skips: any}
  - {channels: 320, layers: 1, activation: relu6, skips: any}
head:
  - {op: conv_bn_relu6_1x1, channels: 1280}
  - {op: pool_linear}
settings:
  large: {height: 224, width: 224, classes: 1000}
"""


def test_a_file_defines_what_a_built_in_space_is() -> None:
    mine, theirs = parse_space("mine.yaml", PROXYLESS), get_space("proxylessnas")
    assert (mine.operations, mine.cells, mine.is_chain) == (theirs.operations, theirs.cells, True)
    assert SizedSpace.named(mine).network == SizedSpace.named(theirs, "imagenet").network
    assert get_space("nasbench201").is_chain is False


def test_layers_have_their_own_sizes_and_offers() -> None:
    network = SizedSpace.named(SPACE, "tiny").network
    (layers,) = network.cell_instances("chain")
    found = [[w.key if w else None for w in layer.values()] for layer in layers.candidates]
    first = ["mbconv_3x3_e1_r6_res", "mbconv_5x5_e3_r6_res", "mbconv_3x3_e3_se_hs_res"]  # 2.5 * 8 rounds to 24
    assert found[0] == [None, *(f"{op}-8-8-16x16-s1" for op in first), None]
    assert found[1:3] == found[:1] * 2
    assert found[3] == [None, "mbconv_3x3_e1_r6-8-16-16x16-s1", "mbconv_5x5_e3_r6-8-16-16x16-s1", None, None]
    assert layers.output_shape == (16, 16, 16)
    assert offered(SPACE).sum(axis=1).tolist() == [3, 4, 4, 2, 3]
    large = SizedSpace.named(SPACE, "large").network
    assert [w.key for w in large.fixed_workloads()] == [
        "conv_bn_relu6_3x3-3-16-32x32-s2", "conv_bn_relu6_1x1-32-48-8x8-s1", "pool_linear-48-10-8x8-s1",
    ]  # fmt: skip
    with pytest.raises(HwnasError, match="this space has 5 layers, not 4"):
        _ = SizedSpace.named(SPACE, depth=4).network


def test_depth_is_the_number_of_layers_before_the_skipped_ones() -> None:
    choices = every_choice(SPACE)
    assert len(choices) == SPACE.num_architectures == 3 * (1 + 3 * (1 + 3)) * 2 * 3
    assert len(np.unique(choices, axis=0)) == len(choices)
    assert SPACE.cells["chain"].skipped_last == ((1, 2),)
    with pytest.raises(HwnasError, match="layer 2 is skip_connect, but layer 3 after it in its stage is not"):
        SPACE.parse("k3_e1 skip k3_e1 k3_e1 k3_e1")
    with pytest.raises(HwnasError, match="layer 4 does not offer se; it offers k3_e1, k5_e3"):
        SPACE.parse("k3_e1 k3_e1 k3_e1 se k3_e1")
    with pytest.raises(HwnasError, match=r"not an architecture of space small: 'k3_e1'.*write 5 layers") as refused:
        SPACE.parse("k3_e1")
    assert "k3_e1, k5_e3, se, skip" in str(refused.value)
    assert SPACE.parse("['k3_e1', 'k5_e3', 'skip', 'k3_e1', 'skip']") == decode(SPACE, encode(SPACE, [
        SPACE.parse("k3_e1 k5_e3 skip k3_e1 skip")
    ])[0])  # fmt: skip


def test_architectures_are_drawn_uniformly() -> None:
    drawn = random_choices(SPACE, 20_000, np.random.default_rng(0))
    assert possible(SPACE, drawn).all()
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    expected = 20_000 / SPACE.num_architectures
    assert len(counts) == SPACE.num_architectures
    assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-squared with 233 degrees of freedom: p = 1e-6


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1))
def test_derivation_by_integer_program_is_exact(seed: int, share: float) -> None:
    sized = SizedSpace.named(SPACE, "tiny")
    model, choices = memory_access_model(sized), every_choice(SPACE)
    costs = model.predict_many(choices)
    limits = {model.metric: (model, float(np.quantile(costs, share)))}
    log_p = {"chain": np.log(np.random.default_rng(seed).dirichlet(np.ones(5), size=5))}
    within = choices[(costs <= limits[model.metric][1]) & follows_rules(SPACE, choices, None)]
    values = np.sort(-scores(SPACE, log_p, within))[:3]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(derivation, "ENUMERABLE", 0)
        found = derive_best(SPACE, log_p, limits, None, 3)
    assert np.allclose(-scores(SPACE, log_p, encode(SPACE, found)), values, atol=1e-6)


def test_peak_memory_of_large_chains_is_limited() -> None:
    sized = SizedSpace.named(get_space("mobilenetv3"))
    model = peak_model(sized)
    log_p = {"chain": np.tile(np.linspace(-1, 0, 11), (20, 1))}
    usual = np.median(model.predict_many(random_choices(sized.space, 50, np.random.default_rng(0))))
    found = derive(sized.space, log_p, {model.metric: (model, float(usual))})
    assert model.predict(found) <= usual


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("least: 1", "least: 9", "least 9 is more than its 3 layers"),
        ("skips: last, least: 1", "least: 2", "add skips: last"),
        ("candidates: [k3_e1, k5_e3]", "candidates: [k9]", r"stages.1.candidates: there is no candidate k9"),
        ("{kernel: 5, expand: 3}", "{kernel: 4}", "kernel 4 is even"),
        ("{kernel: 5, expand: 3}", "{kernel: 3}", "k3_e1 are the same"),
        ("{kernel: 5, expand: 3}", "{op: sep_conv}", "sep_conv is not a registered operation"),
        ("{kernel: 5, expand: 3}", "{kernel: 5, op: nor_conv_3x3}", "give a kernel"),
        ("  k5_e3:", "  forward:", "the name is taken"),
        ("  - {op: pool_linear}\n", "", "it ends with one of pool_linear, linear"),
        ("conv_bn_relu6_3x3", "nor_conv_3x3", "is no layer of a stem or a head"),
        ("{kernel: 5, expand: 3}", "{kernel: 5, groups: 3}", "3 groups do not divide 8 and 8 channels"),
        ("conv_bn_relu6_1x1", "mbconv_3x3_e1_res", "leave out _res"),
        ("height: 16, width: 16", "height: 0, width: 16", "settings.tiny.height"),
    ],
)
def test_wrong_files_are_refused(before: str, after: str, words: str) -> None:
    assert before in SMALL
    with pytest.raises(HwnasError, match=words):
        parse_space("wrong.yaml", SMALL.replace(before, after))


@pytest.mark.parametrize("multiplier", [0.5, 0.75, 1.0, 1.2, 1.4])
def test_a_chain_at_a_multiple_of_its_widths(multiplier: float) -> None:
    usual, found = get_space("mobilenetv3"), get_space(f"mobilenetv3-w{multiplier}")
    networks = [SizedSpace.named(space, "imagenet").network for space in (usual, found)]
    pairs = list(zip(*(network.parts for network in networks), strict=True))
    fixed = [(one.workload, other.workload) for one, other in pairs if isinstance(one, FixedModule)]
    (cells,) = ((one.candidates, other.candidates) for one, other in pairs if not isinstance(one, FixedModule))
    layers = [(one["k3_e6"], other["k3_e6"]) for one, other in zip(*cells, strict=True)]
    for one, other in (*fixed[:-1], *layers):
        assert other.out_channels == make_divisible(one.out_channels * multiplier, 8)
    if multiplier == 1.2:  # ofa_mbv3_d234_e346_k357_w1.2
        widths = [24, 24, *np.repeat([32, 48, 96, 136, 192], 4), 1152, 1152, 1536]
        assert [w.out_channels for _, w in (*fixed[:2], *layers, *fixed[2:-1])] == widths
    assert (found.cells, found.operations) == (usual.cells, usual.operations)
    assert pickle.loads(pickle.dumps(found)) is found


def test_networks_of_a_scaled_chain_are_found_by_their_names_in_tables() -> None:
    sized = [SizedSpace.named(get_space("proxylessnas-w0.35"), height=side, width=side) for side in (32, 48)]
    correction = {network.key: Correction(offset_ms=0, scale=1, networks=1) for network in sized}
    table = make_table(sized[0], more=sized[1].network.workloads()).model_copy(update={"correction": correction})
    assert networks_of(table) == sized
    assert choose_network(table, None, None, height=48, width=48) == sized[1]


@pytest.mark.parametrize("name", ["mobilenetv3", "proxylessnas", "fbnet"])
def test_several_multiples_are_widths_to_choose_from(name: str) -> None:
    several, middle = get_space(f"{name}-w0.5-1.0-1.25"), SizedSpace.named(get_space(name))
    sized = SizedSpace.named(several)
    fixed, expected = (list(network.fixed_workloads()) for network in (sized.network, middle.network))
    assert fixed == [w for w in expected if not re.fullmatch("conv_bn_.*_1x1", w.op)]  # the head's first layer
    usual = middle.network.workloads()
    assert set(usual) <= set(sized.network.workloads())
    words = several.format(decode(several, random_choices(several, 1, np.random.default_rng(0))[0])).split()
    offers = [ops for ops in several.cells["chain"].offers or () if ops[0].startswith("w")]
    assert all(len(ops) in (2, 3) for ops in offers)
    assert len(words) == middle.setting.depth + len(offers)


@pytest.mark.parametrize(
    "name", ["mobilenetv3-w1.2-1.0", "mobilenetv3-w2", "mobilenetv3-w0.0", "mobilenetv3-w1.20", "darts-w1.2"]
)
def test_other_multiples_are_no_spaces(name: str) -> None:
    with pytest.raises(HwnasError, match=f"unknown space '{name}'"):
        get_space(name)
