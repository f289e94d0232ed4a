"""List the image files of a folder: its splits, its classes, and the files that are left out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.data.decode import readable_suffixes
from hwnas.data.split_names import SplitName, split_of
from hwnas.data.summary import LeftOut, list_names
from hwnas.errors import HwnasError
from hwnas.text import printable, quoted, shorten

PREFERRED = ("train", "validation", "valid", "val", "test")  # of several folders of one split the first of these
WRAPPERS = ("images", "image", "imgs", "img", "pictures", "photos", "jpg", "jpeg", "png")  # folders in class folders
LITTER = (
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin",
    "system volume information", "lost+found", "__pycache__",
)  # fmt: skip
LONGEST_SUFFIX = 20
SHAPE = "put images into one folder a class, such as PATH/train/cat/1.jpg"


@dataclass(frozen=True)
class ClassFiles:
    """Image files and their class numbers [N]. ``names`` are relative paths, as bytes to save memory."""

    folder: Path
    names: NDArray[np.bytes_]
    classes: NDArray[np.int64]

    def subset(self, indices: NDArray[np.int64]) -> ClassFiles:
        return ClassFiles(self.folder, self.names[indices], self.classes[indices])


@dataclass(frozen=True)
class Listing:
    """Class names and image files of one split, and what was left out."""

    labels: tuple[str, ...]
    files: ClassFiles
    left_out: LeftOut


def find_splits(root: Path) -> tuple[dict[SplitName, Path], LeftOut]:
    """Return the folders of the splits in ``root``, and what is left out.

    Without folders of splits, ``root`` itself is the train split. Raises HwnasError for two folders of one split, and
    for other splits without a train split.
    """
    left_out = LeftOut()
    folders, images = _read_folder(root, left_out)
    named: dict[SplitName, list[str]] = {}
    for name in folders:
        if split := split_of(name):
            named.setdefault(split, []).append(name)
    training = [name for name in named.get("train", []) if _holds_folders(root / name)]
    if not training:
        _refuse_splits_without_training(root, named)
        return {"train": root}, LeftOut()
    named["train"] = training
    chosen = {split: _choose_folder(root, split, names) for split, names in named.items()}
    left_out.count("images outside class folders", len(images))
    left_out.folders.extend(name for name in folders if name not in chosen.values())
    return {split: _innermost(root / name, split) for split, name in chosen.items()}, left_out


def list_images(folder: Path, expected: tuple[str, ...] | None = None) -> Listing:
    """List the images of every class folder in ``folder``, in the order of torchvision's ImageFolder.

    Raises HwnasError for fewer than two classes, a class without images, other classes than the ``expected`` ones, and
    class folders that hold folders instead of images.
    """
    left_out = LeftOut()
    labels, outside = _read_folder(folder, left_out)
    if not labels:
        content = "images, but no class folders" if outside else f"no images{_in_brackets(left_out)}"
        raise HwnasError(f"image folder {folder} has {content}", SHAPE)
    left_out.count("images outside class folders", len(outside))
    found = {label: _list_class(folder, label, left_out) for label in labels}
    _check_classes(folder, found, expected, left_out)
    names = np.array([os.fsencode(name) for names in found.values() for name in names])
    classes = np.repeat(np.arange(len(labels)), [len(names) for names in found.values()])
    return Listing(tuple(labels), ClassFiles(folder, names, classes), left_out)


def _holds_folders(folder: Path) -> bool:
    """Return True for a folder that holds folders and no images; a folder ``train`` may hold images, too."""
    folders, images = _read_folder(folder, LeftOut())
    return bool(folders) and (not images or folder.name == "train")


def _refuse_splits_without_training(root: Path, named: dict[SplitName, list[str]]) -> None:
    """Raise HwnasError for a folder of a split, unless images directly in it suggest that it is a class folder."""
    others = [name for split, names in named.items() if split != "train" for name in names]
    if "train" in named and others:
        flat = list_names(named["train"])
        raise HwnasError(f"image folder {root} has splits, but {flat} has no class folders with images", SHAPE)
    if others := [name for name in others if _holds_folders(root / name)]:
        raise HwnasError(
            f"image folder {root} has {list_names(others)}, but no folder of training images",
            "name that folder train",
        )


def _choose_folder(root: Path, split: SplitName, names: list[str]) -> str:
    """Return the folder of a split. Raises HwnasError for several, unless one has a preferred name."""
    if preferred := [name for name in PREFERRED if name in names]:
        return preferred[0]
    if len(names) > 1:
        raise HwnasError(
            f"image folder {root} has several folders of {split} images: {list_names(names)}",
            f"name one of them {split}",
        )
    return names[0]


def _innermost(folder: Path, split: SplitName) -> Path:
    """Return the only folder in ``folder`` if its name means the same split, as in ``seg_train/seg_train``."""
    folders, _ = _read_folder(folder, LeftOut())
    if len(folders) == 1 and split_of(folders[0]) == split and _holds_folders(folder / folders[0]):
        return folder / folders[0]
    return folder


def is_litter(name: str) -> bool:
    """Return True for hidden files and folders, and those that operating systems and editors add."""
    return name.startswith(".") or name.lower() in LITTER


def _read_folder(folder: Path, left_out: LeftOut) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the image files in ``folder``, sorted, and count other files."""
    with os.scandir(folder) as entries:
        folders: list[str] = []
        files: list[str] = []
        for entry in entries:
            (folders if entry.is_dir() else files).append(entry.name)
    left_out.count("hidden or system files", sum(map(is_litter, folders)))
    return sorted(name for name in folders if not is_litter(name)), _image_files(files, left_out)


def _image_files(names: list[str], left_out: LeftOut) -> list[str]:
    """Return the names of image files, sorted, and count the others by suffix."""
    suffixes, images = readable_suffixes(), []
    for name in sorted(names):
        suffix = os.path.splitext(name)[1].lower()
        if is_litter(name):
            left_out.count("hidden or system files")
        elif suffix in suffixes:
            images.append(name)
        else:
            left_out.count(shorten(printable(suffix), LONGEST_SUFFIX) or "without suffix")
    return images


def _list_class(folder: Path, label: str, left_out: LeftOut) -> list[str]:
    """Return the paths, relative to ``folder``, of all images in a class folder and the folders below it."""
    prefix = os.path.join(folder, "")
    files: list[tuple[str, list[str]]] = []
    for parent, folders, names in os.walk(os.path.join(folder, label), followlinks=True):
        left_out.count("hidden or system files", sum(map(is_litter, folders)))
        folders[:] = [name for name in folders if not is_litter(name)]
        files.append((parent.removeprefix(prefix), names))
    return [os.path.join(parent, name) for parent, names in sorted(files) for name in _image_files(names, left_out)]


def _check_classes(
    folder: Path, found: dict[str, list[str]], expected: tuple[str, ...] | None, left_out: LeftOut
) -> None:
    """Raise HwnasError unless there are two or more classes, each has images, and they are the expected ones."""
    if not any(found.values()):
        raise HwnasError(f"image folder {folder} has no images{_in_brackets(left_out)}", SHAPE)
    nested = [label for label, names in found.items() if names and _is_nested(names)]
    if nested:
        raise HwnasError(
            f"image folder {folder}: {list_names(nested)} hold{'s' * (len(nested) == 1)} folders instead of images",
            f"give the folder that holds the classes, such as --data {quoted(f'imagefolder:{folder / nested[0]}')}, "
            "or name the folders of splits train, validation and test",
        )
    if expected is not None:
        _check_expected(folder, [label for label, names in found.items() if names], expected)
    if empty := [label for label, names in found.items() if not names]:
        raise HwnasError(
            f"image folder {folder} has no images of {list_names(empty, 'class')}{_in_brackets(left_out)}",
            "add images, or remove the folder of the class",
        )
    if len(found) < 2:
        raise HwnasError(f"image folder {folder} has one class only ({list_names(list(found))})", SHAPE)


def _is_nested(names: list[str]) -> bool:
    """Return True if all images of a class lie in folders of its folder, other than a single one such as ``images``."""
    inner = {name.split(os.sep)[1] for name in names if name.count(os.sep) > 1}
    is_flat = any(name.count(os.sep) == 1 for name in names)
    return not is_flat and not (len(inner) == 1 and inner.pop().lower() in WRAPPERS)


def _check_expected(folder: Path, labels: list[str], expected: tuple[str, ...]) -> None:
    lacking, unknown = [n for n in expected if n not in labels], [n for n in labels if n not in expected]
    problems = [f"no images of {list_names(lacking, 'class')}"] if lacking else []
    problems += [f"images of {list_names(unknown, 'class')}, unknown in training"] if unknown else []
    if problems:
        raise HwnasError(
            f"image folder {folder} has {' and '.join(problems)}", "give every split the same class folders"
        )


def _in_brackets(left_out: LeftOut) -> str:
    return f" (left out: {left_out})" if str(left_out) else ""
