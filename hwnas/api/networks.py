"""Work with the networks of a search: verify, train, evaluate, quantise, convert; export other architectures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwnas.api.inputs import get_space, sized_space
from hwnas.progress import Progress

if TYPE_CHECKING:
    from hwnas.api.inputs import InputShape, Space
    from hwnas.runs.convert import ConvertedNetwork
    from hwnas.runs.pretrained import PretrainedFile
    from hwnas.runs.schema import DeviceTiming, EvaluationRow, NetworkRow, QuantizationRow
    from hwnas.spaces import SizedSpace


def verify(run: Path | str, device: str | None = None, *, progress: Progress | None = None) -> list[DeviceTiming]:
    """Time the exported networks of a run again and return one row for each target and device.

    A row has ``measured_ms`` with its error, ``predicted_ms``, and ``kept``: false when the network breaks its budget
    by more than the error of the measurement. ``device`` is a device spec; None times on the devices of the tables.

    Raises HwnasError when the run is not finished or a device is not available.
    """
    from hwnas.runs.verify import verify_run
    from hwnas.runtimes.device_spec import parse_device

    return verify_run(Path(run), parse_device(device) if device else None, progress or Progress(quiet=True))


def train(
    run: Path | str,
    recipe: str = "quick",
    *,
    data: str | None = None,
    epochs: int | None = None,
    from_scratch: bool | None = None,
    weights: Path | str | None = None,
    teacher: Path | str | None = None,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    compute: str | None = None,
    precision: str | None = None,
    ema: float | None = None,
    keep: str | None = None,
    patience: int | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> list[NetworkRow]:
    """Train the networks of a run, export them again, and return one row for each target.

    ``recipe`` is ``quick``, ``darts-cifar10``, ``snas-cifar10``, ``imagenet-mobile``, ``nasbench201`` or a YAML file;
    arguments that are not None change it. ``from_scratch`` starts from random weights instead of those of the run; an
    untrained target network always does. It is then timed where its devices are this machine. ``weights`` is a file of
    pretrained weights to start from instead, where they fit (hwnas.networks.pretrained). ``teacher``, for distillation,
    is FILE.onnx, python:module:function or the folder of a run's network. ``data`` are by default the images of the
    target network. ``setting`` trains at other sizes (``as-searched`` keeps those of the target network); such a
    network gets a folder of its own and claims no budget. ``ema`` is the decay of a moving average of the weights,
    ``keep`` is ``last`` or ``best``, ``patience`` the number of epochs without improvement after which training stops.
    An interrupted call resumes when it is repeated.

    Raises HwnasError when the run is not finished, for invalid recipes, data and weights, and without known images.
    """
    from hwnas.errors import HwnasError
    from hwnas.runs.train import train_run
    from hwnas.training.recipe import read_training

    if weights and from_scratch is False:
        raise HwnasError("the training cannot start from the run's weights and from a file", "leave out one of them")
    changes: dict[str, Any] = {
        "epochs": epochs,
        "weights": None if weights is None else str(weights),
        "distillation.teacher": None if teacher is None else str(teacher),
        "start": None if from_scratch is None else "scratch" if from_scratch else "weights",
        "setting": setting,
        "channels": channels,
        "depth": layers,
        "batch_size": batch_size,
        "optimizer.lr": learning_rate,
        "compute": compute,
        "precision": precision,
        "ema": ema,
        "keep": keep,
        "patience": patience,
        "seed": seed,
    }
    return train_run(Path(run), recipe, read_training(recipe, changes), data, progress or Progress(quiet=True))


def evaluate(
    run: Path | str,
    split: str = "test",
    *,
    data: str | None = None,
    latency: bool = False,
    confusion: Path | str | None = None,
    progress: Progress | None = None,
) -> list[EvaluationRow]:
    """Evaluate the exported networks of a run with ONNX Runtime and torch; return one row for each target.

    A row has ``scores`` by runtime: accuracy, top-5 accuracy and expected calibration error, each from 0 to 1; of text
    the perplexity and the accuracy, the share of next words that are right. ``split`` is ``train``, ``validation`` or
    ``test``. ``latency`` also times the networks on the run's devices. ``confusion`` is a CSV file for the confusion
    matrices.

    Raises HwnasError when the run is not finished, a network is untrained, or the data does not fit it.
    """
    from hwnas.runs.evaluate import evaluate_run

    file = None if confusion is None else Path(confusion)
    return evaluate_run(Path(run), split, data, latency, file, progress or Progress(quiet=True))


def quantize(
    run: Path | str,
    *,
    calibration_images: int | None = None,
    data: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> list[QuantizationRow]:
    """Write ``network_int8.onnx`` next to each network of a run and return one row for each target.

    A row compares accuracy, latency and file size of both networks. ``calibration_images`` training images, by default
    200 or all, give the ranges of the activations. ``device`` is the device spec to time on; None takes the tables'.

    Raises HwnasError when a network is untrained, and when the device cannot run int8 networks or is not available.
    """
    from hwnas.runs.quantize import quantize_run
    from hwnas.runtimes.device_spec import parse_device

    spec = parse_device(device) if device else None
    return quantize_run(Path(run), calibration_images, data, spec, progress or Progress(quiet=True))


@dataclass(frozen=True)
class ExportedNetwork:
    """An ONNX file of one architecture.

    ``weights`` says where the weights are from, ``pretrained`` which layers a file of weights fits.
    """

    file: Path
    sized: SizedSpace
    architecture: str
    weights: str
    opset: int
    pretrained: PretrainedFile | None = None


def export(
    architecture: str,
    out: Path | str,
    space: Space = "nasbench201",
    *,
    setting: str | None = None,
    channels: int | None = None,
    layers: int | None = None,
    input_shape: InputShape | None = None,
    classes: int | None = None,
    seed: int = 0,
    weights: Path | str | None = None,
) -> ExportedNetwork:
    """Write the network of an architecture to the ONNX file ``out``, with a dynamic batch size.

    ``architecture`` is in the space's notation or a name such as ``DARTS_V2``, at the space's evaluation setting unless
    ``setting`` names another. Its weights are random or, where they fit, those of the file ``weights``, as in
    ``train``. The networks of a search are exported by ``search`` and ``train``.

    Raises HwnasError when the architecture or a size is invalid, no layer of ``weights`` fits, or ``out`` cannot be
    written.
    """
    import torch

    from hwnas.export.network import export_network
    from hwnas.networks.child import ChildNetwork
    from hwnas.runs.pretrained import start_from
    from hwnas.runtimes.onnx_model import OPSET

    found = get_space(space) if isinstance(space, str) else space
    name = setting or found.evaluation_setting(architecture)
    sized = sized_space(found, name, channels, layers, input_shape, classes)
    parsed = found.parse(architecture)
    torch.manual_seed(seed)
    network = ChildNetwork(sized, parsed, prune=True)
    pretrained = None if weights is None else start_from(network, Path(weights))
    origin = f"random, seed {seed}" if pretrained is None else pretrained.describe()
    exported = ExportedNetwork(Path(out), sized, found.format(parsed), origin, OPSET, pretrained)
    details = {"space": found.name, "architecture": exported.architecture, "weights": exported.weights}
    export_network(network, exported.file, details)
    return exported


def convert(
    source: Path | str,
    format: str,
    out: Path | str | None = None,
    *,
    verify: bool = False,
    device: str | None = None,
    progress: Progress | None = None,
) -> list[ConvertedNetwork]:
    """Write the networks of a run, or an ONNX file, in the format of another runtime; return one row for each.

    ``format`` is ``onnx``, ``litert``, ``executorch``, ``openvino`` or ``ncnn``. The file is written next to the
    network, or for an ONNX file to ``out``. A row has ``file`` and ``parity``: the greatest difference of scores, on
    random images, from those of torch, or of ONNX Runtime for an ONNX file. ``verify`` times the file on ``device``, by
    default this machine's processor.

    Raises HwnasError, before a file is written, when scores differ by more than rounding, the format cannot express the
    network or a package is not installed; and for a device of another runtime.
    """
    from hwnas.runs.convert import convert_networks
    from hwnas.runtimes.device_spec import parse_device

    spec = parse_device(device) if device else None
    file = None if out is None else Path(out)
    return convert_networks(Path(source), format, file, verify, spec, progress or Progress(quiet=True))


def report(
    runs: Path | str | Sequence[Path | str], out: Path | str = "report.html", figures: Path | str | None = None
) -> list[Path]:
    """Write a self-contained HTML page on finished runs, or on one benchmark, and return the files next to it.

    ``figures`` is the folder of the figures (SVG, PNG) and their numbers (JSON), by default ``report_files`` for
    ``report.html``.

    Raises HwnasError when a folder is not a finished run, and when the extra ``hwnas[report]`` is not installed.
    """
    from hwnas.imports import require_extra

    for module in ("jinja2", "vl_convert"):
        require_extra(module, "report", "writing a report")
    from hwnas.report.write import write_report

    page = Path(out)
    folders = [runs] if isinstance(runs, Path | str) else runs
    return write_report([Path(folder) for folder in folders], page, figures_folder(page, figures))


def figures_folder(page: Path, figures: Path | str | None) -> Path:
    """Return the folder for the figures of a report."""
    return page.with_name(f"{page.stem}_files") if figures is None else Path(figures)
