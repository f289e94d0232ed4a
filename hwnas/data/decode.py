"""Decode an image file into 8-bit RGB."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hwnas.errors import HwnasError

GREY_MODES = ("1", "L", "LA", "La", "I", "F")  # and I;16 in every byte order
STUBS = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")  # formats that Pillow recognises but cannot decode by itself
DARKEST = 1 / 256  # an image whose largest value is a smaller share of its type's range would decode to black
TOLERANCE = 1e-6  # rounding of floats in 0..1
BITS_PER_SAMPLE, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # TIFF tags
WHITE_IS_ZERO, SIGNED = 0, 2  # their values


@cache
def readable_suffixes() -> frozenset[str]:
    """Return the suffixes, in lower case, of the image files that Pillow decodes."""
    Image.init()
    return frozenset(
        suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN and kind not in STUBS
    )


def open_image(path: Path, repeat_grey: bool) -> Image.Image:
    """Return the first frame of an image file in RGB, 8 bits a channel.

    Greyscale values of more bits are scaled by the range of their type, floats from 0..1. Raises HwnasError if the file
    is unreadable, if its values do not use that range or, without ``repeat_grey``, if it is greyscale.
    """
    try:
        with Image.open(path) as image:
            image.load()
            eight_bit = _scale_to_8_bits(image, path) if image.mode[0] in "IF" else image
            if (image.mode in GREY_MODES or image.mode.startswith("I;")) and not repeat_grey:
                raise HwnasError(
                    f"image {path} is greyscale (mode {image.mode}), but RGB is expected",
                    "give greyscale images three equal channels with grey=repeat, as in imagefolder:PATH?grey=repeat",
                )
            return eight_bit.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HwnasError(f"cannot read image {path}: {error}", "remove or replace the file") from None


def _scale_to_8_bits(image: Image.Image, path: Path) -> Image.Image:
    """Map 0..(largest value of the type) to 0..255. Raises HwnasError for values that do not fit this mapping."""
    values, largest, kind = _samples(image)
    low, high = float(values.min()), float(values.max())
    if not (low >= -TOLERANCE and high <= largest + TOLERANCE):  # NaN compares as False
        raise HwnasError(
            f"image {path} has {kind} values from {low:g} to {high:g}, but 0 to {largest:g} is expected",
            "save it with 8 bits a channel",
        )
    if 0 < high < largest * DARKEST:
        raise HwnasError(
            f"image {path} has {kind} values up to {high:g} only, which are black on the scale of 0 to {largest:g}",
            "scale its values to the full range, or save it with 8 bits a channel",
        )
    levels = np.clip(np.rint(values.astype(np.float64) * (255 / largest)), 0, 255).astype(np.uint8)
    return Image.fromarray(255 - levels if _tag(image, PHOTOMETRIC, 1) == WHITE_IS_ZERO else levels)


def _samples(image: Image.Image) -> tuple[NDArray[np.generic], int, str]:
    """Return the values of an I, I;16 or F image, the largest value of their type, and the name of the type."""
    values: NDArray[np.generic] = np.asarray(image)
    big_endian = image.format == "TIFF" and getattr(image, "tag_v2").prefix == b"MM"  # noqa: B009
    if image.mode in "IF" and big_endian and image.info.get("compression") != "raw":
        raise ValueError("Pillow swaps the bytes of compressed big-endian values; save it uncompressed")
    if image.mode == "F":
        return values, 1, "float"
    bits = 16 if image.mode.startswith("I;16") or image.format in ("PNG", "PPM") else 32
    bits = _tag(image, BITS_PER_SAMPLE, bits)
    signed = _tag(image, SAMPLE_FORMAT, SIGNED if bits == 32 else 1) == SIGNED
    if image.format == "FITS" and bits == 16:  # signed, but Pillow returns the bits as unsigned
        values, signed = values.astype(np.uint16).view(np.int16), True
    if bits == 32 and not signed:  # Pillow returns unsigned values in a signed type
        values = values.view(np.uint32)
    return values, 2 ** (bits - signed) - 1, f"{bits}-bit integer"


def _tag(image: Image.Image, number: int, default: int) -> int:
    """Return the first value of a tag of a TIFF image; ``default`` for other formats and absent tags."""
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    value = tags.get(number, default)
    return int(value[0] if isinstance(value, tuple) else value)
