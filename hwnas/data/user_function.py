"""Images returned by a Python function of the user: ``python:package.module:FUNCTION``.

The function takes no arguments and returns one of

* ``(images, labels)``: a fifth each is held out for validation and test,
* a dict with ``train`` and optionally ``validation`` and ``test``, each ``(images, labels)`` or a function that returns
  it (only evaluation calls ``test``); a missing split is held out of ``train``. Optional keys: ``classes`` (one name a
  class) and ``flip`` (False: augmentation does not mirror images),
* a hwnas.data.ImageData, used as it is.

``images`` are uint8 [N, C, H, W] or [N, H, W, C], ``labels`` whole numbers from 0 [N], as numpy arrays or tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hwnas.compute.seeds import SplitSeed
from hwnas.data.images import HELD_OUT, ImageData, SelectImages, Split, divide
from hwnas.errors import HwnasError
from hwnas.imports import import_object

KEYS = ("train", "validation", "test", "classes", "flip")
SHAPE = "return (images, labels), uint8 [N, C, H, W] or [N, H, W, C] and whole numbers from 0 [N]"


def python_data(spec: str, location: str, select: SelectImages) -> ImageData:
    """Call the function at ``location`` (``package.module:FUNCTION``) and check its result.

    ``select`` returns the indices of the images to use. Raises HwnasError if the function does not exist, fails, or
    returns anything but the forms above.
    """
    function = import_object(location, "data")
    if not callable(function):
        raise HwnasError(f"data {spec}: {location} is a {type(function).__name__}, not a function", SHAPE)
    result = _call(spec, location, function)
    if isinstance(result, ImageData):
        return _selected(spec, result, select)
    given = result if isinstance(result, dict) else {"train": result}
    if unknown := [key for key in given if key not in KEYS]:
        raise HwnasError(f"data {spec}: unknown key {str(unknown[0])[:40]!r}", f"use {', '.join(KEYS)}")
    if "train" not in given:
        raise HwnasError(f"data {spec}: it has no training images", SHAPE)

    def read(name: str) -> Split:
        value = given[name]
        return _read_split(spec, name, _call(spec, name, value) if callable(value) else value)

    whole = read("train")
    targets = whole.targets.numpy()
    held: dict[str, np.ndarray] = {}
    rest = np.arange(len(whole))
    missing = [name for name in ("test", "validation") if given.get(name) is None]
    for name in missing:
        share = HELD_OUT * len(whole) / len(rest)
        keep, out = divide(targets[rest], (1 - share, share), SplitSeed(len(held)))
        held[name], rest = rest[out], rest[keep]

    def split(name: str) -> Split:
        return whole.subset(held[name]) if name in held else _check_shape(spec, name, read(name), whole)

    validation = split("validation")
    labels = _class_names(spec, given.get("classes"), whole)

    def test() -> Split:
        return _check_labels(spec, "test", split("test"), labels)

    data = ImageData(
        name=spec,
        labels=labels,
        train=whole.subset(rest),
        validation=_check_labels(spec, "validation", validation, labels),
        load_test=test,
        flip=bool(given.get("flip", True)),
    )
    return _selected(spec, data, select)


def _call(spec: str, name: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except HwnasError:
        raise
    except Exception as error:
        raise HwnasError(f"data {spec}: {name} failed: {type(error).__name__}: {error}", "fix the function") from error


def _selected(spec: str, data: ImageData, select: SelectImages) -> ImageData:
    """Return the data set with the selected images of each split."""

    def choose(split: Split, name: str) -> Split:
        indices = select(split.targets.numpy(), name)
        return split if len(indices) == len(split) else split.subset(indices)

    return replace(
        data,
        name=spec,
        train=choose(data.train, "train"),
        validation=choose(data.validation, "validation"),
        load_test=lambda: choose(data.test, "test"),
    )


def _read_split(spec: str, name: str, value: Any) -> Split:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise HwnasError(f"data {spec}: {name} is a {type(value).__name__}, not (images, labels)", SHAPE)
    try:
        images, targets = (torch.as_tensor(np.asarray(part)) for part in value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise HwnasError(f"data {spec}: {name} is not made of arrays ({error})", SHAPE) from None
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        kind = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        raise HwnasError(f"data {spec}: {name} images are {kind}", SHAPE)
    if targets.dtype.is_floating_point or targets.dtype == torch.bool or list(targets.shape) != [len(images)]:
        kind = f"{str(targets.dtype).removeprefix('torch.')} {list(targets.shape)}"
        raise HwnasError(f"data {spec}: {name} labels are {kind}, of {len(images)} images", SHAPE)
    if int(targets.min()) < 0:
        raise HwnasError(f"data {spec}: {name} has a label below 0", SHAPE)
    first, last = images.shape[1], images.shape[3]
    if first == last:
        raise HwnasError(f"data {spec}: {name} images are {list(images.shape)}: the colour axis is ambiguous", SHAPE)
    images = images if first < last else images.permute(0, 3, 1, 2)
    return Split(images.contiguous(), targets.long())


def _check_shape(spec: str, name: str, split: Split, train: Split) -> Split:
    if split.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{list(split.images.shape[1:])}, but those of train are {list(train.images.shape[1:])}"
        raise HwnasError(f"data {spec}: {name} images are {shapes}", "return images of one size")
    return split


def _class_names(spec: str, names: Sequence[Any] | None, train: Split) -> tuple[str, ...]:
    """Return the class names, by default their numbers.

    Raises HwnasError for fewer than two classes, or for a class without training images.
    """
    count = int(train.targets.max()) + 1
    labels = tuple(str(n) for n in (range(count) if names is None else names))
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise HwnasError(f"data {spec}: it has {len(set(labels))} different classes", "return images of at least two")
    if sorted(set(train.targets.tolist())) != list(range(len(labels))):
        raise HwnasError(
            f"data {spec}: train labels are not all of 0 to {len(labels) - 1}",
            "number the classes from 0, without gaps",
        )
    return labels


def _check_labels(spec: str, name: str, split: Split, labels: tuple[str, ...]) -> Split:
    if int(split.targets.max()) >= len(labels):
        raise HwnasError(f"data {spec}: {name} has label {int(split.targets.max())}, of {len(labels)} classes", SHAPE)
    return split
