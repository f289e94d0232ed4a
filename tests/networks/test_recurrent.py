"""Networks of recurrent cells: against a plain loop in torch, the supernet, fvcore, and ONNX Runtime over sequences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from hwnas.cost.build import build_metrics
from hwnas.export.network import export_network, file_network, load_weights, save_weights
from hwnas.networks.child import ChildNetwork
from hwnas.networks.count import count_network
from hwnas.networks.mixed_cell import Mixed
from hwnas.networks.steps import zeros
from hwnas.networks.supernet import Supernet
from hwnas.operations import build_operation
from hwnas.profiling.assemble import assemble_onnx
from hwnas.profiling.models import Repeated, Whole
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.spaces import Architecture, SizedSpace, Workload, operation_of
from hwnas.spaces.operation import counted_layers, input_shapes
from support.tables import make_table
from support.text import RECURRENT, RECURRENT_DARTS, recurrent_cells, small_sized

SIZED = small_sized()
SUPERNET = Supernet(SIZED).eval()
WORDS = torch.randint(SIZED.setting.classes, (3, 6), generator=torch.Generator().manual_seed(0))
KINDS = {
    "MatMul": "linear", "Gemm": "linear", "Sigmoid": "activation", "Tanh": "activation", "Relu": "relu", "Add": "add",
    "Concat": "join", "Sub": "other", "Mul": "other", "Gather": "other",
}  # fmt: skip
MIXED = "|tanh~0|+|sigmoid~0|relu~1|+|identity~0|none~1|tanh~2|"


def plain_scores(child: ChildNetwork, words: Tensor) -> Tensor:
    """Return scores [N, T, words] of a cell with one edge a node, as DARTS's code computes them."""
    _, state, cell, decoder = child.parts
    weight, chosen = decoder.weight, child.architecture.cells[0]
    hidden, scores = torch.zeros(len(words), 8), []
    for t in range(words.shape[1]):
        both = torch.cat([weight[words[:, t]], hidden], dim=1)
        new = torch.tanh(both @ state.update.weight.T)
        nodes = [hidden + torch.sigmoid(both @ state.gate.weight.T) * (new - hidden)]
        for node in range(1, 9):
            e = next(e for e in RECURRENT_DARTS.cells["cell"].edges_into(node) if chosen[e] != "none")
            s, edge = nodes[RECURRENT_DARTS.cells["cell"].edges[e][0]], cell.edges[str(e)]
            new = s @ edge.update.weight.T
            new = new if chosen[e] == "identity" else getattr(torch, chosen[e])(new)
            nodes.append(s + torch.sigmoid(s @ edge.gate.weight.T) * (new - s))
        hidden = torch.stack(nodes[1:]).mean(dim=0)
        scores.append(hidden @ weight.T + decoder.bias)
    return torch.stack(scores, dim=1)


def test_darts_cell_computes_what_a_plain_loop_does() -> None:
    torch.manual_seed(0)
    child = ChildNetwork(small_sized("recurrent-darts"), RECURRENT_DARTS.parse("DARTS_V2"), prune=True)
    torch.testing.assert_close(child(WORDS).view(3, 6, -1), plain_scores(child, WORDS))


@settings(max_examples=40, deadline=None)
@given(recurrent_cells())
def test_a_child_computes_what_the_supernet_does(architecture: Architecture) -> None:
    with torch.no_grad():
        child = SUPERNET.child(architecture)
        torch.testing.assert_close(child(WORDS), SUPERNET.run_architecture(WORDS, architecture))


def test_gradients_of_the_weights_of_a_mixture_are_about_the_outputs() -> None:
    """The slope of a drawn gate is the loss's change where the operation's output is scaled, also on an only edge."""
    weights = torch.zeros(6, 5)
    weights[torch.arange(6), torch.tensor([1, 0, 2, 4, 0, 1])] = 1.0
    gates = weights.clone().requires_grad_()
    active = [[int(o)] for o in weights.argmax(dim=1)]
    SUPERNET(WORDS, {"cell": Mixed(gates, active)}).logsumexp(dim=1).sum().backward()
    assert gates.grad is not None
    slopes = (gates.grad * weights).sum(dim=1)
    assert (slopes[[0, 2, 3, 5]] != 0).all()
    assert (slopes[[1, 4]] == 0).all()


@settings(max_examples=15, deadline=None)
@given(recurrent_cells())
def test_counts_are_those_of_the_network(architecture: Architecture) -> None:
    """fvcore counts the whole network; parameters include the shared weights of embedding and decoder once."""
    costs = build_metrics(make_table(SIZED), SIZED)
    counted = count_network(ChildNetwork(SIZED, architecture))
    assert costs["params"].predict(architecture) == counted.params
    assert costs["macs"].predict(architecture) == counted.macs_fvcore
    assert costs["peak_activation_bytes"].predict(architecture) > 0


def test_darts_cell_has_the_published_number_of_parameters() -> None:
    """Liu et al. (ICLR 2019) train cells of 850 units on the Penn Treebank: 23 million parameters."""
    child = ChildNetwork(SizedSpace.named(RECURRENT_DARTS, "ptb"), RECURRENT_DARTS.parse("DARTS_V2"))
    assert sum(p.numel() for p in child.parameters()) / 1e6 == pytest.approx(23, abs=0.05)


@settings(max_examples=10, deadline=None)
@given(recurrent_cells())
def test_onnx_runtime_equals_torch_over_a_sequence(
    tmp_path_factory: pytest.TempPathFactory, architecture: Architecture
) -> None:
    file = tmp_path_factory.mktemp("onnx") / "network.onnx"
    child = ChildNetwork(SIZED, architecture, prune=True).eval()
    export_network(child, file, {})
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [given.name for given in session.get_inputs()] == ["word", "state"]
    with torch.no_grad():
        expected = child(WORDS)
    np.testing.assert_allclose(file_network(file)(WORDS).numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    state, last = np.zeros((3, 8), np.float32), None
    for column in WORDS.numpy().T:
        last, state = session.run(["scores", "next_state"], {"word": column, "state": state})
    np.testing.assert_allclose(last, expected.view(3, 6, -1)[:, -1].numpy(), rtol=1e-4, atol=1e-5)


def test_weights_read_back(tmp_path: Path) -> None:
    """The file has the weights of words once."""
    one, other = (ChildNetwork(SIZED, RECURRENT.parse(MIXED), prune=True) for _ in range(2))
    save_weights(one.state_dict(), tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert torch.equal(one(WORDS), other(WORDS))
    assert [name for name in one.state_dict() if name.startswith(("parts.0", "parts.3"))] == [
        "parts.3.weight",
        "parts.3.bias",
    ]


def test_profiled_networks_have_the_operators_of_exported_ones(tmp_path: Path) -> None:
    """A node with two edges is their mean in both."""
    architecture = RECURRENT.parse(MIXED)
    whole, exported = tmp_path / "whole.onnx", tmp_path / "exported.onnx"
    assemble_onnx(Whole(SIZED, architecture), whole, tmp_path / "pieces")
    export_network(ChildNetwork(SIZED, architecture, prune=True), exported, {})
    graphs = [onnx.load(file).graph for file in (whole, exported)]
    operators = [Counter(node.op_type for node in graph.node if node.op_type != "Constant") for graph in graphs]
    assert operators[0] == operators[1]
    session = onnxruntime.InferenceSession(whole, providers=["CPUExecutionProvider"])
    feeds = {"input0": np.zeros(1, np.int64), "input1": np.zeros((1, 8), np.float32)}
    assert [result.shape for result in session.run(None, feeds)] == [(1, 13), (1, 8)]


@pytest.mark.parametrize("workload", SIZED.network.workloads(), ids=lambda workload: workload.op)
def test_an_operation_is_as_declared(tmp_path: Path, workload: Workload) -> None:
    """Its layers are those of the exported graph; one that is chainable keeps the shape, and so does an elementwise."""
    module, inputs = build_operation(workload).eval(), [zeros(shape) for shape in input_shapes(workload)]
    write_onnx(module, inputs, tmp_path / "operation.onnx")
    nodes = [node.op_type for node in onnx.load(tmp_path / "operation.onnx").graph.node if node.op_type != "Constant"]
    assert Counter(KINDS[node] for node in nodes) == Counter(layer.kind for layer in counted_layers(workload))
    operation = operation_of(workload)
    if operation.chainable:
        assert module(*inputs).shape == inputs[0].shape
    assert operation.elementwise == (operation.chainable and not any("MatMul" in node for node in nodes))


def test_every_workload_is_timed_as_onnx(tmp_path: Path) -> None:
    for workload in SIZED.network.workloads():
        model, file = Repeated(workload, 2), tmp_path / f"{workload.key}.onnx"
        assemble_onnx(model, file, tmp_path / "pieces")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        feeds = {
            given.name: np.zeros((1, *shape), np.float32 if shape else np.int64)
            for given, shape in zip(session.get_inputs(), model.input_shapes(), strict=True)
        }
        results = session.run(None, feeds)
        assert all(result.shape == (1, workload.out_channels) for result in results)
        assert set(model.input_shapes()) == set(input_shapes(workload))
