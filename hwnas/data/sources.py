"""Sources of images, ``digits``, ``cifar10:FOLDER``, ``imagefolder:PATH`` and ``python:package.module:FUNCTION``, and
of text, ``text:PATH``.

Options follow ``?``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch

from hwnas.compute.seeds import SplitSeed
from hwnas.compute.torchvision_cpu import torchvision_datasets
from hwnas.data.folder import image_folder
from hwnas.data.images import HELD_OUT, ImageData, Split, divide
from hwnas.data.summary import log_summary, warn_of_absent_classes
from hwnas.data.text import text_data
from hwnas.data.user_function import python_data
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from hwnas.text import quoted

FORMS = (
    "use digits, cifar10:FOLDER, imagefolder:PATH, python:package.module:FUNCTION or text:PATH, "
    "with options after ?, for instance digits?size=16"
)
COUNTS = ("train", "validation", "test")
SIZES = ("size", "window", "vocabulary")
OPTIONS = {
    "digits": {"size"},
    "cifar10": {"download", *COUNTS},
    "imagefolder": {"size", "crop", "grey", "stream", *COUNTS},
    "python": set(COUNTS),
    "text": {"validation", "test", "window", "vocabulary"},
}
ANSWERS = {"crop": ("yes", "no"), "download": ("yes", "no"), "stream": ("yes", "no"), "grey": ("repeat",)}


def load_data(spec: str, progress: Progress | None = None) -> ImageData:
    """Load the training and validation images of ``spec``. Test images are read on first access.

    ``train=``, ``validation=``, ``test=`` take that many images, the same share of every class. ``size=`` resizes to a
    square; with ``crop=yes`` the shorter side is resized to 8/7 of the size and the central square is taken.
    ``grey=repeat`` copies the channel of greyscale images three times. ``stream=yes`` decodes the images of a folder
    on access instead of keeping them in memory, with the same pixels; it is the default when they would take more than
    a quarter of the memory. Text is described in hwnas.data.text.

    Logs one line with the classes and the images per split, and what is left out of a folder.

    Raises HwnasError for an unknown source or option, a function that fails or returns no images, a missing or empty
    folder, an unreadable, truncated or greyscale image, or images of different sizes without ``size``.
    """
    match = re.fullmatch(r"(\w+)(?::([^?]*))?(?:\?(.*))?", spec)
    if not match or match[1] not in OPTIONS:
        raise HwnasError(f"unknown data {spec!r}", FORMS)
    kind, location, query = match[1], match[2] or "", match[3] or ""
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = set(options) - OPTIONS[kind]
    if unknown:
        known = ", ".join(sorted(OPTIONS[kind]))
        raise HwnasError(f"unknown option {min(unknown)!r} in data {spec!r}", f"options of {kind}: {known}")
    for name, answers in ANSWERS.items():
        if options.get(name, answers[0]) not in answers:
            raise HwnasError(f"{name}={options[name]!r} in data {spec!r} is not {' or '.join(answers)}")
    for name in (*(COUNTS if kind != "text" else ()), *SIZES):
        if name in options and not re.fullmatch(r"[1-9]\d{0,8}", options[name]):
            raise HwnasError(f"{name}={options[name]!r} in data {spec!r} is not a whole number of at least 1")
    if kind == "digits":
        return _digits(spec, int(options.get("size", 32)))
    progress = progress or Progress(quiet=True)
    if kind == "text":
        return text_data(spec, location, options, progress)
    if kind == "cifar10":
        return _logged(_cifar10(spec, Path(location or "data"), options), progress)

    def select(labels: np.ndarray, name: str) -> np.ndarray:
        return _select(np.arange(len(labels)), labels, options, name)

    if kind == "python":
        return _logged(python_data(spec, location, select), progress)
    if not location:
        raise HwnasError("imagefolder needs the path of a folder", "write imagefolder:PATH")
    return image_folder(spec, Path(location), options, select, progress)


def resized(spec: str, shape: tuple[int, int, int]) -> str:
    """Return ``spec`` with images resized to ``shape`` [C, H, W]; unchanged for a source that does not resize.

    Raises HwnasError for a shape that is not square, and where ``spec`` has another size.
    """
    kind, _, query = re.split(r"[:?]", spec, maxsplit=1)[0], *spec.partition("?")[1:]
    if "size" not in OPTIONS.get(kind, ()):
        return spec
    _, height, width = shape
    if height != width:
        raise HwnasError(
            f"images of {height}x{width} are not square, as --data resizes them",
            "give --search-input with equal height and width, such as 3x16x16",
        )
    size = dict(parse_qsl(query)).get("size")
    if size not in (None, str(height)):
        raise HwnasError(f"data {spec!r} has size {size}, and --search-input {height}", "leave out one of them")
    return spec if size else f"{spec}{'&' if query else '?'}size={height}"


def _logged(data: ImageData, progress: Progress) -> ImageData:
    """Log the classes and the number of images; the test images are not counted, because only evaluation reads them."""
    splits = {"train": data.train, "validation": data.validation}
    log_summary(progress, data.name, data.labels, [f"{len(split):,} {name}" for name, split in splits.items()])
    classes = {name: split.targets.cpu().numpy() for name, split in splits.items()}
    warn_of_absent_classes(progress, data.name, data.labels, classes)
    return data


def _digits(spec: str, size: int) -> ImageData:
    """Load scikit-learn's 1,797 handwritten digits (UCI), 8x8 grey: resized bilinearly, with three equal channels."""
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
    """Load CIFAR-10 through torchvision, from disk or by download (``download=yes``); hold out a fifth of training."""
    datasets = torchvision_datasets()

    def load(train: bool) -> Any:
        try:
            return datasets.CIFAR10(str(folder), train=train, download=options.get("download") == "yes")
        except (RuntimeError, OSError) as error:
            raise HwnasError(
                f"CIFAR-10 is not in {folder} ({str(error).splitlines()[0]})",
                f"download it with --data {quoted(f'cifar10:{folder}?download=yes')}",
            ) from error

    def split(data: Any, chosen: np.ndarray) -> Split:
        targets = np.array(data.targets)
        images = torch.from_numpy(data.data[chosen]).permute(0, 3, 1, 2).contiguous()
        return Split(images, torch.from_numpy(targets[chosen]).long())

    training = load(True)
    targets = np.array(training.targets)
    train, validation = divide(targets, (1 - HELD_OUT, HELD_OUT))
    train, validation = _select(train, targets, options, "train"), _select(validation, targets, options, "validation")

    def test() -> Split:
        data = load(False)
        return split(data, _select(np.arange(len(data.targets)), np.array(data.targets), options, "test"))

    return ImageData(spec, tuple(training.classes), split(training, train), split(training, validation), test)


def _select(indices: np.ndarray, targets: np.ndarray, options: dict[str, str], name: str) -> np.ndarray:
    """Return as many indices as the option ``name`` requests, the same share of every class."""
    if name not in options:
        return indices
    wanted = int(options[name])
    if wanted > len(indices):
        raise HwnasError(f"{name}={wanted}, but there are only {len(indices)} images for it")
    return indices[divide(targets[indices], (wanted / len(indices),), SplitSeed.SUBSET)[0]]
