"""Plots of tables."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from PIL import Image

from hwnas.spaces import SizedSpace
from hwnas.tables.plot import plot_table
from hwnas.text import short_number
from support.command import Run, assert_one_clear_line
from support.paths import FROZEN_TABLES
from support.spaces import NB201, SMALL
from support.table_samples import NETWORK, V1, V2, entry_of, save, table_of
from support.tables import make_table

pytestmark = pytest.mark.usefixtures("pictures")


@pytest.mark.slow
def test_a_table_is_drawn_as_png_and_svg(run: Run, tmp_path: Path) -> None:
    table = make_table(SizedSpace(NB201, SMALL["nasbench201"]))
    file = save(tmp_path / "t.json", table)
    for suffix in ("png", "svg"):
        result = run("table", "show", file, "--plot", tmp_path / f"t.{suffix}")
        assert result.exit_code == 0, result.output
        assert f"picture: {tmp_path / f't.{suffix}'}" in result.stdout
    with Image.open(tmp_path / "t.png") as image:
        assert min(image.size) > 300
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > len(table.entries)
    root = ElementTree.parse(tmp_path / "t.svg").getroot()
    assert root.tag.endswith("svg")
    comments = (tmp_path / "t.svg").read_text()
    for op in {entry.op for entry in table.entries} | {"16→10, 4×4", "latency, µs"}:
        assert f"<!-- {op} -->" in comments
    first = (tmp_path / "t.svg").read_bytes()
    plot_table(table, tmp_path / "t.svg")
    assert (tmp_path / "t.svg").read_bytes() == first


def test_costs_by_edge_are_drawn_and_printed(run: Run, tmp_path: Path) -> None:
    result = run("table", "show", FROZEN_TABLES / "v2.json", "--plot", tmp_path / "t.svg")
    assert result.exit_code == 0
    assert "0.4141 ± 0.0156" in result.stdout  # 2→3, nor_conv_3x3: live 0.40625, always 0.0078125
    assert "2→3" in result.stdout
    assert "latency ms" not in result.stdout  # it has no entries to list
    drawn = (tmp_path / "t.svg").read_text()
    for label in ("2→3", "nor_conv_3x3", "414", f"{NETWORK}, cell: costs of live edges"):
        assert f"<!-- {label} -->" in drawn


def test_special_characters_in_names_are_drawn_literally(tmp_path: Path) -> None:
    strange = table_of(
        entry_of("$\\frac{1$", ms=0.0),
        entry_of("$x^2$\n\x1b[2J", ms=1e-9),
        entry_of("名", ms=1e9),
        device=V1.device.model_copy(update={"name": "A $\\frac{5$ board & <co>"}),
        version=2,
        edge_costs={"$\\frac{n$": V2.edge_costs[NETWORK]},
    )
    plot_table(strange, tmp_path / "t.svg")
    drawn = (tmp_path / "t.svg").read_text()
    ElementTree.fromstring(drawn)
    assert "\x1b" not in drawn


def test_a_table_too_large_for_a_picture_is_refused(run: Run, tmp_path: Path) -> None:
    ops = [entry_of(f"op{number}") for number in range(501)]
    file = save(tmp_path / "t.json", table_of(*ops))
    assert_one_clear_line(
        run("table", "show", file, "--plot", tmp_path / "t.png"), "too large for one picture", "export"
    )
    assert_one_clear_line(run("table", "show", file, "--plot", tmp_path / "t.gif"), "t.gif", ".png or .svg")
    empty = save(tmp_path / "e.json", table_of())
    assert_one_clear_line(run("table", "show", empty, "--plot", tmp_path / "t.png"), "holds no entries")
    assert_one_clear_line(run("table", "export", empty, "--out", tmp_path / "t.csv"), "holds no entries")
    assert sorted(tmp_path.iterdir()) == [empty, file]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234"), (1e6, "1e+06"), (1e-5, "1e-05")],
)
def test_numbers_in_pictures_are_short(value: float, text: str) -> None:
    assert short_number(value) == text


@pytest.mark.slow
def test_many_sizes_are_split_over_several_heat_maps(tmp_path: Path) -> None:
    many = [entry_of(channels=channels, side=side) for channels in range(1, 12) for side in range(1, 9)]
    plot_table(table_of(*many), tmp_path / "t.svg")
    drawn = (tmp_path / "t.svg").read_text()
    assert all(drawn.count(f"<!-- {e.in_channels}, {e.height}×{e.width} -->") == 1 for e in many)
