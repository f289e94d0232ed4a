"""Cells in NAS-Bench-201's notation as logs and programs write them."""

from __future__ import annotations

import pytest

from hwnas.errors import HwnasError
from hwnas.spaces import Cell
from hwnas.spaces.notation import Notation
from support.spaces import ALL_CONV, NB201

OTHER = ALL_CONV.replace("nor_conv_3x3~2", "skip_connect~2")
LISTS = [tuple(("nor_conv_3x3", source) for source in range(node)) for node in (1, 2, 3)]


@pytest.mark.parametrize(
    "text",
    [
        ALL_CONV,
        f"  '{ALL_CONV}'\n",
        f'"{ALL_CONV}",',
        ALL_CONV.replace("+", " + "),
        ALL_CONV.replace("+", "+\n").replace("|nor", "| nor"),
        f"Structure(4 nodes with {ALL_CONV})",
        f"[2020-01-02 10:11:12] [cifar10-valid] best arch is [{ALL_CONV}], test_acc is [[94.56, 94.36]]",
        f"epoch 3 | loss 0.21 | arch={ALL_CONV} | acc 94.4",
        f'{{"arch": "{ALL_CONV}", "accuracy": 94.4}}',
        f"{ALL_CONV} -> {ALL_CONV}",
        str(LISTS),
        f"arch_list = {[list(map(list, node)) for node in LISTS]}",
    ],
)
def test_what_surrounds_a_cell_is_left_out(text: str) -> None:
    assert NB201.parse(text) == NB201.parse(ALL_CONV)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{ALL_CONV} then {OTHER}", "holds 2 architectures"),
        (f"{ALL_CONV}|", "not a NAS-Bench-201 architecture"),
        (f"{ALL_CONV}+|none~0|", "not a NAS-Bench-201 architecture"),
        (f"{ALL_CONV} nor_conv_3x3~0", "not a NAS-Bench-201 architecture"),
        (ALL_CONV[:-1], "not a NAS-Bench-201 architecture"),
        (str(LISTS[:2]), "not a NAS-Bench-201 architecture"),
        ("[(3, 0), (1, 2)]", "not a NAS-Bench-201 architecture"),
        ("(4, 0, 3, 1, 4, 3)", "not a NAS-Bench-201 architecture"),
    ],
)
def test_parts_of_something_else_are_refused(text: str, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        NB201.parse(text)


def test_several_cells_are_found_by_their_names() -> None:
    cell = Cell(1, 2, ((0, 1), (0, 2), (1, 2)), (2,))
    notation = Notation("pair", {"normal": cell, "reduce": cell}, "a")
    text = "normal:|a~0|+|a~0|b~1|;reduce:|b~0|+|a~0|a~1|"
    expected = (("a", "a", "b"), ("b", "a", "a"))
    assert notation.parse(text) == expected
    assert notation.parse(f"step 9 best '{text.replace(';', ' ; ').replace(':', ' : ')}' loss 0.1") == expected
    with pytest.raises(HwnasError, match="not an architecture of space pair"):
        notation.parse(text.replace("reduce", "other"))
