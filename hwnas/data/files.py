"""Image files, decoded on access and resized to one height and width."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hwnas.data.decode import open_image
from hwnas.errors import HwnasError
from hwnas.files import sha256_of

CROP_MARGIN = 8 / 7  # shorter side of the resized image / side of the crop: 256 for 224, as in the papers' code


@dataclass(frozen=True)
class Fit:
    """Resize an image to ``height`` x ``width``.

    Modes: ``none`` leaves the image as it is, ``squeeze`` resizes both sides, ``crop`` resizes the shorter side to
    8/7 of ``height`` (equal to ``width``) and takes the central square.
    """

    height: int
    width: int
    mode: Literal["none", "squeeze", "crop"] = "none"

    def __call__(self, image: Image.Image) -> Image.Image:
        if self.mode == "squeeze":
            return image.resize((self.width, self.height), Image.Resampling.BILINEAR)
        return _crop_centre(image, self.height) if self.mode == "crop" else image


def _crop_centre(image: Image.Image, side: int) -> Image.Image:
    """Return what torchvision's Resize(8/7 side) and CenterCrop(side) return, with the same rounding."""
    shorter = round(CROP_MARGIN * side)
    width, height = (shorter * length / min(image.size) for length in image.size)
    resized = image.resize((int(width), int(height)), Image.Resampling.BILINEAR)
    left, top = (round((length - side) / 2) for length in resized.size)
    return resized.crop((left, top, left + side, top + side))


@dataclass(frozen=True)
class ImageFiles:
    """Image files [N] that are indexed like uint8 images [N, 3, H, W] in memory.

    A slice returns a subset of the files without reading them; an array of indices returns decoded images.
    ``names`` are paths relative to ``folder``, as bytes [N]. ``repeat_grey`` gives greyscale images three equal
    channels. Decoding raises HwnasError for an image that ``open_image`` refuses, or of another size where ``fit`` does
    not resize.
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
    def __getitem__(self, indices: slice) -> ImageFiles: ...
    @overload
    def __getitem__(self, indices: Tensor | NDArray[np.int64]) -> Tensor: ...
    def __getitem__(self, indices: slice | Tensor | NDArray[np.int64]) -> ImageFiles | Tensor:
        if isinstance(indices, slice):
            return self.subset(np.arange(len(self))[indices])
        images = torch.empty((len(indices), *self.shape[1:]), dtype=torch.uint8)
        for position, index in enumerate(indices):
            images[position] = self.decode(int(index))
        return images

    def subset(self, indices: NDArray[np.int64]) -> ImageFiles:
        return ImageFiles(self.folder, self.names[indices], self.fit, self.repeat_grey)

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.names[index])

    def open(self, index: int) -> Image.Image:
        """Return one image in RGB, at the size it has in its file."""
        return open_image(self.path(index), self.repeat_grey)

    def decode(self, index: int) -> Tensor:
        """Return one image, uint8 [3, H, W]."""
        image = self.fit(self.open(index))
        if image.size != (self.fit.width, self.fit.height):
            raise HwnasError(
                f"image {self.path(index)} is {image.width}x{image.height}, "
                f"but others are {self.fit.width}x{self.fit.height}",
                "resize all images with size=N, as in imagefolder:PATH?size=32",
            )
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the files' names and sizes in bytes. No file is read."""
        bytes_of = [self.path(index).stat().st_size for index in range(len(self))]
        return sha256_of([list(self.shape), self.fit.mode, [os.fsdecode(name) for name in self.names], bytes_of])
