"""Where images come from: ``digits``, ``cifar10:FOLDER``, ``imagefolder:PATH``, ``python:package.module:FUNCTION``,
each with options behind ``?``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch

from hwnas.data.folder import image_folder
from hwnas.data.images import HELD_OUT, ImageData, Split, divide
from hwnas.data.own import python_data
from hwnas.data.torchvision_cpu import torchvision_datasets
from hwnas.errors import HwnasError
from hwnas.progress import Progress

FORMS = (
    "use digits, cifar10:FOLDER, imagefolder:PATH or python:package.module:FUNCTION, "
    "options behind ?, for instance digits?size=16"
)
COUNTS = ("train", "validation", "test")
OPTIONS = {
    "digits": {"size"},
    "cifar10": {"download", *COUNTS},
    "imagefolder": {"size", "crop", "grey", "stream", *COUNTS},
    "python": set(COUNTS),
}
ANSWERS = {"crop": ("yes", "no"), "download": ("yes", "no"), "stream": ("yes", "no"), "grey": ("repeat",)}


def load_data(spec: str, progress: Progress | None = None) -> ImageData:
    """Load the training and validation images that ``spec`` names; test images are read when they are asked for.

    ``train=``, ``validation=``, ``test=`` take that many images, the same share of every class. ``size=`` resizes to a
    square; with ``crop=yes`` no image is squeezed: the shorter side becomes 8/7 of the size, the middle is taken.
    ``grey=repeat`` copies the channel of greyscale images three times. ``stream=yes`` keeps no image of a folder in
    memory; by default that is so when they would take more than a quarter of it. It changes no pixel.

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
    for name, answers in ANSWERS.items():
        if options.get(name, answers[0]) not in answers:
            raise HwnasError(f"{name}={options[name]!r} in data {spec!r} is not {' or '.join(answers)}")
    for name in (*COUNTS, "size"):
        if name in options and not re.fullmatch(r"[1-9]\d{0,8}", options[name]):
            raise HwnasError(f"{name}={options[name]!r} in data {spec!r} is not a whole number of at least 1")
    if kind == "digits":
        return _digits(spec, int(options.get("size", 32)))
    if kind == "cifar10":
        return _cifar10(spec, Path(place or "data"), options)

    def some(labels: np.ndarray, name: str) -> np.ndarray:
        return _some(np.arange(len(labels)), labels, options, name)

    if kind == "python":
        return python_data(spec, place, some)
    if not place:
        raise HwnasError("imagefolder without a folder", "write imagefolder:PATH")
    return image_folder(spec, Path(place), options, some, progress or Progress(quiet=True))


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


def _some(indices: np.ndarray, targets: np.ndarray, options: dict[str, str], name: str) -> np.ndarray:
    """As many of the indices as the option asks for, the same share of every class."""
    if name not in options:
        return indices
    wanted = int(options[name])
    if wanted > len(indices):
        raise HwnasError(f"{name}={wanted}, but there are only {len(indices)} images for it")
    return indices[divide(targets[indices], (wanted / len(indices),), seed=2)[0]]
