"""Graphs of cells: an order in which every node is complete before it is used, valid graphs, and what is held out."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

from hwnas.errors import HwnasError
from hwnas.latent.graphs import CellGraphs, require_cells
from hwnas.spaces.encoding import every_choice
from support.chains import small_chain
from support.small_spaces import EVERY, SPACES, obeys
from support.spaces import CELL_SPACES

ALL = {**CELL_SPACES, **SPACES}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_node_is_complete_before_an_edge_leaves_it(name: str, reverse: bool) -> None:
    graphs = CellGraphs(ALL[name])
    steps = graphs.reversed_steps if reverse else graphs.steps
    graph = networkx.DiGraph((step.source, step.target) for step in steps)
    assert networkx.is_directed_acyclic_graph(graph)
    assert networkx.is_weakly_connected(graph)
    assert sorted(graph.nodes) == list(range(graphs.nodes))
    assert sorted(step.edge for step in steps if step.edge is not None) == list(range(graphs.space.num_edges))
    for number, step in enumerate(steps):
        assert step.source not in {later.target for later in steps[number:]}


def test_the_reversed_graph_has_every_edge_turned() -> None:
    graphs = CellGraphs(CELL_SPACES["darts"])
    turned = {(step.target, step.source, step.edge) for step in graphs.reversed_steps}
    assert turned == {(step.source, step.target, step.edge) for step in graphs.steps}


@pytest.mark.parametrize(("name", "inputs_per_node"), [("skip and conv", None), ("skip and conv", 1), ("convs", 2)])
def test_valid_graphs_are_those_of_a_list_by_hand_and_draws_meet_all(name: str, inputs_per_node: int | None) -> None:
    graphs = CellGraphs(SPACES[name], inputs_per_node)
    mask = obeys(name, inputs_per_node)
    np.testing.assert_array_equal(graphs.valid(EVERY[name]), mask)
    drawn = graphs.sample(30_000, np.random.default_rng(0))
    assert graphs.valid(drawn).all()
    if mask.sum() < 2000:
        assert len(np.unique(drawn, axis=0)) == mask.sum()


def test_operations_that_are_left_out_are_in_no_graph() -> None:
    graphs = CellGraphs(CELL_SPACES["nasbench201"], without=("none", "avg_pool_3x3"))
    found = {tuple(row) for row in graphs.sample(20_000, np.random.default_rng(0)).tolist()}
    operations = graphs.space.operations
    used = {operations[o] for row in found for o in row}
    assert used == {"skip_connect", "nor_conv_1x1", "nor_conv_3x3"}
    assert len(found) == 3**6
    with pytest.raises(HwnasError, match="hardly any architecture of space nasbench201") as error:
        CellGraphs(graphs.space, without=operations).sample(5, np.random.default_rng(0))
    assert "inputs_per_node or without" in error.value.fix


@pytest.mark.parametrize(("name", "inputs_per_node"), [("nasbench201", None), ("darts", 2)])
def test_held_out_graphs_are_never_learnt_from(name: str, inputs_per_node: int | None) -> None:
    graphs = CellGraphs(CELL_SPACES[name], inputs_per_node)
    held_out = {row.tobytes() for row in graphs.held_out}
    epochs = [graphs.training(500, 0, epoch) for epoch in range(2)]
    assert graphs.valid(graphs.held_out).all()
    for epoch in epochs:
        assert graphs.valid(epoch).all()
        assert held_out.isdisjoint(row.tobytes() for row in epoch)
    first, second = ({row.tobytes() for row in epoch} for epoch in epochs)
    assert (first == second) == (name == "nasbench201")  # a large space has new ones in every epoch
    np.testing.assert_array_equal(CellGraphs(graphs.space, inputs_per_node).held_out, graphs.held_out)
    if name == "nasbench201":
        everything = graphs.training(20_000, 1, 0)
        assert len(everything) + len(held_out) == graphs.valid(every_choice(graphs.space)).sum()


def test_graphs_without_dead_edges_are_equal_for_equal_networks() -> None:
    space = CELL_SPACES["nasbench201"]
    texts = [f"|nor_conv_3x3~0|+|none~0|{op}~1|+|skip_connect~0|none~1|none~2|" for op in ("none", "nor_conv_1x1")]
    index = {op: number for number, op in enumerate(space.operations)}
    choices = np.array([[index[op] for op in space.parse(text).cells[0]] for text in texts])
    networks = CellGraphs(space).networks(choices)
    np.testing.assert_array_equal(networks[0], networks[1])
    assert (choices[0] != choices[1]).any()


def test_a_chain_has_no_graphs() -> None:
    with pytest.raises(HwnasError, match="space small is a chain of layers") as error:
        require_cells(small_chain())
    assert "remove autoencoder" in error.value.fix
