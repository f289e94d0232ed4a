"""Image folders: splits, options, memory limits, and one clear line for every bad folder."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hwnas.data import folder, load_data
from hwnas.data.files import ImageFiles
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from support.command import Run, assert_one_clear_line
from support.images import write_images


def test_image_folders_with_and_without_given_splits(tmp_path: Path) -> None:
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


def test_test_images_are_read_on_first_access(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, 10)
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_bytes(b"unreadable")
    data = load_data(f"imagefolder:{tmp_path}")
    assert len(data.train) == 16
    with pytest.raises(HwnasError, match="cannot read image"):
        _ = data.test


def make_greyscale(folder: Path) -> None:
    write_images(folder, 5, mode="L")


def make_unequal(folder: Path) -> None:
    write_images(folder, 5)
    write_images(folder, 2, side=9)


def make_truncated(folder: Path) -> None:
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
        (make_greyscale, "greyscale.*grey=repeat"),
        (make_unequal, "size=N"),
        (make_truncated, "cannot read image"),
    ],
)
def test_bad_image_folders_are_refused_in_one_line(
    run: Run, tmp_path: Path, table_file: Path, make: Callable[[Path], object], words: str
) -> None:
    make(tmp_path / "images")
    arguments = ("search", "--table", table_file, "--out", tmp_path / "run", "--channels", 4, "--cells", 1)
    assert_one_clear_line(run(*arguments, "--data", f"imagefolder:{tmp_path / 'images'}"), words)
    assert not (tmp_path / "run").exists()


def test_greyscale_images_can_be_repeated(tmp_path: Path) -> None:
    data = load_data(f"imagefolder:{write_images(tmp_path / 'grey', 10, mode='L')}?grey=repeat")
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_more_images_than_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HwnasError, match="only 12 images"):
        load_data(f"imagefolder:{write_images(tmp_path / 'images', 10)}?train=13")


@pytest.mark.parametrize(
    ("options", "words"), [("stream=maybe", "yes or no"), ("crop=yes", "size=N"), ("grey=green", "repeat")]
)
def test_bad_options_of_folders_are_refused(tmp_path: Path, options: str, words: str) -> None:
    with pytest.raises(HwnasError, match=words):
        load_data(f"imagefolder:{write_images(tmp_path / 'images', 20, side=None)}?{options}")


def test_images_that_would_fill_the_memory_are_streamed_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = write_images(tmp_path / "images", 20, side=10)  # 24 and 8 images of 300 bytes
    for available, streamed in ((4 * 32 * 300, False), (4 * 32 * 300 - 4, True)):
        monkeypatch.setattr(folder, "memory_bytes", lambda available=available: available)
        data = load_data(f"imagefolder:{place}", Progress())
        assert isinstance(data.train.images, ImageFiles) == streamed
        assert isinstance(data.test.images, ImageFiles) == streamed
        assert len(re.findall("decoded when needed .in memory they would take", capsys.readouterr().err)) == (streamed)
    assert isinstance(load_data(f"imagefolder:{place}?stream=no").train.images, Tensor)
