"""Spaces of recurrent cells: their notation, published cells and sizes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given

from hwnas.errors import HwnasError
from hwnas.spaces import HIDDEN, Architecture, SizedSpace, get_space
from hwnas.spaces.recurrent import DARTS_V2
from hwnas.tables.network_key import describe_key
from support.text import RECURRENT, RECURRENT_DARTS, recurrent_cells

CELL = "|tanh~0|+|none~0|relu~1|+|identity~0|none~1|sigmoid~2|"


def test_the_spaces_have_the_papers_nodes_and_edges() -> None:
    assert [(len(s.cells["cell"].edges), s.cells["cell"].num_nodes) for s in (RECURRENT, RECURRENT_DARTS)] == [
        (6, 3),
        (36, 8),
    ]
    assert RECURRENT.num_architectures == 5**6
    assert RECURRENT.cells["cell"].edges == get_space("nasbench201").cells["cell"].edges


@given(recurrent_cells())
def test_every_architecture_reads_back(architecture: Architecture) -> None:
    for all_edges in (False, True):
        assert RECURRENT.parse(RECURRENT.format(architecture, all_edges)) == architecture


def test_published_cells_are_written_as_in_the_darts_code() -> None:
    """The expected edges are those of the pairs: node i+1 reads the node that pair i names."""
    architecture = RECURRENT_DARTS.parse("DARTS_V2")
    edges = RECURRENT_DARTS.cells["cell"].edges
    used = {edge: op for edge, op in zip(edges, architecture.cells[0], strict=True) if op != "none"}
    pairs = re.findall(r"\('(\w+)', (\d)\)", DARTS_V2)
    assert used == {(int(source), node): op for node, (op, source) in enumerate(pairs, 1)}
    assert RECURRENT_DARTS.format(architecture) == DARTS_V2
    assert "none" in RECURRENT_DARTS.format(architecture, all_edges=True)


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(recurrent=[('tanh', 0), ('tanh', 1)], concat=range(1, 4))",
        "Genotype(recurrent=[('tanh', 0), ('tanh', 2), ('tanh', 1)], concat=range(1, 4))",
        "Genotype(recurrent=[('tanh', 'x')], concat=range(1, 4))",
        "Genotype(recurrent=[('tanh', 0)",
        "|tanh~0|+|tanh~0|",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(HwnasError, match="not an architecture of space recurrent"):
        RECURRENT.parse(text)


def test_an_operation_of_images_is_refused() -> None:
    with pytest.raises(HwnasError, match="unknown operation 'nor_conv_3x3'"):
        RECURRENT.parse(CELL.replace("relu", "nor_conv_3x3"))


def test_sizes_of_images_are_refused() -> None:
    problems = {"depth": "have one cell, not 3", "image_channels": "not images of 3x1x1", "height": "images of 1x3x1"}
    for name, problem in problems.items():
        with pytest.raises(HwnasError, match=problem):
            assert SizedSpace.named(RECURRENT, **{name: 3}).network


def test_a_network_is_that_of_one_word() -> None:
    sized = SizedSpace.named(RECURRENT, channels=16, classes=100)
    assert [part.inputs for part in sized.network.parts] == [(-1,), (0, HIDDEN), (1,), (2,)]
    assert sized.key == "recurrent/16x1/1x1x1/100/words"
    assert describe_key(sized.key) == "recurrent 16, 100 words"
    assert sized.describe() == "recurrent, 16 channels, 100 words"
    assert sized.network.head.out_channels == 100
