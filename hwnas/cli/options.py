"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from hwnas.errors import HwnasError

SPACES = (
    "nasbench201, darts, darts-extended, fbnet, proxylessnas, mobilenetv3, recurrent, recurrent-darts (a chain also at "
    "a multiple of its widths: mobilenetv3-w1.2), FILE.yaml, package.module:NAME or python:MODULE:NAME"
)
SpaceName = Annotated[str, typer.Option("--space", help=f"{SPACES}.")]
TableSpace = Annotated[
    str | None,
    typer.Option("--space", help=f"{SPACES}; default: that of the table."),
]
SettingName = Annotated[
    str | None, typer.Option("--setting", help="Named sizes of the space, such as imagenet-mobile.")
]
Channels = Annotated[int | None, typer.Option(help="Number of channels of the first cells.")]
Layers = Annotated[
    int | None,
    typer.Option(
        "--layers", "--cells", help="Number of cells: in each stage (nasbench201, your own spaces) or in all (darts)."
    ),
]
InputShape = Annotated[str | None, typer.Option("--input", help="Image shape, channels first: 3x32x32.")]
Classes = Annotated[int | None, typer.Option(help="Number of classes.")]
TargetData = Annotated[
    str | None,
    typer.Option(
        "--target-data", help="Images of the target network, which trains on them later; default: --data if they fit."
    ),
]
SearchSetting = Annotated[
    str | None,
    typer.Option(
        "--search-setting",
        help="Named sizes of the search network; default: the target's, or the space's own if the target is larger.",
    ),
]
SearchChannels = Annotated[
    int | None, typer.Option("--search-channels", help="Number of channels of the search network's first cells.")
]
SearchLayers = Annotated[
    int | None,
    typer.Option(
        "--search-layers",
        "--search-cells",
        help="Number of cells of the search network.",
    ),
]
SearchInput = Annotated[
    str | None,
    typer.Option("--search-input", help="Shape of the search network's images, to which those of --data are resized."),
]
ArchitectureText = Annotated[
    str, typer.Option("--architecture", help="An architecture in the space's notation, or a name such as DARTS_V2.")
]
RunFolder = Annotated[Path, typer.Argument(help="A run of hwnas search, or the folder of one budget in it.")]
OtherData = Annotated[
    str | None,
    typer.Option("--data", help="Images or text, written as for hwnas search; default: those of the network."),
]
PretrainedWeights = Annotated[
    Path | None,
    typer.Option(
        help="Start from pretrained weights: FILE.safetensors or FILE.pth, with names of hwnas, torchvision or timm."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
DataSpec = Annotated[
    str,
    typer.Option(
        "--data",
        help="digits, cifar10:FOLDER, imagefolder:PATH, python:package.module:FUNCTION or text:PATH, with options "
        "after a ?.",
    ),
]
DeviceName = Annotated[
    str,
    typer.Option(
        "--device", help="cpu, cpu+openvino, cuda:0+torch, browser, page, ssh://user@host+onnxruntime?threads=2, …"
    ),
]
ExecutorName = Annotated[
    str,
    typer.Option(
        "--executor",
        help="What runs the jobs: local (processes of this machine), ray (the Ray cluster that it belongs to) or "
        "ray://HOST:PORT (another).",
    ),
]
ComputeName = Annotated[
    str | None, typer.Option(help="Device that computes: cpu, cuda, or auto (the default), a GPU if torch can use one.")
]
PrecisionName = Annotated[
    str | None,
    typer.Option(
        help="float32, bfloat16, tf32 (on a GPU), or auto: bfloat16 on processors that multiply it. "
        "Default: that of the recipe (of searches auto, of trainings float32)."
    ),
]


def parse_input(text: str | None) -> tuple[int, int, int] | None:
    """Parse an image shape: ``3x32x32`` is (channels, height, width). Raises HwnasError for another form."""
    if text is None:
        return None
    written = text.strip().lower().replace("×", "x")
    if re.fullmatch(r"\d{1,5}x\d{1,5}", written, re.ASCII):
        fix = f"the channels come first: for {written} pixels write 3x{written} (colour) or 1x{written} (grey)"
        raise HwnasError(f"input shape {text!r} lacks a size", fix)
    if not re.fullmatch(r"\d{1,5}(x\d{1,5}){2}", written, re.ASCII):
        raise HwnasError(f"cannot read input shape {text!r}", "write CHANNELSxHEIGHTxWIDTH, such as 3x32x32")
    channels, height, width = map(int, written.split("x"))
    return channels, height, width
