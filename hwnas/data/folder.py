"""Images in one folder per class: ``imagefolder:PATH``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.compute.seeds import SplitSeed
from hwnas.data.files import Fit, ImageFiles, open_image
from hwnas.data.images import HELD_OUT, SAMPLED, ImageData, SelectImages, Split, divide
from hwnas.data.memory import memory_bytes
from hwnas.data.torchvision_cpu import torchvision_datasets
from hwnas.errors import HwnasError
from hwnas.progress import Progress

SHARE_OF_MEMORY = 0.25  # share of the memory that decoded images may take


@dataclass(frozen=True)
class ClassFiles:
    """Image files and their class numbers [N]. ``names`` are relative paths, as bytes to save memory."""

    folder: Path
    names: NDArray[np.bytes_]
    classes: NDArray[np.int64]

    def subset(self, indices: NDArray[np.int64]) -> ClassFiles:
        return ClassFiles(self.folder, self.names[indices], self.classes[indices])


def image_folder(spec: str, root: Path, options: dict[str, str], select: SelectImages, progress: Progress) -> ImageData:
    """Load ``train/CLASS/*`` with optional ``validation`` (or ``val``, ``valid``) and ``test``, or ``CLASS/*``.

    A fifth of the training images is held out for each missing split. ``select`` returns the indices of the images of a
    split to use.
    """
    if not root.is_dir():
        raise HwnasError(f"image folder {root} does not exist", "use imagefolder:PATH with one folder a class inside")
    base = root / "train" if (root / "train").is_dir() else root
    whole, labels = _list(base)
    own_validation = next((root / n for n in ("validation", "valid", "val") if (root / n).is_dir()), None)
    own_test = root / "test" if base != root and (root / "test").is_dir() else None
    train = whole
    if own_test is None:
        keep, held_for_test = divide(whole.classes, (1 - HELD_OUT, HELD_OUT), SplitSeed.SECOND_HOLD_OUT)
        train = whole.subset(keep)
    if own_validation is None or base == root:
        share = HELD_OUT if own_test else HELD_OUT / (1 - HELD_OUT)
        keep, held = divide(train.classes, (1 - share, share))
        train, validation = train.subset(keep), train.subset(held)
    else:
        validation, _ = _list(own_validation, labels)

    def wanted(name: str, listed: ClassFiles) -> ClassFiles:
        found = listed.subset(select(listed.classes, name))
        if not len(found.names):
            raise HwnasError(f"there are no {name} images", "give a folder with more images")
        return found

    train, validation = wanted("train", train), wanted("validation", validation)
    repeat_grey = "grey" in options
    fit = _fit(spec, options, train.folder / os.fsdecode(train.names[0]), repeat_grey)
    stream = _streamed(spec, options.get("stream"), len(train.names), len(validation.names), fit, progress)

    def split(name: str, listed: ClassFiles) -> Split:
        files = ImageFiles(listed.folder, listed.names, fit, repeat_grey)
        classes = torch.from_numpy(listed.classes).long()
        return Split(files, classes) if stream else Split(_read(files, name, progress), classes, files)

    def test() -> Split:
        return split("test", wanted("test", _list(own_test, labels)[0] if own_test else whole.subset(held_for_test)))

    return ImageData(spec, labels, split("train", train), split("validation", validation), test)


def _list(folder: Path, expected: tuple[str, ...] | None = None) -> tuple[ClassFiles, tuple[str, ...]]:
    """Return the image files of a folder and the names of its classes, as torchvision's ImageFolder lists them."""
    shape = "put images into one folder per class, such as PATH/train/cat/1.jpg"
    try:
        listing = torchvision_datasets().ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise HwnasError(f"image folder {folder} has no images: {str(error).splitlines()[0]}", shape) from None
    if expected is not None and tuple(listing.classes) != expected:
        raise HwnasError(f"image folder {folder} has other classes than the training images", shape)
    if len(listing.classes) < 2:
        raise HwnasError(f"image folder {folder} has one class only", shape)
    above = os.path.join(folder, "")
    names = np.array([os.fsencode(path.removeprefix(above)) for path, _ in listing.samples])
    return ClassFiles(folder, names, np.array(listing.targets)), tuple(listing.classes)


def _fit(spec: str, options: dict[str, str], first: Path, repeat_grey: bool) -> Fit:
    """Return the requested size, by default that of the first image."""
    crop = options.get("crop") == "yes"
    if "size" in options:
        return Fit(int(options["size"]), int(options["size"]), "crop" if crop else "squeeze")
    if crop:
        raise HwnasError(f"crop=yes in data {spec!r} needs a size", "add size=N, as in size=224&crop=yes")
    width, height = open_image(first, repeat_grey).size
    return Fit(height, width)


def _streamed(spec: str, asked: str | None, train: int, validation: int, fit: Fit, progress: Progress) -> bool:
    """Return True, and log it, if the images are streamed: decoded on access instead of kept in memory."""
    size, memory = (train + validation) * 3 * fit.height * fit.width, memory_bytes()
    if asked == "no" or (asked is None and size <= SHARE_OF_MEMORY * memory):
        return False
    why = "as requested" if asked else f"in memory they would take {size / 1e9:.3g} of {memory / 1e9:.3g} GB"
    sampled = f"; mean and standard deviation are computed from {SAMPLED:,} training images" if train > SAMPLED else ""
    progress.log(f"{spec}: images are decoded when needed ({why}){sampled}")
    return True


def _read(files: ImageFiles, name: str, progress: Progress) -> Tensor:
    images = torch.empty(files.shape, dtype=torch.uint8)
    for index in range(len(files)):
        images[index] = files.decode(index)
        if index % 200 == 0 or index + 1 == len(files):
            progress(f"reading {name} images", index + 1, len(files))
    return images
