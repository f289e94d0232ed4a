"""Where images come from: ``digits``, ``cifar10:FOLDER``, ``imagefolder:PATH``, ``python:package.module:FUNCTION``,
each with options behind ``?``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from hwnas.data.images import HELD_OUT, ImageData, Split, divide
from hwnas.data.own import python_data
from hwnas.data.torchvision_cpu import torchvision_datasets
from hwnas.errors import HwnasError

FORMS = (
    "use digits, cifar10:FOLDER, imagefolder:PATH or python:package.module:FUNCTION, "
    "options behind ?, for instance digits?size=16"
)
COUNTS = ("train", "validation", "test")
OPTIONS = {
    "digits": {"size"},
    "cifar10": {"download", *COUNTS},
    "imagefolder": {"size", "grey", *COUNTS},
    "python": set(COUNTS),
}
Progress = Callable[[str, int, int], None]


def load_data(spec: str, progress: Progress = lambda stage, done, total: None) -> ImageData:
    """Load the training and validation images that ``spec`` names; test images are read when they are asked for.

    ``train=``, ``validation=``, ``test=`` take that many images, the same share of every class. ``size=`` resizes,
    ``grey=repeat`` copies the channel of greyscale images three times.

    Raises HwnasError for an unknown source or option, a function that fails or gives no images, a missing or empty
    folder, an unreadable, truncated or greyscale image, or images of different sizes without ``size``.
    """
    found = re.fullmatch(r"(\w+)(?::([^?]*))?(?:\?(.*))?", spec)
    if not found or found[1] not in OPTIONS:
        raise HwnasError(f"unknown data {spec!r}", FORMS)
    kind, place, query = found[1], found[2] or "", found[3] or ""
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(options) - OPTIONS[kind]
    if unknown:
        known = ", ".join(sorted(OPTIONS[kind]))
        raise HwnasError(f"unknown option {min(unknown)!r} in data {spec!r}", f"{kind} takes {known}")
    for name in (*COUNTS, "size"):
        if name in options and not re.fullmatch(r"[1-9]\d{0,8}", options[name]):
            raise HwnasError(f"{name}={options[name]!r} in data {spec!r} is not a whole number of at least 1")
    if kind == "digits":
        return _digits(spec, int(options.get("size", 32)))
    if kind == "cifar10":
        return _cifar10(spec, Path(place or "data"), options)
    if kind == "python":
        return python_data(spec, place, lambda labels, name: _some(np.arange(len(labels)), labels, options, name))
    if not place:
        raise HwnasError("imagefolder without a folder", "write imagefolder:PATH")
    return _image_folder(spec, Path(place), options, progress)


def _digits(spec: str, size: int) -> ImageData:
    """scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey, resized bilinearly and given three equal channels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy(digits.images).float()[:, None] * (255 / 16)
    resized = torch.nn.functional.interpolate(grey, size=(size, size), mode="bilinear", align_corners=False)
    images = resized.round().to(torch.uint8).repeat(1, 3, 1, 1)
    targets = torch.from_numpy(digits.target).long()
    train, validation, test = (torch.from_numpy(i) for i in divide(digits.target, (0.6, 0.2, 0.2)))
    return ImageData(
        name=spec,
        labels=tuple(str(d) for d in range(10)),
        train=Split(images[train], targets[train]),
        validation=Split(images[validation], targets[validation]),
        load_test=lambda: Split(images[test], targets[test]),
        flip=False,
    )


def _cifar10(spec: str, folder: Path, options: dict[str, str]) -> ImageData:
    """CIFAR-10 through torchvision, from disk or fetched (``download=yes``); a fifth of training is held out."""
    datasets = torchvision_datasets()

    def load(train: bool) -> Any:
        try:
            return datasets.CIFAR10(str(folder), train=train, download=options.get("download") == "yes")
        except (RuntimeError, OSError) as error:
            raise HwnasError(
                f"CIFAR-10 is not in {folder} ({str(error).splitlines()[0]})",
                f"fetch it with --data 'cifar10:{folder}?download=yes'",
            ) from error

    def split(data: Any, chosen: np.ndarray) -> Split:
        targets = np.array(data.targets)
        images = torch.from_numpy(data.data[chosen]).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.from_numpy(targets[chosen]).long())

    training = load(True)
    targets = np.array(training.targets)
    train, validation = divide(targets, (1 - HELD_OUT, HELD_OUT))
    train, validation = _some(train, targets, options, "train"), _some(validation, targets, options, "validation")

    def test() -> Split:
        data = load(False)
        return split(data, _some(np.arange(len(data.targets)), np.array(data.targets), options, "test"))

    return ImageData(spec, tuple(training.classes), split(training, train), split(training, validation), test)


def _image_folder(spec: str, root: Path, options: dict[str, str], progress: Progress) -> ImageData:
    """``train/CLASS/*`` with, if they are there, ``validation`` (or ``val``, ``valid``) and ``test`` beside it;
    or ``CLASS/*`` alone, of which a fifth each is held out for validation and test.
    """
    if not root.is_dir():
        raise HwnasError(f"image folder {root} does not exist", "write imagefolder:PATH with one folder a class inside")
    base = root / "train" if (root / "train").is_dir() else root
    files, targets, labels = _list(base)
    reader = _Reader(options, progress)
    everything = np.arange(len(files))
    own_validation = next((root / n for n in ("validation", "valid", "val") if (root / n).is_dir()), None)
    own_test = root / "test" if base != root and (root / "test").is_dir() else None
    rest = everything
    if own_test is None:
        keep, held = divide(targets, (1 - HELD_OUT, HELD_OUT), seed=1)
        test_files, test_targets, rest = files[held], targets[held], keep
    if own_validation is None or base == root:
        share = HELD_OUT if own_test else HELD_OUT / (1 - HELD_OUT)
        train, held = divide(targets[rest], (1 - share, share))
        train, held = rest[train], rest[held]
        validation_files, validation_targets = files[held], targets[held]
    else:
        train = rest
        validation_files, validation_targets, _ = _list(own_validation, labels)

    def split(paths: np.ndarray, classes: np.ndarray, name: str) -> Split:
        chosen = _some(np.arange(len(paths)), classes, options, name)
        return reader.read(paths[chosen], classes[chosen], name)

    def test() -> Split:
        if own_test is None:
            return split(test_files, test_targets, "test")
        paths, classes, _ = _list(own_test, labels)
        return split(paths, classes, "test")

    return ImageData(
        spec,
        labels,
        split(files[train], targets[train], "train"),
        split(validation_files, validation_targets, "validation"),
        test,
    )


def _list(folder: Path, expected: tuple[str, ...] | None = None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Image files, their class numbers and the class names, through torchvision's ImageFolder."""
    shape = "put images into one folder a class, such as PATH/train/cat/1.jpg"
    try:
        listing = torchvision_datasets().ImageFolder(str(folder))
    except FileNotFoundError as error:
        raise HwnasError(f"image folder {folder} has no images: {str(error).splitlines()[0]}", shape) from None
    if expected is not None and tuple(listing.classes) != expected:
        raise HwnasError(f"image folder {folder} has other classes than the training images", shape)
    if len(listing.classes) < 2:
        raise HwnasError(f"image folder {folder} has one class only", shape)
    files = np.array([path for path, _ in listing.samples])
    return files, np.array(listing.targets), tuple(listing.classes)


def _some(indices: np.ndarray, targets: np.ndarray, options: dict[str, str], name: str) -> np.ndarray:
    """As many of the indices as the option asks for, the same share of every class."""
    if name not in options:
        return indices
    wanted = int(options[name])
    if wanted > len(indices):
        raise HwnasError(f"{name}={wanted}, but there are only {len(indices)} images for it")
    return indices[divide(targets[indices], (wanted / len(indices),), seed=2)[0]]


class _Reader:
    """Decodes images of one size, which the option or the first image gives."""

    def __init__(self, options: dict[str, str], progress: Progress) -> None:
        self.size = (int(options["size"]),) * 2 if "size" in options else None
        self.resize = "size" in options
        self.repeat_grey = options.get("grey") == "repeat"
        self.progress = progress

    def read(self, paths: np.ndarray, targets: np.ndarray, name: str) -> Split:
        decoded = []
        for number, path in enumerate(paths):
            decoded.append(self._decode(str(path)))
            if number % 200 == 0 or number + 1 == len(paths):
                self.progress(f"reading {name} images", number + 1, len(paths))
        if not decoded:
            raise HwnasError(f"there are no {name} images", "give a folder with more images")
        images = torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.from_numpy(targets).long())

    def _decode(self, path: str) -> np.ndarray:
        try:
            with Image.open(path) as image:
                image.load()
                if image.mode in ("1", "L", "LA", "I", "I;16", "F") and not self.repeat_grey:
                    raise HwnasError(
                        f"image {path} is greyscale (mode {image.mode}), RGB is expected",
                        "add grey=repeat behind the data, as in imagefolder:PATH?grey=repeat",
                    )
                colour = image.convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise HwnasError(f"cannot read image {path}: {error}", "remove or replace it") from None
        if self.resize and self.size:
            colour = colour.resize((self.size[1], self.size[0]), Image.Resampling.BILINEAR)
        self.size = self.size or (colour.height, colour.width)
        if (colour.height, colour.width) != self.size:
            raise HwnasError(
                f"image {path} is {colour.width}x{colour.height}, others are {self.size[1]}x{self.size[0]}",
                "add size=N behind the data, as in imagefolder:PATH?size=32",
            )
        return np.asarray(colour)
