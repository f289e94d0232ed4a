"""``hwnas export``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwnas.cli.app import app, command
from hwnas.cli.options import (
    SPACES,
    AsJson,
    Channels,
    Classes,
    InputShape,
    Layers,
    OtherData,
    PretrainedWeights,
    SettingName,
    parse_input,
)
from hwnas.cli.output import show_json, show_table
from hwnas.cli.results import name_of
from hwnas.errors import HwnasError

if TYPE_CHECKING:
    from hwnas.api.networks import ExportedNetwork
    from hwnas.runs.convert import ConvertedNetwork

Source = Annotated[
    Path | None,
    typer.Argument(
        help="With --format or --quantize: a run of hwnas search, or the folder of one budget in it; "
        "with --format also NETWORK.onnx."
    ),
]
FormatName = Annotated[
    str | None,
    typer.Option("--format", help="Write the networks in this format: onnx, litert, executorch, openvino or ncnn."),
]
ExportDevice = Annotated[
    str | None,
    typer.Option(
        help="Device to time on; default: that of the table, with --format this machine's processor (cpu+litert)."
    ),
]
CalibrationImages = Annotated[
    int | None, typer.Option(min=1, help="Training images to calibrate with; default: 200, or all if fewer.")
]


@command(app, "export", "hwnas export --space darts --architecture DARTS_V2 --out darts_v2.onnx")
def export_command(
    source: Source = None,
    to_format: FormatName = None,
    verify: Annotated[bool, typer.Option("--verify", help="With --format: time the files on --device.")] = False,
    quantize: Annotated[
        str | None,
        typer.Option(help="int8: write network_int8.onnx (cpu+litert: .tflite) next to each network.onnx of the run."),
    ] = None,
    calibration_images: CalibrationImages = None,
    data: OtherData = None,
    device: ExportDevice = None,
    architecture: Annotated[
        str | None,
        typer.Option(help="Without a run: an architecture in the space's notation, or a name such as DARTS_V2."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Without a run: the file to write.")] = None,
    space: Annotated[
        str | None,
        typer.Option(help=f"Without a run: {SPACES}; default: nasbench201."),
    ] = None,
    setting: SettingName = None,
    channels: Channels = None,
    layers: Layers = None,
    input_shape: InputShape = None,
    classes: Classes = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the random weights; default: 0.")] = None,
    weights: PretrainedWeights = None,
    as_json: AsJson = False,
) -> None:
    """Export an architecture with random or pretrained weights to ONNX; convert or quantise the networks of a run.

    --format compares each file with torch, on random images, and writes none whose scores differ by more than rounding.
    Quantised networks are compared with those in single precision, in accuracy and latency: BUDGET/quantization.json.
    """
    quantization = {"calibration_images": calibration_images, "data": data, "device": device}
    sizes = {"setting": setting, "channels": channels, "layers": layers, "input": input_shape, "classes": classes}
    of_export = {"architecture": architecture, "out": out, "space": space, **sizes, "seed": seed, "weights": weights}
    if source and (to_format or source.is_file()):
        _refuse(of_export | {"out": None}, f"{source} has its own networks")
        _refuse({"quantize": quantize, **quantization, "device": None}, "--format writes networks in single precision")
        _convert(source, to_format, out, verify, device, as_json)
        return
    _refuse({"format": to_format}, "name a run or an ONNX file to convert")
    _refuse({"verify": verify or None}, "it goes with --format")
    if source:
        _refuse(of_export, f"{source} is a run with its own networks")
        _quantize(source, quantize, quantization, as_json)
        return
    reason = "without a run there are no images to quantise with" if quantize else "no run is named"
    _refuse({"quantize": quantize, **quantization}, reason)
    if not architecture or not out:
        raise HwnasError(
            "nothing to export", "give --architecture and --out, or the folder of a run and --quantize int8 or --format"
        )
    _export(architecture, out, {name: value for name, value in of_export.items() if value is not None}, as_json)


def _export(architecture: str, out: Path, options: dict[str, Any], as_json: bool) -> None:
    """Export an architecture with the options that were given, by their names on the command line."""
    from hwnas import api

    shape = parse_input(options.pop("input", None))
    _show_export(api.export(**{"architecture": architecture, **options, "input_shape": shape}), out, as_json)


def _show_export(exported: ExportedNetwork, out: Path, as_json: bool) -> None:
    details = {"space": exported.sized.space.name, "architecture": exported.architecture, "weights": exported.weights}
    if as_json:
        pretrained = {"pretrained": exported.pretrained} if exported.pretrained else {}
        show_json({"onnx": str(out), **details, "opset": exported.opset, **pretrained})
        return
    weights = "pretrained" if exported.pretrained else "random"
    print(f"{out}: {exported.sized.setting.describe()}, {weights} weights, opset {exported.opset}, dynamic batch")
    if exported.pretrained:
        print(exported.weights)


def _refuse(options: dict[str, Any], reason: str) -> None:
    """Raise HwnasError when one of the options, which are not allowed here, was given."""
    for name, value in options.items():
        if value is not None:
            raise HwnasError(f"--{name.replace('_', '-')} cannot be given: {reason}", "see hwnas export --help")


def _convert(
    source: Path, to_format: str | None, out: Path | None, verify: bool, device: str | None, as_json: bool
) -> None:
    from hwnas import api
    from hwnas.progress import Progress

    if to_format is None:
        raise HwnasError(f"{source} is an ONNX file already", "name another format with --format")
    if device and not verify:
        raise HwnasError("--device cannot be given: nothing is timed", "add --verify")
    with Progress() as progress:
        rows = api.convert(source, to_format, out, verify=verify, device=device, progress=progress)
    if as_json:
        show_json({"networks": [_converted(row) for row in rows]})
        return
    for row in rows:
        _show_converted(row)


def _converted(row: ConvertedNetwork) -> dict[str, Any]:
    measured = row.measured
    timing = {"measured_ms": measured.latency_ms, "measured_error_ms": measured.error_ms} if measured else {}
    return {
        **({"target": row.target} if row.target else {}),
        "format": row.format,
        "file": str(row.file),
        "bytes": row.bytes,
        "compared_with": row.compared_with,
        "parity": asdict(row.parity),
        **(timing | {"timed_on": row.timed_on} if timing else {}),
    }


def _show_converted(row: ConvertedNetwork) -> None:
    parity = row.parity
    print(f"{row.file}: {row.format}, {row.bytes / 1e3:,.1f} kB")
    print(
        f"  differs from {row.compared_with} by at most {parity.greatest_difference:.2g} (scores up to "
        f"{parity.greatest_score:.3g}), same class for {round(parity.same_class * parity.images)} of {parity.images} "
        "random images"
    )
    if row.measured:
        print(f"  {row.measured.latency_ms:.4g} ± {row.measured.error_ms:.2g} ms on {row.timed_on}")


def _quantize(folder: Path, precision: str | None, options: dict[str, Any], as_json: bool) -> None:
    if precision != "int8":
        what = f"unknown precision {precision!r}" if precision else f"the networks of {folder} are already ONNX files"
        raise HwnasError(what, "use --quantize int8" if precision else "use --format or --quantize int8")
    from hwnas import api
    from hwnas.progress import Progress

    with Progress() as progress:
        rows = api.quantize(folder, **options, progress=progress)
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
