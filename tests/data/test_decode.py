"""Image files of every kind become the 8-bit RGB values that numpy and Pillow compute for them, or one clear line."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hwnas.data import load_data
from hwnas.data.decode import open_image, readable_suffixes
from hwnas.errors import HwnasError
from support.command import Run, assert_one_clear_line
from support.images import write_images

SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}
GENERATOR = np.random.default_rng(0)


def write_tiff(
    path: Path, values: NDArray[np.generic], order: str, white_is_zero: bool = False, compressed: bool = False
) -> None:
    """Write greyscale values as a TIFF file of one strip; ``order`` is ``<`` or ``>``."""
    pixels = values.astype(values.dtype.newbyteorder(order)).tobytes()  # type: ignore[arg-type]
    pixels = zlib.compress(pixels) if compressed else pixels
    height, width = values.shape
    tags = {
        256: width, 257: height, 258: values.itemsize * 8, 259: 8 if compressed else 1, 262: 0 if white_is_zero else 1,
        273: 8, 277: 1, 278: height, 279: len(pixels), 339: SAMPLE_FORMATS[values.dtype.kind],
    }  # fmt: skip
    directory = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    for short in (258, 259, 262, 277, 339):  # these are 16-bit values, which stand first in their field
        old = struct.pack(order + "HHII", short, 4, 1, tags[short])
        directory = directory.replace(old, struct.pack(order + "HHIHH", short, 3, 1, tags[short], 0))
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(pixels))
    path.write_bytes(start + pixels + struct.pack(order + "H", len(tags)) + directory + struct.pack(order + "I", 0))


def full_range(kind: str, largest: float) -> NDArray[np.generic]:
    shares = GENERATOR.random((9, 7))
    shares[0, :2] = 0, 1
    return (shares * largest).astype(kind)


def decoded(path: Path) -> NDArray[np.float64]:
    """Return the values of an image whose three channels are equal."""
    pixels = np.asarray(open_image(path, repeat_grey=True)).astype(float)
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


RANGES = {"u2": 65535, "i2": 32767, "u4": 2**32 - 1, "i4": 2**31 - 1, "f4": 1}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("kind", "order"), [("u2", "<"), ("u2", ">"), ("i2", "<"), ("u4", "<"), ("i4", "<"), ("f4", "<")]
)
def test_tiff_values_are_scaled_by_the_range_of_their_type(
    tmp_path: Path, kind: str, order: str, compressed: bool
) -> None:
    values = full_range(kind, RANGES[kind])
    write_tiff(tmp_path / "x.tif", values, order, compressed=compressed)
    expected = np.rint(values.astype(float) / (RANGES[kind] / 255))
    assert np.array_equal(decoded(tmp_path / "x.tif"), expected)


@pytest.mark.parametrize("kind", ["i2", "i4", "f4"])
def test_big_endian_tiff_values_are_scaled(tmp_path: Path, kind: str) -> None:
    values = full_range(kind, RANGES[kind])
    write_tiff(tmp_path / "x.tif", values, ">")
    assert np.array_equal(decoded(tmp_path / "x.tif"), np.rint(values.astype(float) / (RANGES[kind] / 255)))
    write_tiff(tmp_path / "x.tif", values, ">", compressed=True)  # Pillow swaps the bytes of these
    with pytest.raises(HwnasError, match=r"x\.tif: .*uncompressed"):
        open_image(tmp_path / "x.tif", repeat_grey=True)


@pytest.mark.parametrize("kind", ["u2", "f4"])
def test_tiff_values_where_white_is_zero_are_inverted(tmp_path: Path, kind: str) -> None:
    values = full_range(kind, RANGES[kind])
    write_tiff(tmp_path / "x.tif", values, "<", white_is_zero=True)
    assert np.array_equal(decoded(tmp_path / "x.tif"), 255 - np.rint(values.astype(float) / (RANGES[kind] / 255)))


@pytest.mark.parametrize("suffix", ["png", "pgm", "jp2"])
def test_16_bit_files_of_other_formats_are_divided_by_257(tmp_path: Path, suffix: str) -> None:
    values = full_range("u2", 65535).repeat(8, axis=0).repeat(8, axis=1)
    Image.fromarray(values).save(tmp_path / f"x.{suffix}")  # lossless by default
    assert np.array_equal(decoded(tmp_path / f"x.{suffix}"), np.rint(values.astype(float) / 257))


def test_pgm_values_are_scaled_by_the_largest_value_of_the_header(tmp_path: Path) -> None:
    values = full_range("u2", 1023)
    height, width = values.shape
    (tmp_path / "x.pgm").write_bytes(f"P5 {width} {height} 1023\n".encode() + values.astype(">u2").tobytes())
    assert np.abs(decoded(tmp_path / "x.pgm") - values.astype(float) / 1023 * 255).max() <= 0.51


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([[-1, 5]], "i2"), "from -1 to 5"),
        (np.array([[-5.5, 0.25]], "f4"), "float values from -5.5 to 0.25"),
        (np.array([[0, 255]], "f4"), "from 0 to 255, but 0 to 1"),
        (np.array([[0, np.nan]], "f4"), "nan"),
        (np.array([[0, np.inf]], "f4"), "inf"),
        (np.array([[0, 58000]], "i4"), "up to 58000 only.*black"),
        (np.array([[0, 255]], "u2"), "up to 255 only.*black"),
        (np.array([[0, 0.003]], "f4"), "black"),
    ],
)
@pytest.mark.parametrize("repeat_grey", [True, False])
def test_values_that_do_not_fit_the_range_are_refused(
    tmp_path: Path, values: NDArray[np.generic], words: str, repeat_grey: bool
) -> None:
    write_tiff(tmp_path / "x.tif", values, "<")
    with pytest.raises(HwnasError, match=words) as raised:
        open_image(tmp_path / "x.tif", repeat_grey)
    assert str(tmp_path / "x.tif") in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", RANGES)
def test_black_images_stay_black(tmp_path: Path, kind: str) -> None:
    write_tiff(tmp_path / "x.tif", np.zeros((3, 2), kind), "<")
    assert not decoded(tmp_path / "x.tif").any()


@pytest.mark.parametrize("kind", RANGES)
def test_greyscale_of_many_bits_needs_grey_repeat(tmp_path: Path, kind: str) -> None:
    for order in "<>" if kind != "u4" else "<":
        write_tiff(tmp_path / "x.tif", full_range(kind, RANGES[kind]), order)
        with pytest.raises(HwnasError, match=r"greyscale.*grey=repeat"):
            open_image(tmp_path / "x.tif", repeat_grey=False)


def save_16_bits(values: NDArray[np.float64], file: Path) -> None:
    Image.fromarray(np.clip(values, 0, 65535).astype(np.uint16)).save(file.with_suffix(".png"))


def save_big_endian(values: NDArray[np.float64], file: Path) -> None:
    write_tiff(file.with_suffix(".tif"), np.clip(values, 0, 65535).astype(np.uint16), ">")


def save_floats(values: NDArray[np.float64], file: Path) -> None:
    Image.fromarray(np.clip(values / 65535, 0, 1).astype(np.float32)).save(file.with_suffix(".tiff"))


def save_32_bits(values: NDArray[np.float64], file: Path) -> None:
    Image.fromarray((np.clip(values / 65535, 0, 1) * (2**31 - 1)).astype(np.int32)).save(file.with_suffix(".tif"))


@pytest.mark.parametrize("save", [save_16_bits, save_big_endian, save_floats, save_32_bits])
@pytest.mark.parametrize("stream", ["yes", "no"])
def test_class_means_of_deep_greyscale_images(
    tmp_path: Path, save: Callable[[NDArray[np.float64], Path], None], stream: str
) -> None:
    generator = np.random.default_rng(0)
    centres = {"cat": 12_000, "dog": 35_000, "fox": 58_000}
    for label, centre in centres.items():
        (tmp_path / label).mkdir()
        for number in range(10):
            save(generator.normal(centre, 1000, (16, 16)), tmp_path / label / str(number))
    data = load_data(f"imagefolder:{tmp_path}?grey=repeat&stream={stream}")
    images = data.train.images[torch.arange(len(data.train))].float()
    for number, centre in enumerate(centres.values()):
        mean = float(images[data.train.targets == number].mean())
        assert mean == pytest.approx(centre / 257, abs=0.5)  # 46.7, 136.2 and 225.7


def test_a_search_on_greyscale_images_of_16_bits_requires_grey_repeat(
    run: Run, tmp_path: Path, table_file: Path
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(5):
            write_tiff(tmp_path / "images" / label / f"{number}.tif", full_range("u2", 65535), ">")
    arguments = ("search", "--table", table_file, "--out", tmp_path / "run", "--channels", 4, "--cells", 1)
    assert_one_clear_line(run(*arguments, "--data", f"imagefolder:{tmp_path / 'images'}"), "greyscale.*grey=repeat")


def rgb(size: int = 16) -> Image.Image:
    return Image.fromarray(GENERATOR.integers(0, 256, (size, size, 3), dtype=np.uint8))


def save_every_8_bit_kind(folder: Path) -> None:
    """Write images of all modes and formats with 8 bits a channel or fewer."""
    folder.mkdir(parents=True)
    for mode, suffix in (
        ("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("LA", "png"), ("L", "png"), ("1", "png"), ("PA", "tif"),
        ("CMYK", "jpg"), ("CMYK", "tif"), ("L", "jpg"), ("RGB", "jfif"), ("RGB", "bmp"), ("1", "bmp"), ("P", "gif"),
        ("RGB", "webp"), ("RGBA", "webp"), ("RGB", "tiff"), ("YCbCr", "tif"), ("RGB", "jp2"), ("RGB", "ppm"),
        ("1", "pbm"), ("RGB", "tga"), ("RGB", "ico"), ("RGB", "JPEG"), ("P", "pcx"), ("RGB", "dib"),
    ):  # fmt: skip
        image = rgb().convert("RGBA").convert("P") if mode == "PA" else rgb().convert(mode)
        options = {"format": "JPEG"} if suffix == "jfif" else {"sizes": [(16, 16)]} if suffix == "ico" else {}
        image.save(folder / f"{mode}_{suffix}.{suffix}", **options)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    rgb().save(folder / "rotated.jpg", exif=exif)
    frames = [rgb() for _ in range(3)]
    for suffix in ("gif", "tif", "webp", "apng"):
        options = {"format": "PNG"} if suffix == "apng" else {}
        frames[0].save(folder / f"frames.{suffix}", save_all=True, append_images=frames[1:], **options)


def test_every_8_bit_kind_is_converted_to_rgb_as_by_pillow(tmp_path: Path) -> None:
    save_every_8_bit_kind(tmp_path / "cat")
    write_images(tmp_path, 20, side=16, classes=("dog",))
    loaded: list[dict[bytes, Tensor]] = []
    for stream in ("yes", "no"):
        data = load_data(f"imagefolder:{tmp_path}?grey=repeat&stream={stream}")
        loaded.append({})
        for split in (data.train, data.validation, data.test):
            files = split.full_size
            assert not isinstance(files, Tensor)
            loaded[-1] |= dict(zip(files.names.tolist(), split.images[torch.arange(len(split))], strict=True))
    streamed, in_memory = loaded
    assert len(streamed) == len(in_memory) == 20 + len(list((tmp_path / "cat").iterdir()))
    for name, image in streamed.items():
        with Image.open(tmp_path / name.decode()) as file:
            expected = np.asarray(file.convert("RGB"))
        assert np.array_equal(image.permute(1, 2, 0), expected), name
        assert torch.equal(image, in_memory[name]), name


def test_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "lime", "blue")]
    for suffix in ("gif", "tif"):
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
        assert open_image(tmp_path / f"x.{suffix}", repeat_grey=False).getpixel((1, 1)) == (255, 0, 0)


def test_readable_suffixes_are_those_that_pillow_decodes() -> None:
    suffixes = readable_suffixes()
    assert {".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg", ".png", ".ppm"} <= suffixes
    assert not suffixes & {".h5", ".mpg", ".pdf", ".txt", ".eps", ".wmf"}
