"""Operations: declarations agree with exported graphs and torch modules; plug-ins register operations."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from hwnas.cost.fusion import entry_holds_piece, fuses_addition, fuses_relu, piece_of, pieces
from hwnas.errors import HwnasError
from hwnas.operations import build_operation
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.spaces import (
    LayerTrace,
    Operation,
    SizedSpace,
    Workload,
    get_operation,
    get_space,
    num_inputs,
    operation_of,
    register,
)
from hwnas.spaces.operation import counted_layers, registered_operations
from support.spaces import NB201, SMALL

CONVOLUTIONS = ["nor_conv_1x1", "nor_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5_d3"]
CONVOLUTIONS += ["mbconv_3x3_e6_res", "mbconv_5x5_e3", "ir_3x3_e1_res", "conv_bn_relu_3x3", "separable_bn_relu_3x3"]
OF_IMAGES = [o.name for o in registered_operations() if o.module is not None and o.reads == "images"]
NAMES = [*OF_IMAGES, *CONVOLUTIONS]  # tests/networks/test_recurrent.py has those of vectors
STRIDES = {"factorized_reduce": 2, "residual_reduction": 2, "stem_imagenet_first": 4, "stem_imagenet_second": 2}
PIECES = {"Relu": "relu", "MaxPool": "max_pool", "AveragePool": "avg_pool"}
KINDS = {
    "Relu": "relu", "Conv": "conv", "MaxPool": "pool", "AveragePool": "pool", "GlobalAveragePool": "pool",
    "BatchNormalization": "norm", "Add": "add", "Concat": "concat", "Gemm": "linear",
}  # fmt: skip


def workload_of(name: str) -> Workload:
    stride, size = STRIDES.get(name, 1), 1 if name == "linear" else 12  # linear stands after a pooling
    return Workload(name, 6, {"concat": 24, "residual_reduction": 12}.get(name, 6), size, size, stride)


def images(workload: Workload) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (1, workload.in_channels, workload.height, workload.width)
    return [torch.randn(shape, generator=generator) for _ in range(num_inputs(workload))]


def operation_that_is(node: onnx.NodeProto) -> str | None:
    """Return the operation that a node is: a ReLU, or a pooling of its kernel."""
    sizes = [attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"]
    name = PIECES.get(node.op_type)
    return f"{name}_{sizes[0][0]}x{sizes[0][1]}" if name and sizes else name


class Graph:
    """The exported ONNX graph of an operation's module, batch norms folded into convolutions by the exporter."""

    def __init__(self, workload: Workload, folder: Path) -> None:
        write_onnx(build_operation(workload), images(workload), folder / "operation.onnx")
        self.graph = onnx.load(folder / "operation.onnx").graph
        self.nodes = [node for node in self.graph.node if node.op_type in KINDS]
        self.writers = {name: node for node in self.graph.node for name in node.output}

    def readers(self) -> set[str | None]:
        """Return the nodes that read the first input by the names of operations; None where there is no such one."""
        return {operation_that_is(node) for node in self.graph.node if self.graph.input[0].name in node.input}

    def kinds_before(self, tensor: str) -> set[str]:
        """Return the kinds of the nearest counted nodes that a tensor comes from."""
        node = self.writers.get(tensor)
        if node is None:
            return set()
        if node.op_type in KINDS:
            return {KINDS[node.op_type]}
        return set().union(*(self.kinds_before(name) for name in node.input))

    def ends(self) -> list[set[str]]:
        """Return the kinds of the last node and of those before it, the last first."""
        tensor, found = self.graph.output[0].name, []
        while tensor in self.writers:
            node = self.writers[tensor]
            if node.op_type in KINDS:
                found.append({KINDS[node.op_type]})
                found.append(set().union(*(self.kinds_before(name) for name in node.input)))
                break
            tensor = node.input[0]
        return found


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_begins_and_ends_as_declared(name: str, tmp_path: Path) -> None:
    operation, graph = get_operation(name), Graph(workload_of(name), tmp_path)
    if operation.chainable:  # heads are not: they begin with a pooling that no cell has
        readers = graph.readers()
        assert operation.begins_with == (readers.pop() if len(readers) == 1 else None)
    for declared, found in zip(reversed(operation.ends_with), graph.ends(), strict=False):
        assert declared.replace("join", "concat") in found


@pytest.mark.parametrize("name", NAMES)
def test_an_operation_s_layers_are_those_of_the_exported_graph(name: str, tmp_path: Path) -> None:
    graph = Graph(workload_of(name), tmp_path)
    exported = Counter(
        KINDS[node.op_type]
        for node in graph.nodes
        # A batch norm behind halves that convolutions write is folded into these.
        if not (node.op_type == "BatchNormalization" and graph.kinds_before(node.input[0]) == {"concat"})
    )
    counted = Counter(layer.kind.replace("join", "concat") for layer in counted_layers(workload_of(name)))
    assert counted == exported


@pytest.mark.parametrize("name", NAMES)
def test_an_elementwise_operation_changes_each_value_by_itself(name: str) -> None:
    workload = workload_of(name)
    module, (first, *others) = build_operation(workload).eval(), images(workload)
    changed = first.clone()
    changed[0, 2, 5 % workload.height, 5 % workload.width] += 3
    with torch.no_grad():
        before, after = module(first, *others), module(changed, *others)
    alone = before.shape == first.shape and (before != after).sum() <= 1 and bool((before == after)[0, 0].all())
    assert get_operation(name).elementwise == alone


@pytest.mark.parametrize("name", NAMES)
def test_a_chainable_operation_s_output_can_be_its_input(name: str) -> None:
    workload = replace(workload_of(name), out_channels=6, stride=1)
    operation = get_operation(name)
    if operation.chainable and name not in STRIDES:
        with torch.no_grad():
            assert build_operation(workload).eval()(*images(workload)).shape == (1, 6, 12, 12)
    else:
        assert name in (*STRIDES, "global_avg_pool") or "linear" in operation.ends_with


def test_candidates_that_change_with_the_network_are_declared() -> None:
    assert get_operation("skip_connect").strided == "factorized_reduce"
    for name in ("max_pool_3x3", "avg_pool_3x3"):
        operation = get_operation(name)
        assert operation.normed
        layers = list(build_operation(workload_of(operation.normed)).children())
        assert type(layers[0]) is type(build_operation(workload_of(name)))
        assert isinstance(layers[1], nn.BatchNorm2d)


def test_names_that_are_not_registered_are_refused() -> None:
    with pytest.raises(HwnasError, match=r"unknown operation 'warp_conv'; use one of none, skip_connect, .*pool"):
        get_operation("warp_conv")


# --- plug-ins ---------------------------------------------------------------------------------------------------------


def build_plain(workload: Workload, affine: bool) -> nn.Module:
    return nn.Sequential(nn.ReLU(), nn.Conv2d(workload.in_channels, workload.out_channels, 1, workload.stride))


def plain_layers(trace: LayerTrace, workload: Workload) -> None:
    trace.relu_conv(0, workload.out_channels, 1, workload.stride)


PLAIN = Operation(name="plain_conv", module=build_plain, layers=plain_layers)


def test_an_operation_that_declares_nothing_shares_and_fuses_nothing() -> None:
    workload = Workload(register(PLAIN).op, 4, 4, 8, 8)
    assert piece_of(workload) is None
    assert not fuses_addition(workload)
    assert not fuses_relu(workload)
    assert entry_holds_piece(workload)
    assert isinstance(build_operation(workload), nn.Sequential)


def test_a_residual_block_fuses_no_second_addition() -> None:
    declared = replace(PLAIN, name="residual", begins_with="relu", ends_with=("conv", "add"))
    workload = Workload(register(declared).op, 4, 4, 8, 8)
    assert not fuses_addition(workload)
    assert fuses_relu(workload)
    assert piece_of(workload) == Workload("relu", 4, 4, 8, 8)
    after_relu = replace(declared, name="rectified", ends_with=("conv", "add", "relu"))
    assert not fuses_relu(Workload(register(after_relu).op, 4, 4, 8, 8))


def test_a_plugin_s_own_pooling_is_a_piece() -> None:
    operation = register(replace(PLAIN, name="wide_pool", begins_with="wide_pool", ends_with=("pool",), family="pool"))
    assert operation.weightless
    workload = Workload(operation.op, 4, 4, 8, 8, 2)
    assert piece_of(workload) == workload
    assert entry_holds_piece(workload)


def test_a_name_of_hwnas_cannot_be_registered() -> None:
    for name in ("nor_conv_3x3", "sep_conv_9x9", "none", "sum"):
        with pytest.raises(HwnasError, match=f"operation {name} is one of hwnas's own"):
            register(replace(PLAIN, name=name))
    for name in ("", "Upper", "a-b", "a" * 33, "../x"):
        with pytest.raises(HwnasError, match="not a name for an operation"):
            register(replace(PLAIN, name=name))
    with pytest.raises(HwnasError, match="no source file"):
        register(replace(PLAIN, module=eval("lambda workload, affine: None")))


PLUGIN = """
from hwnas.spaces import Operation


def build(workload, affine):
    from torch import nn

    return nn.Conv2d(workload.in_channels, workload.out_channels, 1, workload.stride)


def layers(trace, workload):
    trace.conv(0, workload.out_channels, 1, workload.stride)


LINEAR = Operation(name="linear_conv", module=build, layers=layers, ends_with=("conv",))
HEAD = Operation(name="some_head", module=build, layers=layers, candidate=False)
NUMBER = 1
"""
SPACE = """
name: linear
operations: [none, nor_conv_3x3, {name: linear, operation: "%s"}]
cells: {cell: {nodes: 2}}
network: {stages: [{cell: cell}]}
settings: {small: {channels: 4, height: 8, width: 8}}
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plug-in file in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "linear_plugin", raising=False)
    (tmp_path / "linear_plugin.py").write_text(PLUGIN)
    return tmp_path / "linear_plugin.py"


def write_space(folder: Path, path: str) -> Path:
    file = folder / "space.yaml"
    file.write_text(SPACE % path)
    return file


def test_a_space_names_a_plugin_s_operation(plugin: Path) -> None:
    space = get_space(str(write_space(plugin.parent, "linear_plugin:LINEAR")))
    network = SizedSpace(space, space.settings["small"]).network
    found = {w.op for w in network.workloads() if operation_of(w).name == "linear_conv"}
    assert len(found) == 1
    assert found.pop().startswith("linear_conv_")
    assert {w.op for w in pieces(network)} == {"relu"}


def test_a_changed_plugin_is_another_operation_and_another_space(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_space(plugin.parent, "linear_plugin:LINEAR")
    first = get_space(str(file))
    plugin.write_text(PLUGIN.replace("1, workload.stride)", "1, workload.stride, bias=False)"))
    monkeypatch.delitem(sys.modules, "linear_plugin")
    again = plugin.parent / "again.yaml"
    again.write_text(file.read_text())
    second = get_space(str(again))
    assert first.key != second.key
    ops = [{w.op for w in SizedSpace(s, s.settings["small"]).network.workloads()} for s in (first, second)]
    assert len(ops[0] ^ ops[1]) == 2


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("linear_plugin:NUMBER", "operation linear_plugin:NUMBER is of type int; name a hwnas.spaces.Operation"),
        ("linear_plugin:HEAD", "is not for the edges of a cell"),
        ("linear_plugin:OTHER", "module linear_plugin has no OTHER"),
        ("no_such_plugin:LINEAR", "module no_such_plugin cannot be imported"),
        ("linear_plugin.py", "operations.2.operation"),
    ],
)
def test_import_paths_that_name_no_operation_are_refused(plugin: Path, path: str, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        get_space(str(write_space(plugin.parent, path)))


def test_an_entry_with_a_kind_and_an_import_path_is_refused(plugin: Path) -> None:
    file = plugin.parent / "both.yaml"
    file.write_text((SPACE % "linear_plugin:LINEAR").replace("name: linear, op", "name: linear, kind: pool, op"))
    with pytest.raises(HwnasError, match="give either kind or operation"):
        get_space(str(file))


def test_a_registered_operation_is_named_without_an_import_path(plugin: Path) -> None:
    import linear_plugin

    registered = register(linear_plugin.LINEAR)
    assert register(registered) == registered
    file = plugin.parent / "plain.yaml"
    file.write_text((SPACE % "").replace('{name: linear, operation: ""}', "linear_conv"))
    space = get_space(str(file))
    assert registered.op in {w.op for w in SizedSpace(space, space.settings["small"]).network.workloads()}


def test_registered_operations_stay_out_of_built_in_spaces() -> None:
    register(PLAIN)
    assert {operation_of(w).source_sha256 for w in SizedSpace(NB201, SMALL["nasbench201"]).network.workloads()} == {
        None
    }
