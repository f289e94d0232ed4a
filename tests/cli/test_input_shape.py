"""``--input`` takes the channels first, and questions shapes that have them last."""

from __future__ import annotations

from pathlib import Path

import pytest

from hwnas import HwnasError, api
from hwnas.cli.options import parse_input
from support.command import Run, assert_one_clear_line


@pytest.mark.parametrize(
    ("text", "shape"),
    [("3x32x48", (3, 32, 48)), ("1X28X28", (1, 28, 28)), ("4×8×8", (4, 8, 8)), (" 3x4x4 ", (3, 4, 4)), (None, None)],
)
def test_a_shape_is_channels_height_width(text: str | None, shape: tuple[int, int, int] | None) -> None:
    assert parse_input(text) == shape


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("32x32x3", "32x32x3 means 32 channels of 32x3 pixels; .*for 3 channels of 32x32 pixels write 3x32x32"),
        ("28x28x1", "28x28x1 means 28 channels of 28x1 pixels; .*for 1 channels? of 28x28 pixels write 1x28x28"),
        ("96x128x4", "for 4 channels of 96x128 pixels write 4x96x128"),
        ("64x64", "'64x64' lacks a size; the channels come first: .* write 3x64x64 .colour. or 1x64x64 .grey."),
        ("32", "cannot read input shape '32'; write CHANNELSxHEIGHTxWIDTH, such as 3x32x32"),
        ("3x32x32x1", "cannot read input shape"),
        ("3,32,32", "cannot read input shape '3,32,32'; write CHANNELSxHEIGHTxWIDTH"),
        ("3x²x32", "cannot read input shape"),
        ("3x-1x32", "cannot read input shape"),
        ("", "cannot read input shape"),
        ("0x32x32", "at least 1"),
        ("3x0x32", "at least 1"),
    ],
)
def test_other_shapes_are_one_clear_line(run: Run, tmp_path: Path, text: str, words: str) -> None:
    asked = ("export", "--architecture", "|none~0|+|none~0|none~1|+|nor_conv_1x1~0|none~1|none~2|")
    refused = run(*asked, "--channels", 4, "--layers", 1, "--input", text, "--out", tmp_path / "a.onnx")
    assert_one_clear_line(refused, words)
    assert not list(tmp_path.iterdir())


def test_shapes_of_the_api_are_questioned_too() -> None:
    with pytest.raises(HwnasError, match="write 3x32x32"):
        api.sized_space("nasbench201", input_shape=(32, 32, 3))
    assert api.sized_space("nasbench201", input_shape=(8, 32, 32)).setting.image_channels == 8
