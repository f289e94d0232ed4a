"""Export a module as ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hwnas import __version__
from hwnas.errors import HwnasError
from hwnas.files import atomic_path
from hwnas.runtimes.onnx_constants import fold_constants, name_weights_once
from hwnas.runtimes.onnx_pools import pad_explicitly
from hwnas.runtimes.opset import OPSET
from hwnas.text import shorten

PRODUCER = "hwnas"  # OpenCV 4 counts the padding of all averages in files of "pytorch", whatever they say


def write_onnx(
    module: nn.Module,
    inputs: Sequence[Tensor],
    path: Path,
    metadata: Mapping[str, str] | None = None,
    input_names: Sequence[str] | None = None,
    opset: int = OPSET,
    output_names: Sequence[str] | None = None,
) -> None:
    """Export in evaluation mode with a dynamic batch dimension, batch norms folded into convolutions; check the file.

    Inputs are named ``input0``, ``input1``, … or by ``input_names``; the output is ``scores``, or ``output0``, … if
    there are several, or they are named by ``output_names``. The TorchScript exporter takes 0.05 s for an operation,
    the torch.export-based one 1.5 s, and a table needs a hundred.

    Raises HwnasError for a module that torch cannot export.
    """
    import onnx

    module.eval()
    names = list(input_names or [f"input{number}" for number in range(len(inputs))])
    with torch.no_grad():
        result = module(*inputs)
    outputs = ["scores"] if isinstance(result, Tensor) else [f"output{number}" for number in range(len(result))]
    outputs = list(output_names or outputs)
    with atomic_path(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                module,
                tuple(inputs),
                str(temporary),
                input_names=names,
                output_names=outputs,
                dynamic_axes={name: {0: "batch"} for name in (*names, *outputs)},
                opset_version=opset,
                dynamo=False,
            )
        except RuntimeError as error:  # an operator that ONNX lacks, in a module of the user's
            raise HwnasError(
                f"torch cannot write {path.stem} as ONNX: {shorten(str(error).splitlines()[0], 200)}",
                "use operators that torch exports to ONNX",
            ) from error
        model = onnx.load(temporary)
        fold_constants(model)
        name_weights_once(model)
        pad_explicitly(model)
        model.producer_name, model.producer_version = PRODUCER, __version__
        onnx.helper.set_model_props(model, dict(metadata or {}))
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, temporary)
