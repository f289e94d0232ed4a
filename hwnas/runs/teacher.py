"""Teachers of a training: an ONNX file, a torch module that a function of the user returns, or the network of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.data import ImageData
from hwnas.errors import HwnasError
from hwnas.export.network import open_session, read_metadata
from hwnas.files import sha256_of, sha256_of_file
from hwnas.imports import import_object
from hwnas.runs.read import read_networks, require_trained
from hwnas.text import first_few, shorten
from hwnas.training.distillation import Teacher

PYTHON = "python:"
FORMS = "give FILE.onnx, python:module:function or the folder of a network in a run"


def load_teacher(spec: str, data: ImageData) -> Teacher:
    """Return the teacher that ``spec`` names, on the device of the images.

    Raises HwnasError where there is no such teacher, or its image size, its classes or their order are not those of
    ``data``.
    """
    if spec.startswith(PYTHON):
        teacher = _from_function(spec, data)
    elif Path(spec).is_dir():
        teacher = _from_run(Path(spec), data)
    elif spec.endswith(".onnx"):
        teacher = _from_onnx(Path(spec), data)
    else:
        raise HwnasError(f"there is no teacher {spec!r}", FORMS)
    _check(teacher, data)
    return teacher


def _from_onnx(path: Path, data: ImageData) -> Teacher:
    run = open_session(path)
    normalise = _normalisation(str(path), read_metadata(path), data)

    def scores(images: Tensor) -> Tensor:
        return torch.from_numpy(run(normalise(images).cpu().numpy())).to(images.device)

    return Teacher(str(path), sha256_of_file(path), scores)


def _from_run(folder: Path, data: ImageData) -> Teacher:
    networks = read_networks(folder)
    if len(networks) > 1:
        names = first_few([str(network.folder) for network in networks])
        raise HwnasError(
            f"{folder} holds {len(networks)} networks, and a training has one teacher", f"name one: {names}"
        )
    require_trained(networks)
    (network,) = networks
    normalise = _normalisation(str(folder), read_metadata(network.onnx_file), data)
    module = _frozen(network.child(), data)
    return Teacher(str(folder), sha256_of_file(network.weights), lambda images: module(normalise(images)))


def _from_function(spec: str, data: ImageData) -> Teacher:
    make = import_object(spec.removeprefix(PYTHON), "teacher")
    try:
        module = make()
    except Exception as error:
        raise HwnasError(f"teacher {spec} failed: {type(error).__name__}: {error}", "fix the function") from error
    if not isinstance(module, nn.Module):
        raise HwnasError(f"teacher {spec} returned a value of type {type(module).__name__}", "return a torch.nn.Module")
    state = {name: tensor.cpu().numpy() for name, tensor in module.state_dict().items()}
    digest = sha256_of({name: [str(array.dtype), array.tobytes().hex()] for name, array in state.items()})
    frozen = _frozen(module, data)
    return Teacher(spec, digest, lambda images: frozen(images))


def _frozen(module: nn.Module, data: ImageData) -> nn.Module:
    """Return a module for evaluation, on the device of the images."""
    return module.eval().requires_grad_(False).to(data.device)


def _normalisation(name: str, metadata: Mapping[str, str], data: ImageData) -> Any:
    """Return the map from images normalised for ``data`` to those of the teacher, by the metadata of its ONNX file.

    Raises HwnasError where the teacher's classes have other names or another order.
    """
    labels = json.loads(metadata["labels"]) if "labels" in metadata else list(data.labels)
    if labels != list(data.labels):
        shown = [shorten(", ".join(classes), 50) for classes in (labels, data.labels)]
        raise HwnasError(
            f"the classes of teacher {name} are {shown[0]}; those of {data.name} are {shown[1]}",
            "give a teacher of the same classes in the same order",
        )
    known = json.loads(metadata["normalisation"]) if "normalisation" in metadata else None
    if known is None or (known["mean"], known["std"]) == (list(data.mean), list(data.std)):
        return lambda images: images

    def normalise(images: Tensor) -> Tensor:
        mean, std, other_mean, other_std = (
            torch.tensor(values, device=images.device).view(1, -1, 1, 1)
            for values in (data.mean, data.std, known["mean"], known["std"])
        )
        return (images * std + (mean - other_mean)) / other_std

    return normalise


def _check(teacher: Teacher, data: ImageData) -> None:
    """Raise HwnasError where the teacher does not score two images of the data."""
    images, _ = next(iter(data.batches(data.validation, 2)))
    shape = "x".join(map(str, data.shape))
    try:
        with torch.no_grad():
            scores = teacher.scores(images)
    except Exception as error:  # whatever a network raises for images of another size
        reason = shorten(" ".join(str(error).split()), 160)
        raise HwnasError(
            f"teacher {teacher.name} does not take batches of images of {data.name}, {shape}: {reason}",
            f"give a teacher of {shape} images and any batch size, or resize the images with ?size=N in --data",
        ) from error
    expected = (len(images), len(data.labels))
    if not isinstance(scores, Tensor) or tuple(scores.shape) != expected:
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise HwnasError(
            f"teacher {teacher.name} returns {found} for {len(images)} images of {data.name}, which has "
            f"{len(data.labels)} classes",
            f"give a teacher that returns scores [images, {len(data.labels)}]",
        )
