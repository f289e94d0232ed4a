"""Digits, CIFAR-10 and the checks of data texts."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hwnas.data import load_data
from hwnas.data.sources import resized
from support.command import Run, assert_one_clear_line


def test_digits_are_scikit_learns_images() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits?size=8")
    assert data.shape == (3, 8, 8)
    total = torch.cat([s.images for s in (data.train, data.validation, data.test)])
    assert len(total) == 1797
    original = {tuple(np.rint(image.ravel() * 255 / 16).astype(int)) for image in load_digits().images}
    assert {tuple(image[0].flatten().tolist()) for image in total} == original
    assert load_data("digits").shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("digits", "digits?size=8"),
        ("digits?size=8", "digits?size=8"),
        ("imagefolder:photos?train=10", "imagefolder:photos?train=10&size=8"),
        ("cifar10:folder", "cifar10:folder"),
        ("unknown:x", "unknown:x"),
    ],
)
def test_a_size_is_added_where_a_source_resizes(spec: str, expected: str) -> None:
    assert resized(spec, (3, 8, 8)) == expected


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("mnist", "unknown data"),
        ("digits?colour=red", "colour"),
        ("digits?size=0", "size"),
        ("imagefolder", "PATH"),
        ("cifar10:nowhere", "download=yes"),
        ("digits?size=1", "too small"),
    ],
)
def test_bad_data_specs_are_refused_in_one_line(
    run: Run, tmp_path: Path, table_file: Path, spec: str, words: str
) -> None:
    result = run("search", "--table", table_file, "--out", tmp_path / "run", "--cells", 1, "--data", spec)
    assert_one_clear_line(result, words)


def test_cifar10_on_disk_is_read_and_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in CIFAR-10's format. The check of the published checksums is off: the images are random."""
    from hwnas.compute.torchvision_cpu import torchvision_datasets

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    generator = np.random.default_rng(0)
    pixels = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels[name] = generator.integers(0, 256, (40, 3072), dtype=np.uint8)
        batch = {"data": pixels[name], "labels": [i % 10 for i in range(40)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    monkeypatch.setattr(torchvision_datasets().cifar, "check_integrity", lambda *a: True)

    data = load_data(f"cifar10:{tmp_path}?test=20")
    assert [len(s) for s in (data.train, data.validation, data.test)] == [160, 40, 20]
    assert data.labels[3] == "class3"
    given = {row.tobytes() for name, rows in pixels.items() if name != "test_batch" for row in rows}
    read = {i.numpy().tobytes() for s in (data.train, data.validation) for i in s.images}
    assert read == given
    assert {i.numpy().tobytes() for i in data.test.images} <= {row.tobytes() for row in pixels["test_batch"]}
