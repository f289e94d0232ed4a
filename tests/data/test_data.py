"""Data: splits that never overlap, batches fixed by seed and step, every bad folder refused in one line."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hwnas.data import ImageData, Split, load_data
from hwnas.data.images import divide
from hwnas.errors import HwnasError
from support.command import Run, assert_one_clear_line


def write_images(
    folder: Path, count: int, size: int = 12, mode: str = "RGB", classes: tuple[str, ...] = ("cat", "dog")
) -> Path:
    """Random images, one folder a class."""
    generator = np.random.default_rng(len(str(folder)))
    for label in classes:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = generator.integers(0, 255, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).convert(mode).save(folder / label / f"{number}.png")
    return folder


@given(st.lists(st.integers(0, 4), min_size=30, max_size=200), st.integers(0, 9))
def test_divided_parts_are_disjoint_and_keep_the_classes(labels: list[int], seed: int) -> None:
    targets = np.array(labels)
    parts = divide(targets, (0.5, 0.3, 0.2), seed)
    assert sorted(np.concatenate(parts)) == list(range(len(targets)))
    for label in np.unique(targets):
        assert abs((targets[parts[0]] == label).sum() - 0.5 * (targets == label).sum()) <= 1
    again = divide(targets, (0.5, 0.3, 0.2), seed)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


def test_digits_are_scikit_learns_images() -> None:
    from sklearn.datasets import load_digits

    data = load_data("digits?size=8")
    assert data.shape == (3, 8, 8)
    total = torch.cat([s.images for s in (data.train, data.validation, data.test)])
    assert len(total) == 1797
    original = {tuple(np.rint(image.ravel() * 255 / 16).astype(int)) for image in load_digits().images}
    assert {tuple(image[0].flatten().tolist()) for image in total} == original
    assert load_data("digits").shape == (3, 32, 32)


def test_batches_depend_on_seed_and_step_alone() -> None:
    data = load_data("digits?size=8")
    first, again, other = (data.train_batch(5, 32, seed) for seed in (0, 0, 1))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    steps = data.steps_an_epoch(32)
    for epoch in range(2):
        seen = torch.cat([data.train_batch(epoch * steps + i, 32, 0)[1] for i in range(steps)])
        counts = torch.bincount(data.train.targets, minlength=10) - torch.bincount(seen, minlength=10)
        assert int(counts.min()) >= 0
        assert int(counts.sum()) == len(data.train) - 32 * steps


def test_augmentation_shifts_and_flips_and_nothing_else() -> None:
    images = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4).repeat(64, 1, 1, 1) + 1
    split = Split(images, torch.zeros(64, dtype=torch.long))
    data = ImageData("test", ("a",), split, split, lambda: split)
    augmented = data._augment(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images[0, 0], (1, 1, 1, 1))
    crops = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    allowed = {tuple(v.flatten().tolist()) for crop in crops for v in (crop, crop.flip(-1))}
    seen = {tuple(image.flatten().tolist()) for image in augmented}
    assert seen <= allowed
    assert len(seen) > 10


def test_normalised_training_images_have_zero_mean_and_unit_deviation() -> None:
    data = load_data("digits?size=8")
    normalised = data.normalise(data.train.images)
    assert float(normalised.mean()) == pytest.approx(0, abs=1e-3)
    assert float(normalised.std()) == pytest.approx(1, abs=1e-2)


def test_image_folder_with_and_without_its_own_splits(tmp_path: Path) -> None:
    plain = load_data(f"imagefolder:{write_images(tmp_path / 'plain', 20)}")
    assert [len(s) for s in (plain.train, plain.validation, plain.test)] == [24, 8, 8]
    pixels = [tuple(i.flatten().tolist()) for s in (plain.train, plain.validation, plain.test) for i in s.images]
    assert len(set(pixels)) == 40

    for name, count in (("train", 10), ("val", 4), ("test", 3)):
        write_images(tmp_path / "split" / name, count)
    split = load_data(f"imagefolder:{tmp_path / 'split'}?size=8")
    assert [len(s) for s in (split.train, split.validation, split.test)] == [20, 8, 6]
    assert split.shape == (3, 8, 8)
    assert split.labels == ("cat", "dog")
    few = load_data(f"imagefolder:{tmp_path / 'split'}?train=6&validation=2&test=4")
    assert [len(s) for s in (few.train, few.validation, few.test)] == [6, 2, 4]


def test_test_images_are_not_read_until_asked_for(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, 10)
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(b"unreadable")
    data = load_data(f"imagefolder:{tmp_path}")
    assert len(data.train) == 16
    with pytest.raises(HwnasError, match="cannot read image"):
        _ = data.test


def greyscale(folder: Path) -> None:
    write_images(folder, 5, mode="L")


def unequal(folder: Path) -> None:
    write_images(folder, 5)
    write_images(folder, 2, size=9)


def truncated(folder: Path) -> None:
    write_images(folder, 5)
    file = folder / "cat" / "0.png"
    file.write_bytes(file.read_bytes()[:60])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "no images"),
        (lambda folder: (folder / "cat").mkdir(parents=True), "no images"),
        (lambda folder: write_images(folder, 5, classes=("cat",)), "one class"),
        (greyscale, "greyscale.*grey=repeat"),
        (unequal, "size=N"),
        (truncated, "cannot read image"),
    ],
)
def test_bad_image_folders_are_refused_in_one_line(
    run: Run, tmp_path: Path, table_file: Path, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "images")
    arguments = ("search", "--table", table_file, "--out", tmp_path / "run", "--channels", 4, "--cells", 1)
    assert_one_clear_line(run(*arguments, "--data", f"imagefolder:{tmp_path / 'images'}"), words)
    assert not (tmp_path / "run").exists()


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


def test_greyscale_images_can_be_repeated(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{write_images(tmp_path / 'grey', 10, mode='L')}?grey=repeat")
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match="only 12 images"):
        load_data(f"imagefolder:{write_images(tmp_path / 'images', 10)}?train=13")


@pytest.mark.parametrize("load", [True, False])
def test_schemas_are_declared_only_where_torchvisions_operators_do_not_load(load: bool) -> None:
    """Beside a torch that they load with, declaring them first ends the process."""
    script = f"""
import torch
from hwnas.data import torchvision_cpu

def load_library(path):
    if not {load}:
        raise OSError(path)

torch.ops.load_library = load_library
torchvision_cpu.import_module = lambda module: module  # what it imports would load them itself
assert torchvision_cpu.torchvision_datasets() == "torchvision.datasets"
print(hasattr(torch.ops.torchvision, "nms"), hasattr(torch.ops.torchvision, "qnms"))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == [str(not load)] * 2, done.stderr


def test_cifar10_on_disk_is_read_and_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of CIFAR-10's own form; only their published checksums, which random images cannot have, are waived."""
    from hwnas.data.torchvision_cpu import torchvision_datasets

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
