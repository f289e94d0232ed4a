"""Spaces: notations, published counts, liveness of edges."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwnas.errors import HwnasError
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.spaces import Architecture, SizedSpace
from hwnas.spaces.darts import is_top2
from support.command import Run, assert_one_clear_line
from support.paths import SHARED
from support.spaces import ALL_CONV, CELL_SPACES, DARTS, NB201, architectures, live_by_paths


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "setting", "params", "macs"),
    [
        ("DARTS_V1", "cifar", 3_169_414, 510_977_664),
        ("DARTS_V2", "cifar", 3_349_342, 539_123_328),
        ("SNAS_MODERATE", "snas-cifar", 2_848_222, 448_299_648),
        ("DARTS_V1", "imagenet-mobile", 4_510_432, 513_616_896),
        ("DARTS_V2", "imagenet-mobile", 4_718_752, 538_190_592),
    ],
)
def test_darts_networks_have_the_published_counts(architecture: str, setting: str, params: int, macs: int) -> None:
    sizes = DARTS.setting(setting)
    counts = count_network(ChildNetwork(SizedSpace(DARTS, sizes), DARTS.parse(architecture)))
    assert (counts.params, counts.macs_fvcore) == (params, macs)


def test_nasbench201_network_has_the_published_counts() -> None:
    sizes = NB201.setting("cifar")
    counts = count_network(ChildNetwork(SizedSpace(NB201, sizes), NB201.parse(ALL_CONV)))
    assert (counts.params, counts.macs_conv_linear) == (1_531_546, 220_119_690)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "params", "macs"),
    [
        (["--space", "darts", "--architecture", "DARTS_V2", "--channels", 36, "--layers", 20], 3_349_342, 539_123_328),
        (
            ["--space", "darts", "--architecture", "SNAS_MODERATE", "--channels", 36, "--layers", 20],
            2_848_222,
            448_299_648,
        ),
        (["--space", "darts", "--architecture", "DARTS_V1", "--setting", "imagenet-mobile"], 4_510_432, 513_616_896),
        (["--space", "nasbench201", "--architecture", ALL_CONV], 1_531_546, 220_119_690),
    ],
)
def test_space_count_prints_the_published_counts(run: Run, arguments: list, params: int, macs: int) -> None:
    printed = json.loads(run("space", "count", *arguments, "--json").stdout)
    assert (printed["params"], printed["macs"]) == (params, macs)


@pytest.mark.slow
def test_published_genotype_text_counts_like_its_name(run: Run) -> None:
    text = DARTS.published["SNAS_MODERATE"]
    printed = json.loads(run("space", "count", "--space", "darts", "--architecture", text, "--json").stdout)
    assert printed["params"] == 2_848_222


@given(architectures("nasbench201"))
def test_nasbench201_notation_round_trips(architecture: Architecture) -> None:
    assert NB201.parse(NB201.format(architecture)) == architecture


@given(architectures("darts"), st.booleans())
def test_darts_notation_round_trips(architecture: Architecture, all_edges: bool) -> None:
    assert DARTS.parse(DARTS.format(architecture, all_edges)) == architecture


def test_darts_top2_form_is_printed_when_there_is_one() -> None:
    v2 = DARTS.parse("DARTS_V2")
    assert is_top2(v2.cells)
    assert "none" not in DARTS.format(v2)
    assert DARTS.format(v2, all_edges=True).count("none") == 12
    assert DARTS.evaluation_setting(DARTS.format(v2)) == "cifar"
    assert DARTS.evaluation_setting(DARTS.format(v2, all_edges=True)) == "snas-cifar"


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the published accuracies are not beside this checkout")
def test_every_published_nasbench201_string_parses() -> None:
    with gzip.open(SHARED / "nb201_accuracy.csv.gz", "rt") as file:
        strings = [row["arch"] for row in csv.DictReader(file)]
    parsed = {NB201.parse(text) for text in strings}
    assert len(parsed) == NB201.num_architectures == 15_625
    assert all(NB201.format(NB201.parse(text)) == text for text in strings)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|nor_conv_3x3~0|",
        ALL_CONV.replace("nor_conv_3x3~2", "warp_drive~2"),
        ALL_CONV.replace("~2", "~1"),
        ALL_CONV + "|",
        "Genotype(normal=[])",
    ],
)
def test_malformed_nasbench201_strings_are_refused(run: Run, text: str) -> None:
    assert_one_clear_line(run("space", "count", "--architecture", text))


@pytest.mark.parametrize(
    "text",
    [
        "DARTS_V9",
        "Genotype()",
        "Genotype(normal=[('sep_conv_3x3', 0)], reduce=[])",
        DARTS.published["DARTS_V2"].replace("sep_conv_3x3", "warp_drive"),
        DARTS.published["DARTS_V2"].replace("('dil_conv_3x3', 2)", "('dil_conv_3x3', 5)"),
        DARTS.published["DARTS_V2"].replace("normal_concat=[2, 3, 4, 5]", "normal_concat=[4, 5]"),
        "Genotype(normal=__import__('os').getcwd(), reduce=[])",
        "(" * 5000,
    ],
)
def test_malformed_genotypes_are_refused(run: Run, text: str) -> None:
    assert_one_clear_line(run("space", "count", "--space", "darts", "--architecture", text))


@given(st.sampled_from(sorted(CELL_SPACES)).flatmap(architectures))
def test_live_edges_are_those_on_a_path(architecture: Architecture) -> None:
    for cell, operations in zip(CELL_SPACES[architecture.space].cells.values(), architecture.cells, strict=True):
        assert cell.live_edges(operations) == live_by_paths(cell, operations)


def test_settings_and_spaces_that_do_not_exist_are_refused(run: Run) -> None:
    assert_one_clear_line(run("space", "show", "--space", "mars"), "mars", "nasbench201")
    assert_one_clear_line(run("space", "count", "--architecture", ALL_CONV, "--setting", "huge"), "huge")
    with pytest.raises(HwnasError, match="at least 1"):
        NB201.setting("cifar", channels=0)
    with pytest.raises(HwnasError, match="too small"):
        _ = SizedSpace.named(DARTS, "imagenet-mobile", height=2, width=2).network
