"""Images in files: decoded when they are asked for, and brought to one size."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from hwnas.errors import HwnasError
from hwnas.files import sha256_of

CROP_MARGIN = 8 / 7  # the shorter side over that of the crop: 256 for 224, as in the papers' code
GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")


@dataclass(frozen=True)
class Fit:
    """How an image gets its height and width.

    ``none``: it has them, or is refused. ``squeeze``: resized to them. ``crop``: its shorter side is resized to 8/7 of
    theirs, which are equal, and the middle is taken.
    """

    height: int
    width: int
    how: Literal["none", "squeeze", "crop"] = "none"

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.how == "squeeze":
            return image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return _crop_middle(image, self.height) if self.how == "crop" else image


def _crop_middle(image: Image.Image, side: int) -> Image.Image:
    """torchvision's Resize(8/7 side) and CenterCrop(side), roundings included."""
    shorter = round(CROP_MARGIN * side)
    width, height = (shorter * length / min(image.size) for length in image.size)
    resized = image.resize((int(width), int(height)), Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2) for length in resized.size)
    return resized.crop((left, top, left + side, top + side))


@dataclass(frozen=True)
class ImageFiles:
    """Image files [N], as indexable as uint8 images [N, 3, H, W] in memory: a slice is a part of them, not yet read;
    numbers give decoded images.

    ``names`` are paths in ``folder``, as bytes [N]. Greyscale images are refused unless ``repeat_grey``, which gives
    them three equal channels. Every way to decode one raises HwnasError for an image that is unreadable, truncated,
    greyscale or, where ``fit`` resizes none, of another size.
    """

    folder: Path
    names: NDArray[np.bytes_]
    fit: Fit
    repeat_grey: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), 3, self.fit.height, self.fit.width

    @overload
    def __getitem__(self, chosen: slice) -> ImageFiles: ...
    @overload
    def __getitem__(self, chosen: Tensor | NDArray[np.int64]) -> Tensor: ...
    def __getitem__(self, chosen: slice | Tensor | NDArray[np.int64]) -> ImageFiles | Tensor:
        if isinstance(chosen, slice):
            return self.part(np.arange(len(self))[chosen])
        images = torch.empty((len(chosen), *self.shape[1:]), dtype=torch.uint8)
        for place, number in enumerate(chosen):
            images[place] = self.decode(int(number))
        return images

    def part(self, numbers: NDArray[np.int64]) -> ImageFiles:
        return ImageFiles(self.folder, self.names[numbers], self.fit, self.repeat_grey)

    def path(self, number: int) -> Path:
        return self.folder / os.fsdecode(self.names[number])

    def open(self, number: int) -> Image.Image:
        """One image as it is in its file, in RGB."""
        return open_image(self.path(number), self.repeat_grey)

    def decode(self, number: int) -> Tensor:
        """One image, uint8 [3, H, W]."""
        image = self.fit(self.open(number))
        if image.size != (self.fit.width, self.fit.height):
            raise HwnasError(
                f"image {self.path(number)} is {image.width}x{image.height}, "
                f"others are {self.fit.width}x{self.fit.height}",
                "add size=N behind the data, as in imagefolder:PATH?size=32",
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @cached_property
    def fingerprint(self) -> str:
        """Of names and sizes of the files, none of which is read."""
        bytes_of = [self.path(number).stat().st_size for number in range(len(self))]
        return sha256_of([list(self.shape), self.fit.how, [os.fsdecode(name) for name in self.names], bytes_of])


def open_image(path: Path, repeat_grey: bool) -> Image.Image:
    """An image file in RGB. Raises HwnasError when it is unreadable or, unless ``repeat_grey``, greyscale."""
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in GREY_MODES and not repeat_grey:
                raise HwnasError(
                    f"image {path} is greyscale (mode {image.mode}), RGB is expected",
                    "add grey=repeat behind the data, as in imagefolder:PATH?grey=repeat",
                )
            return image.convert("RGB")
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HwnasError(f"cannot read image {path}: {error}", "remove or replace it") from None
