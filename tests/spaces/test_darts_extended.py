"""The extended DARTS space: its operations against others' arithmetic, its notation, its counts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy.ndimage import maximum_filter

from hwnas.operations import build_operation
from hwnas.spaces import Architecture, Workload, get_space
from hwnas.spaces.darts import is_top2
from support.command import Run, assert_one_clear_line
from support.spaces import DARTS, architectures

SPACE = get_space("darts-extended")


def image(channels: int = 1, height: int = 11, width: int = 14) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_1xk_and_a_kx1_convolution_are_one_whose_kernel_is_their_product(kernel: int, stride: int) -> None:
    module = build_operation(Workload(f"conv_{kernel}x1_1x{kernel}", 1, 1, 11, 14, stride)).double().eval()
    _, along, across, norm = module
    weight = across.weight.flatten()[:, None] * along.weight.flatten()[None, :]
    x, padding = image().relu(), kernel // 2
    expected = torch.nn.functional.conv2d(x, weight[None, None], None, stride, padding)
    torch.testing.assert_close(module(image()), norm(expected), atol=1e-12, rtol=1e-12)
    assert sum(p.numel() for p in module.parameters()) == 2 * kernel + 2


@pytest.mark.parametrize("kernel", [5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_larger_maxima_are_those_of_scipy(kernel: int, stride: int) -> None:
    x = image(3)
    for name in (f"max_pool_{kernel}x{kernel}", f"max_pool_{kernel}x{kernel}_bn"):
        module = build_operation(Workload(name, 3, 3, 11, 14, stride)).double().eval()
        expected = maximum_filter(x.numpy(), (1, 1, kernel, kernel), mode="constant", cval=-np.inf)
        scale = (1 + 1e-5) ** -0.5 if name.endswith("bn") else 1.0  # of a batch norm without statistics
        np.testing.assert_allclose(module(x).detach().numpy(), scale * expected[:, :, ::stride, ::stride], rtol=1e-9)


@given(architectures("darts-extended"))
def test_the_notation_round_trips_in_every_form(architecture: Architecture) -> None:
    for all_edges in (False, True):
        text = SPACE.format(architecture, all_edges)
        assert SPACE.parse(text) == architecture
        assert SPACE.evaluation_setting(text) == "cifar"
    cells = {}
    for kind, operations in zip(SPACE.cells, architecture.cells, strict=True):
        cell = SPACE.cells[kind]
        cells[kind] = [
            [(operations[e], cell.edges[e][0]) for e in cell.edges_into(node) if operations[e] != "none"]
            for node in cell.inner_nodes
        ]
    assert SPACE.parse(json.dumps(cells)) == architecture


def test_an_empty_node_is_no_architecture_of_the_space(run: Run) -> None:
    normal, reduce = DARTS.parse("SNAS_MODERATE").cells
    empty = DARTS.format(DARTS.architecture((normal, (*reduce[:5], *["none"] * 9))))
    command = ("space", "count", "--space", "darts-extended", "--channels", 4, "--layers", 3, "--architecture")
    assert_one_clear_line(run(*command, empty), "node 4 has 0 inputs and needs at least 1", "darts-extended")
    three = [[("conv_7x1_1x7", 0)], [("none", 0)], [("skip_connect", 1)]]
    text = f"Genotype(normal={three}, reduce={three})"
    assert_one_clear_line(run(*command, text), "the normal cell has nodes with 1, 1, 1 inputs", "give 4 nodes")


@pytest.mark.slow
def test_the_networks_of_darts_are_in_the_space(run: Run) -> None:
    command = ("space", "count", "--space", "darts-extended", "--architecture", "DARTS_V2", "--json")
    printed = json.loads(run(*command).stdout)
    assert (printed["params"], printed["macs"]) == (3_349_342, 539_123_328)
    assert is_top2(SPACE.parse("DARTS_V2").cells)
    # Each node has any set but the empty one: of 14 operations on each of 2 to 5 edges, or none.
    assert SPACE.num_architectures == ((15**2 - 1) * (15**3 - 1) * (15**4 - 1) * (15**5 - 1)) ** 2
    assert "every node has at least 1 input" in run("space", "show", "--space", "darts-extended").stdout
