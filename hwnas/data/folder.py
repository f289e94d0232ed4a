"""Images in one folder per class: ``imagefolder:PATH``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hwnas.compute.seeds import SplitSeed
from hwnas.data.decode import open_image
from hwnas.data.files import Fit, ImageFiles
from hwnas.data.images import HELD_OUT, SAMPLED, ImageData, SelectImages, Split, divide
from hwnas.data.layout import ClassFiles, find_splits, list_images
from hwnas.data.memory import memory_bytes
from hwnas.data.split_names import SplitName
from hwnas.data.summary import LeftOut, log_summary, warn_of_absent_classes
from hwnas.errors import HwnasError
from hwnas.progress import Progress

SHARE_OF_MEMORY = 0.25  # share of the memory that decoded images may take


def image_folder(spec: str, root: Path, options: dict[str, str], select: SelectImages, progress: Progress) -> ImageData:
    """Load a folder per split, each with ``CLASS/*``, or ``CLASS/*`` alone.

    Folders of splits have names such as train, Training, val or Testing. A fifth of the training images is held out for
    each missing split. ``select`` returns the indices of the images of a split to use. Logs one line with the classes,
    the images per split and what is left out.
    """
    if not root.is_dir():
        raise HwnasError(f"image folder {root} does not exist", "use imagefolder:PATH with one folder a class inside")
    splits = _read_splits(root)

    def selected(name: SplitName) -> ClassFiles:
        files = splits.files(name)
        chosen = files.subset(select(files.classes, name))
        if not len(chosen.names):
            raise HwnasError(
                f"there are no {name} images", "give every class at least 4 images, or add a folder of them"
            )
        return chosen

    train, validation = selected("train"), selected("validation")
    _log_splits(spec, splits, selected, progress)
    repeat_grey = "grey" in options
    fit = _fit(spec, options, train.folder / os.fsdecode(train.names[0]), repeat_grey)
    stream = _streamed(spec, options.get("stream"), len(train.names), len(validation.names), fit, progress)

    def split(name: str, listed: ClassFiles) -> Split:
        files = ImageFiles(listed.folder, listed.names, fit, repeat_grey)
        classes = torch.from_numpy(listed.classes).long()
        return Split(files, classes) if stream else Split(_read(files, name, progress), classes, files)

    return ImageData(
        spec,
        splits.labels,
        split("train", train),
        split("validation", validation),
        load_test=lambda: split("test", selected("test")),
    )


@dataclass(frozen=True)
class _Splits:
    """Class names, image files of the splits, and the folder that each split is read from or held out of.

    The test split is missing from ``listed`` if its folder cannot be used: reading it raises the reason.
    """

    labels: tuple[str, ...]
    listed: dict[SplitName, ClassFiles]
    sources: dict[SplitName, str]
    test_folder: Path | None
    left_out: LeftOut

    def files(self, name: SplitName) -> ClassFiles:
        if name not in self.listed and self.test_folder is not None:
            return list_images(self.test_folder, self.labels).files
        return self.listed[name]


def _read_splits(root: Path) -> _Splits:
    """List the images of all splits; hold out those that have no folder. Reads no image."""
    folders, left_out = find_splits(root)
    whole = list_images(folders["train"])
    left_out.add(whole.left_out)
    train = whole.files
    listed: dict[SplitName, ClassFiles] = {}
    sources: dict[SplitName, str] = {name: str(folder.relative_to(root)) for name, folder in folders.items()}
    held_out_of = f"held out of {sources['train']}" if folders["train"] != root else "held out"
    if "test" not in folders:
        keep, held = divide(train.classes, (1 - HELD_OUT, HELD_OUT), SplitSeed.SECOND_HOLD_OUT)
        train, listed["test"], sources["test"] = train.subset(keep), train.subset(held), held_out_of
    if "validation" not in folders:
        share = HELD_OUT if "test" in folders else HELD_OUT / (1 - HELD_OUT)
        keep, held = divide(train.classes, (1 - share, share))
        train, listed["validation"], sources["validation"] = train.subset(keep), train.subset(held), held_out_of
    else:
        found = list_images(folders["validation"], whole.labels)
        listed["validation"] = found.files
        left_out.add(found.left_out)
    if "test" in folders:
        with contextlib.suppress(HwnasError):  # raised when the test images are read: a search does not need them
            found = list_images(folders["test"], whole.labels)
            listed["test"] = found.files
            left_out.add(found.left_out)
    return _Splits(whole.labels, listed | {"train": train}, sources, folders.get("test"), left_out)


def _log_splits(spec: str, splits: _Splits, selected: Callable[[SplitName], ClassFiles], progress: Progress) -> None:
    """Log one line about the data set, and a warning for classes that a split lacks."""
    names: tuple[SplitName, ...] = ("train", "validation", "test")
    texts: list[str] = []
    classes: dict[str, NDArray[np.int64]] = {}
    for name in names:
        source = splits.sources[name]
        try:
            chosen, total = selected(name), len(splits.files(name).names)
        except HwnasError as error:  # of the test split: its images are not needed yet
            texts.append(f"no {name} ({error.problem})")
            continue
        of_total = f" of {total:,}" if len(chosen.names) != total else ""
        texts.append(f"{len(chosen.names):,}{of_total} {name}" + (f" ({source})" if source not in (name, ".") else ""))
        classes[name] = chosen.classes
    log_summary(progress, spec, splits.labels, texts, splits.left_out)
    warn_of_absent_classes(progress, spec, splits.labels, classes)


def _fit(spec: str, options: dict[str, str], first: Path, repeat_grey: bool) -> Fit:
    """Return the requested size, by default that of the first image."""
    crop = options.get("crop") == "yes"
    if "size" in options:
        return Fit(int(options["size"]), int(options["size"]), "crop" if crop else "squeeze")
    if crop:
        raise HwnasError(f"crop=yes in data {spec!r} needs a size", "add size=N, as in size=224&crop=yes")
    width, height = open_image(first, repeat_grey).size
    return Fit(height, width)


def _streamed(spec: str, requested: str | None, train: int, validation: int, fit: Fit, progress: Progress) -> bool:
    """Return True, and log it, if the images are streamed: decoded on access instead of kept in memory."""
    size, memory = (train + validation) * 3 * fit.height * fit.width, memory_bytes()
    if requested == "no" or (requested is None and size <= SHARE_OF_MEMORY * memory):
        return False
    why = "as requested" if requested else f"in memory they would take {size / 1e9:.3g} of {memory / 1e9:.3g} GB"
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
