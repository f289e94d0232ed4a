"""Writing a module as a file that a runtime loads: ONNX, or the operations that torch runs."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.files import atomic_path

OPSET = 18


def write_onnx(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    metadata: Mapping[str, str] | None = None,
    input_names: Sequence[str] | None = None,
) -> None:
    """Export in evaluation mode with a dynamic batch dimension, batch norms folded into convolutions; check the file.

    Inputs are named ``input0``, ``input1``, … unless ``input_names`` says otherwise; the output is ``scores``, or
    ``output0``, … when there are several. The TorchScript exporter is used: one operation
    takes it 0.05 s, the torch.export-based one 1.5 s, and a table needs a hundred.
    """
    import onnx

    module.eval()
    names = list(input_names or [f"input{number}" for number in range(len(inputs))])
    with torch.no_grad():
        result = module(*inputs)
    outputs = ["scores"] if isinstance(result, Tensor) else [f"output{number}" for number in range(len(result))]
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs),
            str(temporary),
            input_names=names,
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
            opset_version=OPSET,
            dynamo=False,
        )
        model = onnx.load(temporary)
        onnx.helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)


def write_layers(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """Write in evaluation mode what torch runs for inputs of exactly these shapes, operation by operation.

    The file holds no code, ``torch.load(weights_only=True)`` reads it: the shapes of the inputs, the nodes in order
    [name, ATen operator, arguments, keyword arguments], the names of the outputs, the tensors. (torch.export.save does
    as much; reading it back takes a second for a network, thirty times as long.)
    """
    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tuple(inputs))
    signature = program.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    targets.update(signature.inputs_to_lifted_tensor_constants)
    held: dict[str, Any] = {**program.state_dict, **program.constants}

    def plain(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return {"tensor" if value.name in targets else "node": value.name}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    nodes = list(program.graph.nodes)
    given = [node for node in nodes if node.op == "placeholder" and node.name in signature.user_inputs]
    content = {
        "inputs": {node.name: list(node.meta["val"].shape) for node in given},
        "nodes": [
            [node.name, str(node.target), plain(node.args), {name: plain(value) for name, value in node.kwargs.items()}]
            for node in nodes
            if node.op == "call_function"
        ],
        "outputs": [str(name) for name in signature.user_outputs],
        "tensors": {name: held[target].detach() for name, target in targets.items()},
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)
