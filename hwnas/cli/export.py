"""``hwnas export``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from hwnas.cli.common import (
    AsJson,
    Channels,
    Classes,
    InputShape,
    Layers,
    OtherData,
    SettingName,
    app,
    command,
    parse_input,
    show_json,
    show_table,
)
from hwnas.cli.search import name_of
from hwnas.errors import HwnasError


@command(app, "export", "hwnas export --space darts --architecture DARTS_V2 --out darts_v2.onnx")
def export_command(
    folder: Annotated[
        Path | None, typer.Argument(help="A run of hwnas search, or one budget's folder in it, for --quantize.")
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(help="int8: write network_int8.onnx beside each network.onnx of the run.")
    ] = None,
    calibration_images: Annotated[
        int | None, typer.Option(min=1, help="Training images to quantise with; by default 200, or all there are.")
    ] = None,
    data: OtherData = None,
    device: Annotated[
        str | None, typer.Option(help="Where to time the quantised networks; by default the table's own device.")
    ] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Without a run: in the space's notation, or a name such as DARTS_V2.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Without a run: the ONNX file to write.")] = None,
    space: Annotated[
        str | None, typer.Option(help="nasbench201 (the default), darts, FILE.yaml or package.module:NAME.")
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the random weights; 0 by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Export an architecture with random weights, to time or train it elsewhere; or quantise the networks of a run.

    A quantised network is evaluated and timed beside the one in single precision: DIR/BUDGET/quantization.json.
    """
    of_run: dict[str, Any] = {
        "--quantize": quantize,
        "--calibration-images": calibration_images,
        "--data": data,
        "--device": device,
    }
    of_architecture: dict[str, Any] = {"--architecture": architecture, "--out": out, "--space": space}
    of_architecture |= {"--setting": setting, "--channels": channels, "--layers": layers, "--input": input_shape}
    of_architecture |= {"--classes": classes, "--seed": seed}
    if folder:
        _refuse(of_architecture, f"{folder} is a run, whose networks are what they are")
        if quantize != "int8":
            what = f"unknown precision {quantize!r}" if quantize else f"the networks of {folder} are ONNX already"
            raise HwnasError(what, "use --quantize int8")
        _quantize(folder, calibration_images, data, device, as_json)
        return
    _refuse(of_run, "without a run there are no images to quantise with" if quantize else "no run is named")
    if not architecture or not out:
        raise HwnasError(
            "say what to export", "give --architecture and --out, or the folder of a run with --quantize int8"
        )
    import torch

    from hwnas.export.network import export_network
    from hwnas.networks.child import ChildNetwork
    from hwnas.runtimes.onnx_model import OPSET
    from hwnas.spaces import SizedSpace, get_space

    chosen = get_space(space or "nasbench201")
    name = setting or chosen.evaluation_setting(architecture)
    shape = parse_input(input_shape)
    sized = SizedSpace.named(chosen, name, channels=channels, depth=layers, classes=classes, **shape)
    torch.manual_seed(seed or 0)
    network = ChildNetwork(sized, chosen.parse(architecture), prune=True)
    text = chosen.format(chosen.parse(architecture))
    details = {"space": chosen.name, "architecture": text, "weights": f"random, seed {seed or 0}"}
    export_network(network, out, details)
    if as_json:
        show_json({"onnx": str(out), **details, "opset": OPSET})
    else:
        print(f"{out}: {sized.setting.describe()}, random weights, opset {OPSET}, dynamic batch")


def _refuse(options: dict[str, Any], why: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise HwnasError(f"{given[0]} cannot be given: {why}", "see hwnas export --help")


def _quantize(folder: Path, images: int | None, data: str | None, device: str | None, as_json: bool) -> None:
    from hwnas.progress import Progress
    from hwnas.runs.quantize import quantize_run
    from hwnas.runtimes.device_spec import parse_device

    with Progress() as progress:
        rows = quantize_run(folder, images, data, parse_device(device) if device else None, progress)
    if as_json:
        show_json({"targets": rows})
        return
    shown = []
    for row in rows:
        for device, timing in row.latency.items():
            shown.append(
                [
                    name_of(row, rows) + f" on {device}" * (len(row.latency) > 1),
                    *(
                        f"{row.accuracy[split]['float32']:.2%} > {row.accuracy[split]['int8']:.2%}"
                        for split in ("validation", "test")
                    ),
                    f"{timing.float32_ms:.4g} ± {timing.float32_error_ms:.2g} ms",
                    f"{timing.int8_ms:.4g} ± {timing.int8_error_ms:.2g} ms",
                    f"{row.bytes['float32'] / 1e3:.1f} > {row.bytes['int8'] / 1e3:.1f} kB",
                ]
            )
    show_table("float32 > int8", ["budget", "validation", "test", "float32", "int8", "file"], shown)
    for row in rows:
        print(f"{name_of(row, rows)}: {row.onnx}")
        for line in row.warnings:
            print(f"{name_of(row, rows)}: {line}")
