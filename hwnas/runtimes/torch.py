"""torch, layer by layer, on a CPU or a CUDA device. Its models are lists of ATen operators."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.files import atomic_path
from hwnas.runtimes.runtime import Runtime

if TYPE_CHECKING:
    from torch import Tensor, nn


def write_layers(module: nn.Module, inputs: Sequence[Tensor], path: Path) -> None:
    """Write the ATen operators that a module runs in evaluation mode, for inputs of exactly these shapes.

    The file holds no code; ``torch.load(weights_only=True)`` reads it. It has the shapes of the inputs, the nodes in
    order [name, ATen operator, arguments, keyword arguments], the names of the outputs and the tensors.
    (torch.export.save stores the same; reading that takes a second for a network, thirty times as long.)
    """
    import torch

    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tuple(inputs))
    signature = program.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    targets.update(signature.inputs_to_lifted_tensor_constants)
    values: dict[str, Any] = {**program.state_dict, **program.constants}

    def plain(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return {"tensor" if value.name in targets else "node": value.name}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    nodes = list(program.graph.nodes)
    inputs_of_graph = [node for node in nodes if node.op == "placeholder" and node.name in signature.user_inputs]
    content = {
        "inputs": {node.name: list(node.meta["val"].shape) for node in inputs_of_graph},
        "nodes": [
            [node.name, str(node.target), plain(node.args), {name: plain(value) for name, value in node.kwargs.items()}]
            for node in nodes
            if node.op == "call_function"
        ],
        "outputs": [str(name) for name in signature.user_outputs],
        "tensors": {name: values[target].detach() for name, target in targets.items()},
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


RUNTIME = Runtime(
    name="torch",
    profiler="torch_eager.py",
    hardware=r"cpu|cuda:\d+",
    suffix=".pt",
    write_module=write_layers,
    processes=6,
    words=True,
    rewrites=(),
)
