"""Splits, classes and left-out files of image folders as people have them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hwnas.compute.torchvision_cpu import torchvision_datasets
from hwnas.data import load_data
from hwnas.data.layout import list_images
from hwnas.errors import HwnasError
from hwnas.progress import Progress
from support.command import Run, assert_one_clear_line
from support.images import write_images

THREE = ("cat", "dog", "fox")


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Callable[[Path, str], str]:
    """Load a folder and return its summary, without its path, and the warnings."""

    def load(folder: Path, options: str = "") -> str:
        load_data(f"imagefolder:{folder}{options}", Progress())
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("reading ")]
        assert lines[0].startswith(f"imagefolder:{folder}{options}: ")
        assert all(line.startswith("warning: ") for line in lines[1:])
        return "\n".join(lines).replace(f"imagefolder:{folder}{options}", "FOLDER")

    return load


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("Training", "Testing"), "15 train (Training), 3 validation (held out of Training), 9 test (Testing)"),
        (("TRAIN", "Val"), "15 train (TRAIN), 9 validation (Val), 3 test (held out of TRAIN)"),
        (("train", "dev", "test"), "18 train, 9 validation (dev), 9 test"),
        (("Entraînement", "Validation", "Essai"), "18 train (Entraînement), 9 validation (Validation), 9 test (Essai)"),
        (("训练集", "验证集", "测试集"), "18 train (训练集), 9 validation (验证集), 9 test (测试集)"),
        (
            ("seg_train/seg_train", "seg_test/seg_test"),
            "15 train (seg_train/seg_train), 3 validation (held out of seg_train/seg_train), "
            "9 test (seg_test/seg_test)",
        ),
        (("",), "12 train, 3 validation (held out), 3 test (held out)"),
    ],
)
def test_splits_are_recognised_and_logged(
    tmp_path: Path, logged: Callable[..., str], names: tuple[str, ...], text: str
) -> None:
    for number, name in enumerate(names):
        write_images(tmp_path / name, 3 if number else 6, classes=THREE)
    assert logged(tmp_path) == f"FOLDER: 3 classes (cat, dog, fox); images: {text}"
    data = load_data(f"imagefolder:{tmp_path}")
    assert data.labels == THREE
    assert f"{len(data.train)} train" in text
    assert f"{len(data.validation)} validation" in text
    assert f"{len(data.test)} test" in text


def test_chosen_numbers_of_images_are_logged(tmp_path: Path, logged: Callable[..., str]) -> None:
    write_images(tmp_path, 20, classes=THREE)
    expected = "images: 6 of 36 train, 3 of 12 validation (held out), 12 test (held out)"
    assert expected in logged(tmp_path, "?train=6&validation=3")


def test_first_class_names_are_logged(tmp_path: Path, logged: Callable[..., str]) -> None:
    write_images(tmp_path, 5, classes=tuple("abcdefgh"))
    assert "8 classes (a, b, c, d, e and 3 more)" in logged(tmp_path)


def test_left_out_files_are_counted_and_litter_is_no_class(tmp_path: Path, logged: Callable[..., str]) -> None:
    for name in ("train", "test"):
        write_images(tmp_path / name, 6)
    clean = load_data(f"imagefolder:{tmp_path}?stream=yes").fingerprint
    write_images(tmp_path / "train", 2, classes=(".ipynb_checkpoints", "__MACOSX"))
    write_images(tmp_path / "train" / "cat", 2, classes=(".ipynb_checkpoints",))
    for name in ("._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "note.txt", "NOTE.TXT", "film.mp4", "file"):
        (tmp_path / "train" / "dog" / name).write_bytes(b"not an image")
    (tmp_path / "test" / "notes.txt").touch()
    (tmp_path / "labels.csv").touch()
    (tmp_path / "masks").mkdir()
    Path(tmp_path / "train" / "loose.png").write_bytes(b"not read")
    text = logged(tmp_path)
    assert "2 classes (cat, dog)" in text
    assert text.endswith(
        "; left out: 7 hidden or system files, 3 .txt, 1 .csv, 1 .mp4, 1 image outside class folders, "
        "1 without suffix, folder masks"
    )
    assert load_data(f"imagefolder:{tmp_path}?stream=yes").fingerprint == clean


def test_files_are_listed_in_the_order_of_torchvision(tmp_path: Path) -> None:
    """Names, order and class numbers of ordinary images are those of torchvision's ImageFolder."""
    generator = np.random.default_rng(0)
    for label in ("b", "B", "a b", "ä", "10", "9"):
        for parent in ("", "x", "x/y", "X", "x-1"):
            (tmp_path / label / parent).mkdir(parents=True, exist_ok=True)
            for number in generator.permutation(4):
                suffix = generator.choice(["jpg", "JPG", "png", "tiff", "webp", "txt"])
                (tmp_path / label / parent / f"{number}.{suffix}").touch()
        (tmp_path / label / "first.bmp").touch()
    listing = list_images(tmp_path)
    expected = torchvision_datasets().ImageFolder(str(tmp_path))
    assert list(listing.labels) == expected.classes
    assert [f"{tmp_path}/{name.decode()}" for name in listing.files.names.tolist()] == [p for p, _ in expected.samples]
    assert listing.files.classes.tolist() == expected.targets


def test_classes_of_few_images_are_warned_of(tmp_path: Path, logged: Callable[..., str]) -> None:
    write_images(tmp_path, 10)
    write_images(tmp_path, 2, classes=("owl",))
    write_images(tmp_path, 1, classes=("yak",))
    write_images(tmp_path, 3, classes=("ape",))
    text = logged(tmp_path)
    assert "warning: FOLDER has no validation image of classes ape, owl, yak" in text
    assert "warning: FOLDER has no test image of classes owl, yak" in text
    assert "no train image" not in text


def two_partitions(folder: Path) -> None:
    for name in ("Part1", "Part2"):
        write_images(folder / name, 5, classes=THREE)


def wrapped(folder: Path) -> None:
    write_images(folder / "PetImages", 5, classes=THREE)


def splits_beside_classes(folder: Path) -> None:
    write_images(folder, 5, classes=THREE)
    write_images(folder / "Testing", 5, classes=THREE)


def only_testing(folder: Path) -> None:
    write_images(folder / "Testing", 5, classes=THREE)


def flat_splits(folder: Path) -> None:
    write_images(folder, 5, classes=("Train", "Test"))


def empty_class(folder: Path) -> None:
    write_images(folder / "train", 5)
    (folder / "train" / "owl").mkdir()
    (folder / "train" / "owl" / "1.heic").touch()
    (folder / "train" / "yak").mkdir()


def validation_lacks(folder: Path) -> None:
    write_images(folder / "train", 5, classes=THREE)
    write_images(folder / "val", 5, classes=("cat", "wolf"))
    (folder / "val" / "dog").mkdir()


def two_training_folders(folder: Path) -> None:
    for name in ("Training", "TrainSet"):
        write_images(folder / name, 5, classes=THREE)


def loose_images(folder: Path) -> None:
    write_images(folder.parent, 5, classes=(folder.name,))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (two_partitions, "Part1, Part2 hold folders instead of images; .*imagefolder:.*/Part1"),
        (wrapped, "PetImages holds folders instead of images; .*imagefolder:.*/PetImages"),
        (splits_beside_classes, "has Testing, but no folder of training images"),
        (only_testing, "has Testing, but no folder of training images; name that folder train"),
        (flat_splits, "has splits, but Train has no class folders"),
        (empty_class, "train has no images of classes owl, yak .left out: 1 .heic."),
        (validation_lacks, "val has no images of classes dog, fox and images of class wolf, unknown in training"),
        (two_training_folders, "several folders of train images: TrainSet, Training"),
        (loose_images, "has images, but no class folders"),
    ],
)
def test_folders_without_clear_classes_are_refused_by_name(
    run: Run, tmp_path: Path, table_file: Path, make: Callable[[Path], None], words: str
) -> None:
    make(tmp_path / "images")
    arguments = ("search", "--table", table_file, "--out", tmp_path / "run", "--channels", 4, "--cells", 1)
    assert_one_clear_line(run(*arguments, "--data", f"imagefolder:{tmp_path / 'images'}"), words)


def test_a_test_folder_that_lacks_a_class_is_named_and_refused_when_it_is_read(
    tmp_path: Path, logged: Callable[..., str]
) -> None:
    write_images(tmp_path / "train", 5, classes=THREE)
    write_images(tmp_path / "test", 5, classes=("cat", "dog"))
    problem = "test has no images of class fox"
    assert re.search(rf"no test \(image folder .*{problem}\)", logged(tmp_path))
    with pytest.raises(HwnasError, match=problem):
        _ = load_data(f"imagefolder:{tmp_path}").test


def test_class_folders_with_an_inner_folder_of_images(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        write_images(tmp_path / label, 5, classes=("images",))
        (tmp_path / label / "boxes.txt").touch()
    assert load_data(f"imagefolder:{tmp_path}").labels == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    write_images(tmp_path, 5, classes=("bus", "train"))
    assert load_data(f"imagefolder:{tmp_path}").labels == ("bus", "train")
