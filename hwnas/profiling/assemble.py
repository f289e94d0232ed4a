"""Assemble ONNX files from pieces: every operation is exported once; networks and chains are wired copies of it.

Exporting a whole network takes torch a second, and a profile times a hundred. Each copy gets random weights of its own,
because a network reads every weight once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from hwnas.files import atomic_path
from hwnas.networks.steps import zeros
from hwnas.operations import build_operation, randomise
from hwnas.runtimes.onnx_model import write_onnx
from hwnas.runtimes.opset import OPSET
from hwnas.spaces import Workload
from hwnas.spaces.operation import input_shapes

Build = Callable[[Workload | None], nn.Module]


class Assembled(Protocol):
    """A model that can be assembled: a module with the operations that ``build`` returns, and its inputs' shapes.

    These are [C, H, W] or [C] without the batch; () for numbers of words.
    """

    def module(self, build: Build) -> nn.Module: ...

    def input_shapes(self) -> list[tuple[int, ...]]: ...


def assemble_onnx(
    model: Assembled, path: Path, pieces: Path, batch: int = 1, own_weights: bool = True, opset: int = OPSET
) -> None:
    """Write ``model`` as ONNX for ``batch`` images. ``pieces`` is a folder for exported operations.

    ``own_weights=False`` gives all copies of an operation the same weights.
    """
    graph = _Graph(pieces, batch, own_weights, opset)
    inputs = [graph.add_input(shape) for shape in model.input_shapes()]
    outputs = model.module(graph.build)(*inputs)
    graph.write(outputs if isinstance(outputs, tuple) else (outputs,), path)


class _Value:
    """A tensor of the graph under construction; a module's ``forward`` is called with these instead of tensors."""

    def __init__(self, graph: _Graph, name: str) -> None:
        self.graph, self.name = graph, name
        self.shape = (graph.batch,)

    def __add__(self, other: _Value) -> _Value:
        return self.graph.add_node("Add", [self, other])

    def __sub__(self, other: _Value) -> _Value:
        return self.graph.add_node("Sub", [self, other])

    def __mul__(self, factor: float) -> _Value:
        return self.graph.add_node("Mul", [self, self.graph.add_number(factor)])

    def new_zeros(self, *shape: int) -> _Value:
        return self.graph.add_zeros(shape)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> _Value:
        if function is torch.max_pool2d:
            value, size, stride = args
            return value.graph.add_node("MaxPool", [value], kernel_shape=[size, size], strides=list(stride))
        if function is torch.cat:
            values = list(args[0])
            return values[0].graph.add_node("Concat", values, axis=1)
        raise TypeError(f"{function} cannot be assembled from pieces of ONNX")


class _Piece(nn.Module):
    """A stand-in for an operation: called on values, it adds a copy of the operation's nodes to their graph."""

    def __init__(self, graph: _Graph, workload: Workload) -> None:
        super().__init__()
        self.copy = lambda values: graph.add_copy(workload, values)

    def forward(self, *values: _Value) -> _Value:
        return self.copy(values)


class _Graph:
    def __init__(self, pieces: Path, batch: int, own_weights: bool, opset: int) -> None:
        self.pieces, self.batch, self.own_weights, self.opset = pieces, batch, own_weights, opset
        self.inputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []

    def build(self, workload: Workload | None) -> nn.Module:
        return _Piece(self, workload) if workload else nn.Identity()

    def add_input(self, shape: tuple[int, ...]) -> _Value:
        name, kind = f"input{len(self.inputs)}", TensorProto.FLOAT if shape else TensorProto.INT64
        self.inputs.append(helper.make_tensor_value_info(name, kind, [self.batch, *shape]))
        return _Value(self, name)

    def add_number(self, number: float) -> _Value:
        name = f"number{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.array(number, dtype=np.float32), name))
        return _Value(self, name)

    def add_node(self, op: str, values: Sequence[_Value], **attributes: Any) -> _Value:
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [value.name for value in values], [name], name, **attributes))
        return _Value(self, name)

    def add_zeros(self, shape: Sequence[int]) -> _Value:
        name = f"ConstantOfShape{len(self.nodes)}"
        self.weights.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{name}.shape"))
        self.nodes.append(helper.make_node("ConstantOfShape", [f"{name}.shape"], [name], name))
        return _Value(self, name)

    def add_copy(self, workload: Workload, values: Sequence[_Value]) -> _Value:
        piece = _piece(workload, self.pieces, self.opset).graph
        prefix = f"{len(self.nodes)}."
        names = {given.name: value.name for given, value in zip(piece.input, values, strict=True)}
        for weight in piece.initializer:
            copy = TensorProto()
            copy.CopyFrom(weight)
            copy.name = names[weight.name] = prefix + weight.name
            if self.own_weights and weight.data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(weight)
                shift = 1 + len(self.nodes) % max(array.size - 1, 1)
                copy = numpy_helper.from_array(np.roll(array.ravel(), shift).reshape(array.shape), copy.name)
            self.weights.append(copy)
        for node in piece.node:
            copy_node = onnx.NodeProto()
            copy_node.CopyFrom(node)
            copy_node.name = prefix + node.name
            del copy_node.input[:], copy_node.output[:]
            copy_node.input.extend(names.get(name, prefix + name if name else "") for name in node.input)
            copy_node.output.extend(prefix + name for name in node.output)
            self.nodes.append(copy_node)
        return _Value(self, prefix + piece.output[0].name)

    def write(self, outputs: Sequence[_Value], path: Path) -> None:
        results = [helper.make_tensor_value_info(value.name, TensorProto.FLOAT, None) for value in outputs]
        graph = helper.make_graph(self.nodes, "assembled", self.inputs, results, self.weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
        with atomic_path(path) as temporary:
            onnx.save(onnx.shape_inference.infer_shapes(model), temporary)  # it adds the shapes of the outputs


@cache
def _piece(workload: Workload, folder: Path, opset: int) -> onnx.ModelProto:
    """Return an operation as ONNX, exported once and kept in ``folder``."""
    path = folder / f"{workload.key}.opset{opset}.onnx"
    if not path.exists():
        inputs = [zeros(shape) for shape in input_shapes(workload)]
        torch.manual_seed(0)
        write_onnx(randomise(build_operation(workload)), inputs, path, opset=opset)
    return onnx.load(path)
