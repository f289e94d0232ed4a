"""CIFAR-10 (JPEG) as uint8 arrays, decoded once from the carried archive.

``python:benchmarks.gpu.images:cifar10`` names them as data of a search. The environment variable
``GPU_SESSION_IMAGES`` names the folder of the arrays, or is "random" in a rehearsal: a few random images.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from hwnas.errors import HwnasError
from hwnas.files import read_bytes

FOLDER = "GPU_SESSION_IMAGES"
RANDOM = "random"  # the value of that variable in a rehearsal
VALIDATION = 5_000  # of the 50,000 training images
SPLITS = ("train", "test")
PACK = "fill the pack again: bash benchmarks/gpu/pack.sh IMAGES.tar.gz"
Named = list[tuple[str, bytes]]
Split = tuple[np.ndarray, np.ndarray]


def decode_archive(archive: Path, folder: Path, processes: int | None = None) -> None:
    """Decode an archive of ``SPLIT/CLASS/*.jpg`` into ``SPLIT.npy`` [N, H, W, C] and ``SPLIT_classes.npy`` [N].

    Raises HwnasError if it has no training images; test images are needed only where they are read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Named] = {split: [] for split in SPLITS}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if member.isfile() and len(parts) >= 3 and parts[-3] in files:
                content = tar.extractfile(member)
                assert content
                files[parts[-3]].append((parts[-2], content.read()))
    if not files["train"]:
        raise HwnasError(f"{archive} has no images train/CLASS/*.jpg", PACK)
    labels = sorted({label for label, _ in files["train"]})
    with ProcessPoolExecutor(processes) as pool:
        for split, named in files.items():
            if not named:
                continue
            chunks = [[content for _, content in named[start : start + 1000]] for start in range(0, len(named), 1000)]
            np.save(folder / f"{split}.npy", np.concatenate(list(pool.map(_decode, chunks))))
            np.save(folder / f"{split}_classes.npy", np.array([labels.index(label) for label, _ in named]))
    (folder / "labels.txt").write_text("\n".join(labels), encoding="utf-8")


def _decode(contents: list[bytes]) -> np.ndarray:
    from PIL import Image  # here, because the plan is shown before packages are installed

    return np.stack([np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) for content in contents])


def cifar10() -> dict[str, Any]:
    """Return the images as ``python:`` data: 45,000 for training, 5,000 for validation, chosen with a fixed seed.

    Raises HwnasError where there are no images, and ``test`` where there are no test images.
    """
    read, labels = _source()
    images, classes = read("train")
    order = np.random.default_rng(0).permutation(len(images))
    validation, train = np.split(order, [min(VALIDATION, len(images) // 5)])
    data = {"train": (images[train], classes[train]), "validation": (images[validation], classes[validation])}
    return {**data, "test": lambda: read("test"), "classes": labels}


def _source() -> tuple[Callable[[str], Split], list[str]]:
    """Return a function that reads a split, and the names of the classes."""
    named = os.environ.get(FOLDER)
    if named == RANDOM:
        return _random, list("abcdefghij")
    if not named:
        raise HwnasError("this session has no images", PACK)
    folder = Path(named)
    labels = read_bytes(folder / "labels.txt", PACK).decode("utf-8").splitlines()
    return lambda split: _read(folder, split), labels


def _read(folder: Path, split: str) -> Split:
    """Return a split that was decoded into a folder."""
    if not (folder / f"{split}.npy").exists():
        raise HwnasError(f"the carried images have no {split} split", PACK)
    return np.load(folder / f"{split}.npy"), np.load(folder / f"{split}_classes.npy")


def _random(split: str) -> Split:
    generator = np.random.default_rng(SPLITS.index(split))
    return generator.integers(256, size=(60, 32, 32, 3), dtype=np.uint8), np.arange(60) % 10
