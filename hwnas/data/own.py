"""Images that a Python function of the user's own gives: ``python:package.module:FUNCTION``.

The function takes no arguments and returns one of

* ``(images, labels)``, of which a fifth each is held out for validation and test,
* a dict with ``train`` and, if they are there, ``validation`` and ``test``, each ``(images, labels)`` or a function
  that returns it (``test`` is called by evaluation alone); what is missing is held out of ``train``. Beside them
  ``classes`` (names, one a class) and ``flip`` (False: a mirrored image is another image),
* a hwnas.data.ImageData, taken as it is.

``images`` are uint8 [N, C, H, W] or [N, H, W, C], ``labels`` whole numbers from 0 [N], as numpy arrays or tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hwnas.data.images import HELD_OUT, Choose, ImageData, Split, divide
from hwnas.errors import HwnasError
from hwnas.imports import import_object

KEYS = ("train", "validation", "test", "classes", "flip")
SHAPE = "give (images, labels), uint8 [N, C, H, W] or [N, H, W, C] and whole numbers from 0 [N]"


def python_data(spec: str, place: str, some: Choose) -> ImageData:
    """Call the function ``place`` and check what it returns. ``some(labels, name)`` are the images of a split that are
    wanted.

    Raises HwnasError when the function is not there, fails, or returns anything else than the above.
    """
    function = import_object(place, "data")
    if not callable(function):
        raise HwnasError(f"data {spec}: {place} is a {type(function).__name__}, not a function", SHAPE)
    found = _call(spec, place, function)
    if isinstance(found, ImageData):
        return _chosen(spec, found, some)
    given = found if isinstance(found, dict) else {"train": found}
    if unknown := [key for key in given if key not in KEYS]:
        raise HwnasError(f"data {spec}: unknown key {str(unknown[0])[:40]!r}", f"use {', '.join(KEYS)}")
    if "train" not in given:
        raise HwnasError(f"data {spec}: it has no train images", SHAPE)

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
        keep, out = divide(targets[rest], (1 - share, share), seed=len(held))
        held[name], rest = rest[out], rest[keep]

    def split(name: str) -> Split:
        return whole.part(held[name]) if name in held else _same_shape(spec, name, read(name), whole)

    validation = split("validation")
    labels = _class_names(spec, given.get("classes"), whole)

    def test() -> Split:
        return _within(spec, "test", split("test"), labels)

    data = ImageData(
        name=spec,
        labels=labels,
        train=whole.part(rest),
        validation=_within(spec, "validation", validation, labels),
        load_test=test,
        flip=bool(given.get("flip", True)),
    )
    return _chosen(spec, data, some)


def _call(spec: str, name: str, function: Callable[[], Any]) -> Any:
    try:
        return function()
    except HwnasError:
        raise
    except Exception as error:
        raise HwnasError(f"data {spec}: {name} failed: {type(error).__name__}: {error}", "fix the function") from error


def _chosen(spec: str, data: ImageData, some: Choose) -> ImageData:
    """As many images of each split as are wanted."""

    def choose(split: Split, name: str) -> Split:
        chosen = some(split.targets.numpy(), name)
        return split if len(chosen) == len(split) else split.part(chosen)

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
        raise HwnasError(f"data {spec}: {name} images are {list(images.shape)}: which axis is colour?", SHAPE)
    images = images if first < last else images.permute(0, 3, 1, 2)
    return Split(images.contiguous(), targets.long())


def _same_shape(spec: str, name: str, split: Split, train: Split) -> Split:
    if split.images.shape[1:] != train.images.shape[1:]:
        shapes = f"{list(split.images.shape[1:])}, those of train {list(train.images.shape[1:])}"
        raise HwnasError(f"data {spec}: {name} images are {shapes}", "give images of one size")
    return split


def _class_names(spec: str, names: Sequence[Any] | None, train: Split) -> tuple[str, ...]:
    """The names, by default the numbers, of at least two classes, of each of which there is a training image."""
    count = int(train.targets.max()) + 1
    labels = tuple(str(n) for n in (range(count) if names is None else names))
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise HwnasError(f"data {spec}: it has {len(set(labels))} different classes", "give two or more")
    if sorted(set(train.targets.tolist())) != list(range(len(labels))):
        raise HwnasError(
            f"data {spec}: train labels are not all of 0 to {len(labels) - 1}",
            "number the classes from 0, without gaps",
        )
    return labels


def _within(spec: str, name: str, split: Split, labels: tuple[str, ...]) -> Split:
    if int(split.targets.max()) >= len(labels):
        raise HwnasError(f"data {spec}: {name} has label {int(split.targets.max())}, of {len(labels)} classes", SHAPE)
    return split
